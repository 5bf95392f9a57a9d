"""Table, figures and sample grids to files and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import json

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from bench import plot
from bench.results import COLUMNS, Results, finished_rows, load_table, write_text

GRID_SCALE = 2
GRID_PROMPTS = 8
SHOWN = """
method width depth seed flops_budget flops_spent num_params steps epochs learning_rate guidance fid fid_se kid
precision recall clip_score prompt_accuracy prompt_accuracy_se prompt_accuracy_heldout flops_per_sample
latency_ms_b1_p50 images_per_s images_per_s_batch train_seconds status error
""".split()
STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.45; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1.5rem 0; } figcaption { font-size: .85rem; opacity: .8; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .75rem; white-space: nowrap; }
td, th { padding: .2rem .5rem; border-bottom: 1px solid #8884; text-align: right; }
td:first-child, th:first-child { text-align: left; }
"""


def write_report(results: Results) -> None:
    """Draw what the table allows: figures/*.png and *.svg, figures/samples.png, report.html.

    Raises:
        ValueError: when there is no table.
    """
    frame = load_table(results.root)
    done = finished_rows(frame)
    sections = []
    if len(done):
        results.figures.mkdir(exist_ok=True)
        for name, figure in plot.all_figures(done).items():
            sections.append(_section(name, _save(figure, results, name)))
        grid, saved = sample_grid(done, results), results.figures / "samples.png"
        if grid is not None:
            grid.save(saved)
        if saved.exists():  # a committed folder has the picture but not the runs
            sections.insert(0, _section("samples", saved.read_bytes()))
    write_text(results.root / "report.html", _page(frame, done, sections, results))


def _save(figure: Figure, results: Results, name: str) -> bytes:
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(results.figures / f"{name}.{kind}", dpi=150, metadata=metadata)
    return (results.figures / f"{name}.png").read_bytes()


CAPTIONS = {
    "samples": "The same eight unseen captions for every method (rows) at each budget, from the best size and the first seed.",
    "fid-against-training-flops": "Line: best size per budget, mean over seeds; bars: one standard error at one training seed; "
    "faint points: single runs.",
    "isoflop-fid": "Each curve holds the budget fixed and varies the size; the star is the best size run, not a fitted minimum.",
}


def _section(name: str, png: bytes) -> str:
    title = name.replace("-", " ").capitalize()
    source = base64.b64encode(png).decode()
    text = html.escape(CAPTIONS.get(name, ""))
    image = f'<img alt="{title}" src="data:image/png;base64,{source}">'
    return f"<figure><h2>{title}</h2>{image}<figcaption>{text}</figcaption></figure>"


def sample_grid(done: pd.DataFrame, results: Results) -> Image.Image | None:
    """The first prompts of each method (rows of the grid) at each budget (bands), from the runs' samples.png."""
    best = plot.best_per_budget(done, plot.METRICS["prompt_accuracy"])
    methods, budgets = plot.methods_of(done), sorted(done["flops_budget"].unique())
    strips: dict[tuple[str, float], Image.Image] = {}
    for _, cell in best.iterrows():
        rows = done[(done["method"] == cell["method"]) & (done["flops_budget"] == cell["flops_budget"])]
        rows = rows[(rows["width"] == cell["width"]) & (rows["depth"] == cell["depth"])].sort_values("seed")
        path = results.run(rows["run_id"].iloc[0]) / "samples.png"
        if path.exists():
            with Image.open(path) as image:
                side = image.width // GRID_PROMPTS
                strips[cell["method"], cell["flops_budget"]] = image.crop((0, 0, image.width, side)).convert("RGB")
    if not strips:
        return None
    width, side = next(iter(strips.values())).size
    width, side = width * GRID_SCALE, side * GRID_SCALE
    label, band = 110, 18
    canvas = Image.new("RGB", (label + width, len(budgets) * (len(methods) * side + band)), "white")
    draw = ImageDraw.Draw(canvas)
    y = 0
    for budget in budgets:
        draw.text((4, y + 3), f"{budget:.2e} training FLOPs per run", fill="black")
        y += band
        for method in methods:
            draw.text((4, y + side // 2 - 6), method, fill="black")
            if (method, budget) in strips:
                canvas.paste(strips[method, budget].resize((width, side), Image.Resampling.NEAREST), (label, y))
            y += side
    return canvas


def _page(frame: pd.DataFrame, done: pd.DataFrame, sections: list[str], results: Results) -> str:
    identity = json.loads(results.experiment.read_text()) if results.experiment.exists() else {}
    counts = frame.drop_duplicates("run_id")["status"].value_counts().to_dict()
    state = ", ".join(f"{number} {name}" for name, number in counts.items())
    budget = f"{identity['budget']:.3g}" if identity else "unknown"
    title = html.escape(f"paradigm-bench: {identity.get('name', results.root.name)} at BUDGET={budget}")
    shown = (done if len(done) else frame)[SHOWN]
    table = shown.to_html(index=False, na_rep="", float_format=lambda v: f"{v:.4g}", border=0)
    note = html.escape(plot.caption(done)) if len(done) else "No run has finished yet."
    columns = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in COLUMNS.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><p>Runs: {html.escape(state)}. {note}.</p>"
        f'{"".join(sections)}<h2>Runs</h2><div class="table">{table}</div>'
        f"<details><summary>What the columns mean</summary><dl>{columns}</dl></details></body></html>\n"
    )
