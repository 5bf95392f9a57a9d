"""The report: figures and sample grids as files, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections import Counter
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from bench.analysis import claims
from bench.analysis.comparison import Analysis, analyse
from bench.analysis.metrics import FITTED, METRICS
from bench.analysis.reproduction import reproduced, reproduction_summary
from bench.files import read_json, write_text
from bench.progress import format_number
from bench.report import tables
from bench.report.explorer import sample_explorer
from bench.report.figures import MAIN, SIZED, all_charts, tuning_charts
from bench.report.html import render
from bench.report.interactive import EXPLORED, embedded, page_data, table_rows
from bench.report.palette import FIGURE_COLORS, SAMPLE_COLORS, in_few_colors
from bench.report.reproduction_figures import reproduction_charts
from bench.report.samples import sample_grid
from bench.report.style import Chart, protocol_line
from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.table import finished_rows, load_reference, load_search, load_table

SAMPLES = "samples"
NOT_TESTED = "not tested"
LIVE_DRAWS = 200
"""Of fits while a sweep runs; the report takes all."""
SAMPLES_KEPT = "Samples of the runs, drawn when they were at hand."
"""What is known of a picture whose runs are no longer in the folder."""


def write_report(results: Results) -> Analysis:
    """Draw what the table allows: figures/*.png and *.svg, figures/samples.png, report.html; returns what was computed.

    Figures of an earlier report that this one does not draw are removed.

    Raises:
        ValueError: when there is no table, or it lacks columns.
    """
    frame, search = load_table(results.root), load_search(results)
    analysis = analyse(frame, identity=_identity(results) or None)
    charts, tuned = all_charts(analysis), tuning_charts(analysis, search)
    reproduction, reproducing = _reproduction(analysis, results)
    every = charts + tuned + reproducing
    drawn = {chart.name: _save(chart.draw(), results, chart.name) for chart in every if not chart.missing}
    _remove_others(results, drawn)
    here = [chart for chart in charts if not chart.missing and not chart.name.endswith(EXPLORED)]
    explorer, samples = sample_explorer(analysis, results), _samples(analysis, results)
    content = _content(analysis, frame, results, explorer) | {
        "samples": [] if explorer else samples,
        "tuning": tables.tuning(analysis, search),
        "figures": [_entry(chart, drawn[chart.name]) for chart in here],
        "reproduction": reproduction,
        "reproduction_figures": [_entry(chart, drawn[chart.name]) for chart in reproducing],
        "tuning_figures": [_entry(chart, drawn[chart.name]) for chart in tuned if not chart.missing],
        "num_missing": sum(bool(chart.missing) for chart in charts + tuned),
        "figures_missing": _left_out(charts + tuned),
    }
    write_text(results.report, render(content))
    return analysis


def live_page(results: Results, frame: pd.DataFrame) -> str:
    """The page of a sweep that still runs, as HTML: the same but for figures of files; writes nothing.

    Args:
        results: the folder of the sweep.
        frame: its table as it is now.
    """
    analysis = analyse(frame, LIVE_DRAWS, _identity(results) or None)
    content = _content(analysis, frame, results, sample_explorer(analysis, results, keep=False))
    none: dict[str, Any] = {
        "samples": [],
        "figures": [],
        "reproduction": "",
        "reproduction_figures": [],
        "tuning_figures": [],
        "num_missing": 0,
        "figures_missing": [],
    }
    return render({**content, **none, "tuning": tables.tuning(analysis, load_search(results))}, live=True)


def _reproduction(analysis: Analysis, results: Results) -> tuple[str, list[Chart]]:
    """What the sweep says of the committed one of the same experiment, in words and figures; empty where there is none."""
    known = load_reference(results)
    if known is None:
        return "", []
    name, frame = known
    reference = analyse(frame, analysis.num_draws)
    found = reproduced(analysis, reference)
    if not found:
        return "", []
    return f"Against results/{name}: {reproduction_summary(found)}.", reproduction_charts(analysis, reference, found)


def _identity(results: Results) -> dict[str, Any]:
    """What experiment.json says; empty where there is none."""
    return read_json(results.experiment) if results.experiment.exists() else {}


def _save(figure: Figure, results: Results, name: str) -> bytes:
    """Write PNG and SVG without dates, so that one table always gives the same bytes; returns the PNG."""
    results.figures.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "paradigm-bench"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a method may have any name
        figure.savefig(buffer, dpi=150, format="png", metadata={"Software": None})
        figure.set_layout_engine(None)  # it stays as it is now: laying out again takes as long as drawing
        figure.savefig(results.figures / f"{name}.svg", metadata={"Date": None})
    (results.figures / f"{name}.png").write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _remove_others(results: Results, drawn: dict[str, bytes]) -> None:
    """Take away an earlier report's figures: pairs of PNG and SVG with one name that this report does not draw."""
    for path in results.figures.glob("*.svg"):
        if path.stem not in drawn and path.with_suffix(".png").exists():
            path.unlink()
            path.with_suffix(".png").unlink()


def _samples(analysis: Analysis, results: Results) -> list[dict[str, str]]:
    """The grid of samples; where the folder has no runs, the picture that lies there."""
    path = results.figures / f"{SAMPLES}.png"
    grid = sample_grid(analysis, results) if analysis.methods else None
    if grid is not None:
        results.figures.mkdir(exist_ok=True)
        in_few_colors(grid.image, SAMPLE_COLORS).save(path, optimize=True)
    if not path.exists():
        return []
    caption = grid.caption if grid else SAMPLES_KEPT
    return [{"name": SAMPLES, "title": "Samples", "caption": caption, "data": base64.b64encode(path.read_bytes()).decode()}]


def _entry(chart: Chart, png: bytes) -> dict[str, str]:
    """A figure of the page: the file's picture in fewer colors, so that the page stays small."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        in_few_colors(image, FIGURE_COLORS).save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"name": chart.name, "title": chart.title, "caption": chart.caption, "data": data}


def _left_out(charts: list[Chart]) -> list[str]:
    """Each reason for drawing nothing once, with the figures that it holds for."""
    groups: dict[str, list[str]] = {}
    for chart in charts:
        if chart.missing:
            groups.setdefault(chart.missing, []).append(chart.title)
    return [f"{'; '.join(titles)}: {reason}" for reason, titles in groups.items()]


def _content(analysis: Analysis, frame: pd.DataFrame, results: Results, explorer: dict[str, Any] | None) -> dict[str, Any]:
    """Everything that the template names, but figures and tuning."""
    identity = _identity(results)
    counts = frame.drop_duplicates("run_id")["status"].value_counts().to_dict()
    done = finished_rows(analysis.frame)
    rows = table_rows(analysis, frame)
    budget = format_number(identity["budget"]) if identity else "unknown"
    fitted = [(name, fit) for name in FITTED if len(analysis.rows(name)) for fit in analysis.fits(name).values()]
    sized = [name for name in SIZED if name in MAIN or len(analysis.rows(name))]
    surfaces = [(name, fit) for name in sized for fit in analysis.surfaces(name).values()]
    paths = [(name, method, path) for name in sized for method, both in analysis.paths(name).items() for path in both]
    judged = claims.judge(analysis) if analysis.methods else []
    verdicts = Counter(claim.verdict for claim in judged)
    return {
        "title": f"paradigm-bench: {identity.get('name', results.root.name)} at BUDGET={budget}",
        "summary": claims.summary(analysis),
        "state": ", ".join(f"{number} {name}" for name, number in counts.items()),
        "protocol": protocol_line(done) + "." if len(done) else "",
        "notes": analysis.notes,
        "standings": tables.standing_tables(analysis),
        "has_charts": bool(analysis.methods),
        "has_explorer": explorer is not None,
        "data": embedded({**page_data(analysis, rows), "samples": explorer}),
        "num_rows": len(rows),
        "forecasts": tables.forecasts(read_json(results.forecast) if results.forecast.exists() else {}, analysis),
        "forecast_columns": tables.FORECAST_COLUMNS,
        "claims": [claim for claim in judged if claim.verdict != NOT_TESTED],
        "claims_not_tested": [claim for claim in judged if claim.verdict == NOT_TESTED],
        "claims_said": ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items()) or "no run has finished",
        "fits_said": f"{sum(fit.law is not None for _, fit in fitted)} of {len(fitted)} have an exponent",
        "fits": [tables.fit_row(name, fit) for name, fit in fitted if fit.law is not None],
        "fits_missing": tables.reasons((METRICS[name].label, fit.method, fit.missing or fit.set_aside) for name, fit in fitted),
        "fit_columns": tables.FIT_COLUMNS,
        "surfaces": [tables.surface_row(name, fit) for name, fit in surfaces if fit.law is not None],
        "surfaces_missing": tables.reasons(
            (METRICS[name].label, fit.method, fit.missing or fit.set_aside) for name, fit in surfaces
        ),
        "surface_columns": tables.SURFACE_COLUMNS,
        "paths": [tables.path_row(name, method, path) for name, method, path in paths if not path.missing],
        "paths_missing": tables.reasons((METRICS[name].label, method, path.missing) for name, method, path in paths),
        "path_columns": tables.PATH_COLUMNS,
        "num_draws": analysis.num_draws,
        "crossings": [f"{analysis.metric(name).label}: {found}" for name in FITTED for found in analysis.crossings(name)],
        "meanings": COLUMNS,
        "provenance": tables.provenance(frame),
        "experiment": json.dumps({k: v for k, v in identity.items() if k != "runs"}, indent=1),
    }
