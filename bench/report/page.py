"""The report: table, figures and sample grids as files and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from bench.analysis import claims
from bench.analysis.comparison import Analysis, analyse
from bench.analysis.metrics import FITTED
from bench.analysis.scaling import Interval, ScalingFit
from bench.analysis.surfaces import SurfaceFit
from bench.files import read_json, write_text
from bench.report.figures import all_figures
from bench.report.samples import sample_grid
from bench.report.style import caption
from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.table import finished_rows, load_table

SHOWN = """
method width depth seed flops_budget flops_spent num_params steps epochs learning_rate tuned_for sampler_steps guidance
temperature fid fid_se fid_unbiased fid_floor kid kid_se precision recall density coverage inception_score
fd_dinov2 clip_score prompt_accuracy
prompt_accuracy_se prompt_accuracy_heldout verifier_probe_agreement flops_per_sample latency_ms_b1_p50 images_per_s
images_per_s_batch train_seconds tuning_flops run_id status error
""".split()
CAPTIONS = {
    "samples": "The same eight unseen captions, or the first eight classes, for every method (rows) at each budget, from the "
    "best size and the first seed.",
    "against-training-flops": "Markers: best size per budget, mean over seeds; bars: one standard error at one training seed; "
    "faint points: single runs. Curves and bands only where a fit is allowed.",
    "isoflop": "Each curve holds the budget fixed and varies the size; a star marks the minimum of an accepted parabola.",
    "best-sizes": "Filled markers are minima of accepted parabolas, hollow ones the best size that was run.",
    "against-sampling-cost": "Runs at the top budget; bars: one standard error at one training seed; grey: the methods that no "
    "other beats on both axes.",
    "against-guidance": "Top budget, validation conditions, the best of the other sampler options at each scale.",
    "against-temperature": "Top budget, validation conditions, the best of the other sampler options at each temperature.",
    "against-sampler-steps": "Top budget, validation conditions, the best of the other sampler options at each number of steps.",
    "seen-against-held-out": "Below the diagonal a method follows known pairs of shape and color better than new ones.",
    "attributes": "Product: what the joint accuracy would be if an image's errors were independent.",
    "sampling-flops-by-part": "At the setting chosen for prompt accuracy.",
    "averaged-against-raw-weights": "Same run, setting and sampling seed.",
}
FIT_COLUMNS = (
    "metric",
    "method",
    "exponent [95 %]",
    "offset [95 %]",
    "pure exponent",
    "AICc prefers",
    "held-out error with / without offset",
    "seed noise",
    "remark",
)


SURFACE_COLUMNS = (
    "metric",
    "method",
    "alpha of N [95 %]",
    "beta of D [95 %]",
    "offset [95 %]",
    "best N grows as C^a [95 %]",
    "remark",
)


def write_report(results: Results) -> Analysis:
    """Draw what the table allows: figures/*.png and *.svg, figures/samples.png, report.html; returns what was computed.

    Raises:
        ValueError: when there is no table, or it lacks columns.
    """
    frame = load_table(results.root)
    analysis = analyse(frame)
    figures: list[dict[str, str]] = []
    for name, draw in all_figures(analysis).items():
        results.figures.mkdir(exist_ok=True)
        figures.append(_entry(name, _save(draw(), results, name)))
    if analysis.methods:
        grid, saved = sample_grid(analysis, results), results.figures / "samples.png"
        if grid is not None:
            grid.save(saved)
        if saved.exists():  # a committed folder has the picture but not the runs
            figures.insert(0, _entry("samples", saved.read_bytes()))
    environment = Environment(loader=PackageLoader("bench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("report.html").render(_content(analysis, frame, results, figures))
    write_text(results.report, page)
    return analysis


def _save(figure: Figure, results: Results, name: str) -> bytes:
    """Write PNG and SVG without dates, so that one table always gives the same bytes; returns the PNG."""
    with matplotlib.rc_context({"svg.hashsalt": "paradigm-bench"}):
        figure.savefig(results.figures / f"{name}.svg", metadata={"Date": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png", metadata={"Software": None})
    (results.figures / f"{name}.png").write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _entry(name: str, png: bytes) -> dict[str, str]:
    text = next((text for part, text in CAPTIONS.items() if part in name), "")
    title = name.replace("-", " ").capitalize()
    for word, shown in (
        ("fid", "FID"),
        ("Fid", "FID"),
        ("Kid", "KID"),
        ("Clip", "CLIP"),
        ("flops", "FLOPs"),
        ("Isoflop", "IsoFLOP:"),
    ):
        title = re.sub(rf"\b{word}\b", shown, title)
    return {"name": name, "title": title, "caption": text, "data": base64.b64encode(png).decode()}


def _content(analysis: Analysis, frame: pd.DataFrame, results: Results, figures: list[dict[str, str]]) -> dict[str, Any]:
    """Everything that the template names."""
    identity = read_json(results.experiment) if results.experiment.exists() else {}
    counts = frame.drop_duplicates("run_id")["status"].value_counts().to_dict()
    done = finished_rows(analysis.frame)
    rest = frame[frame["status"] != "done"]
    both = pd.concat([done, finished_rows(analysis.frame, "fid")])
    shown = pd.concat([both[~both.index.duplicated()].sort_index(), rest])[SHOWN]
    budget = f"{identity['budget']:.3g}" if identity else "unknown"
    fitted = [(name, fit) for name in FITTED if len(analysis.rows(name)) for fit in analysis.fits(name).values()]
    surfaces = [(name, fit) for name in ("fid", "prompt_accuracy") for fit in analysis.surfaces(name).values()]
    return {
        "title": f"paradigm-bench: {identity.get('name', results.root.name)} at BUDGET={budget}",
        "summary": claims.summary(analysis),
        "state": ", ".join(f"{number} {name}" for name, number in counts.items()),
        "protocol": caption(done) + "." if len(done) else "",
        "notes": analysis.notes,
        "claims": claims.judge(analysis) if analysis.methods else [],
        "fits": [_fit_row(name, fit) for name, fit in fitted if fit.law is not None],
        "fits_missing": _reasons((name, fit.method, fit.missing) for name, fit in fitted),
        "fit_columns": FIT_COLUMNS,
        "surfaces": [_surface_row(name, fit) for name, fit in surfaces if fit.law is not None],
        "surfaces_missing": _reasons((name, fit.method, fit.missing) for name, fit in surfaces),
        "surface_columns": SURFACE_COLUMNS,
        "num_draws": analysis.num_draws,
        "crossings": [f"{analysis.metric(name).label}: {found}" for name in FITTED for found in analysis.crossings(name)],
        "figures": figures,
        "columns": SHOWN,
        "rows": [[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        "meanings": COLUMNS,
        "provenance": _provenance(frame),
        "experiment": json.dumps({k: v for k, v in identity.items() if k != "runs"}, indent=1),
    }


def _cell(value: Any) -> dict[str, Any]:
    if pd.isna(value):
        return {"text": "", "value": "", "number": False}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"text": f"{value:.4g}" if isinstance(value, float) else str(value), "value": value, "number": number}


def _reasons(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """Each reason for a missing fit once, with the metrics and methods that it keeps from one."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, method, reason in found:
        if reason:
            groups.setdefault(reason, {}).setdefault(name, []).append(method)
    return [
        "; ".join(f"{name} ({', '.join(methods)})" for name, methods in metrics.items()) + f": {reason}"
        for reason, metrics in groups.items()
    ]


def _fit_row(name: str, fit: ScalingFit) -> list[str]:
    assert fit.pure is not None
    return [
        name,
        fit.method,
        _interval(fit.exponent),
        _interval(fit.offset),
        f"{fit.pure.exponents[0]:.3g}",
        "with offset" if fit.prefers_offset else "without",
        f"{fit.held_out_error:.1%} / {fit.held_out_error_pure:.1%}",
        f"{fit.seed_noise:.1%}",
        "held-out error below twice the seed noise" if fit.extrapolates else "extrapolation not supported",
    ]


def _surface_row(name: str, fit: SurfaceFit) -> list[str]:
    alpha, beta, offset = (fit.interval(lambda p, i=i: p[:, i]) for i in (2, 3, 4))  # type: ignore[misc]
    return [name, fit.method, *(_interval(v) for v in (alpha, beta, offset.map(math.exp), fit.allocation))]


def _interval(found: Interval) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _provenance(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What every number rests on, from the table's own columns."""
    names = """
    protocol flop_rule tokenizer reference fid_network prompt_judge clip_checkpoint dinov2_network num_samples num_reference
    sample_seed seed dtype device num_threads git_sha
    """
    found = [(name, sorted({str(v) for v in frame[name].dropna()})) for name in names.split()]
    spent = frame.drop_duplicates("run_id")
    stamps = frame["timestamp"].dropna()
    totals = [
        ("training FLOPs, all runs", f"{spent['flops_spent'].sum():.3g}"),
        ("sampler tuning FLOPs, all runs", f"{frame.drop_duplicates(['run_id', 'tuning_flops'])['tuning_flops'].sum():.3g}"),
        ("evaluated", f"{stamps.min()} to {stamps.max()}" if len(stamps) else ""),
    ]
    return [(name, ", ".join(values)) for name, values in found if values] + totals
