"""The report: figures and sample grids as files, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import warnings
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from bench.analysis import claims
from bench.analysis.comparison import Analysis, analyse
from bench.analysis.metrics import FITTED, METRICS
from bench.files import read_json, write_text
from bench.progress import format_number
from bench.report import tables
from bench.report.figures import MAIN, SIZED, all_charts, tuning_charts
from bench.report.samples import sample_grid
from bench.report.style import Chart, protocol_line
from bench.results.columns import ALL_COLUMNS, COLUMNS
from bench.results.folder import Results
from bench.results.table import finished_rows, load_search, load_table

SAMPLES = "samples"
SAMPLES_KEPT = "Samples of the runs, drawn when they were at hand."
"""What is known of a picture whose runs are no longer in the folder."""


def write_report(results: Results) -> Analysis:
    """Draw what the table allows: figures/*.png and *.svg, figures/samples.png, report.html; returns what was computed.

    Figures of an earlier report that this one does not draw are removed.

    Raises:
        ValueError: when there is no table, or it lacks columns.
    """
    frame, search = load_table(results.root), load_search(results)
    identity = read_json(results.experiment) if results.experiment.exists() else None
    analysis = analyse(frame, identity=identity)
    charts, tuned = all_charts(analysis), tuning_charts(analysis, search)
    drawn = {chart.name: _save(chart.draw(), results, chart.name) for chart in charts + tuned if not chart.missing}
    _remove_others(results, drawn)
    content = _content(analysis, frame, results) | {
        "figures": _samples(analysis, results) + [_entry(chart, drawn[chart.name]) for chart in charts if not chart.missing],
        "tuning": tables.tuning(analysis, search),
        "forecasts": tables.forecasts(read_json(results.forecast) if results.forecast.exists() else {}, analysis),
        "forecast_columns": tables.FORECAST_COLUMNS,
        "tuning_figures": [_entry(chart, drawn[chart.name]) for chart in tuned if not chart.missing],
        "num_missing": sum(bool(chart.missing) for chart in charts + tuned),
        "figures_missing": _left_out(charts + tuned),
    }
    environment = Environment(loader=PackageLoader("bench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    write_text(results.report, environment.get_template("page.html.jinja").render(content))
    return analysis


def _save(figure: Figure, results: Results, name: str) -> bytes:
    """Write PNG and SVG without dates, so that one table always gives the same bytes; returns the PNG."""
    results.figures.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "paradigm-bench"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a method may have any name
        figure.savefig(results.figures / f"{name}.svg", metadata={"Date": None})
        figure.savefig(buffer, dpi=150, format="png", metadata={"Software": None})
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
        grid.image.save(path)
    if not path.exists():
        return []
    caption = grid.caption if grid else SAMPLES_KEPT
    return [{"name": SAMPLES, "title": "Samples", "caption": caption, "data": base64.b64encode(path.read_bytes()).decode()}]


def _entry(chart: Chart, png: bytes) -> dict[str, str]:
    return {"name": chart.name, "title": chart.title, "caption": chart.caption, "data": base64.b64encode(png).decode()}


def _left_out(charts: list[Chart]) -> list[str]:
    """Each reason for drawing nothing once, with the figures that it holds for."""
    groups: dict[str, list[str]] = {}
    for chart in charts:
        if chart.missing:
            groups.setdefault(chart.missing, []).append(chart.title)
    return [f"{'; '.join(titles)}: {reason}" for reason, titles in groups.items()]


def _content(analysis: Analysis, frame: pd.DataFrame, results: Results) -> dict[str, Any]:
    """Everything that the template names, but figures and tuning."""
    identity = read_json(results.experiment) if results.experiment.exists() else {}
    counts = frame.drop_duplicates("run_id")["status"].value_counts().to_dict()
    done = finished_rows(analysis.frame)
    chosen = pd.concat([done, finished_rows(analysis.frame, "fid")])
    columns = [column.name for column in ALL_COLUMNS if column.shown]
    shown = pd.concat([chosen[~chosen.index.duplicated()].sort_index(), frame[frame["status"] != "done"]])[columns]
    budget = format_number(identity["budget"]) if identity else "unknown"
    fitted = [(name, fit) for name in FITTED if len(analysis.rows(name)) for fit in analysis.fits(name).values()]
    sized = [name for name in SIZED if name in MAIN or len(analysis.rows(name))]
    surfaces = [(name, fit) for name in sized for fit in analysis.surfaces(name).values()]
    paths = [(name, method, path) for name in sized for method, both in analysis.paths(name).items() for path in both]
    return {
        "title": f"paradigm-bench: {identity.get('name', results.root.name)} at BUDGET={budget}",
        "summary": claims.summary(analysis),
        "state": ", ".join(f"{number} {name}" for name, number in counts.items()),
        "protocol": protocol_line(done) + "." if len(done) else "",
        "notes": analysis.notes,
        "claims": claims.judge(analysis) if analysis.methods else [],
        "fits": [tables.fit_row(name, fit) for name, fit in fitted if fit.law is not None],
        "fits_missing": tables.reasons((METRICS[name].label, fit.method, fit.missing) for name, fit in fitted),
        "fit_columns": tables.FIT_COLUMNS,
        "surfaces": [tables.surface_row(name, fit) for name, fit in surfaces if fit.law is not None],
        "surfaces_missing": tables.reasons((METRICS[name].label, fit.method, fit.missing) for name, fit in surfaces),
        "surface_columns": tables.SURFACE_COLUMNS,
        "paths": [tables.path_row(name, method, path) for name, method, path in paths if not path.missing],
        "paths_missing": tables.reasons((METRICS[name].label, method, path.missing) for name, method, path in paths),
        "path_columns": tables.PATH_COLUMNS,
        "num_draws": analysis.num_draws,
        "crossings": [f"{analysis.metric(name).label}: {found}" for name in FITTED for found in analysis.crossings(name)],
        "columns": columns,
        "rows": [[tables.run_cell(value) for value in row] for row in shown.itertuples(index=False)],
        "meanings": COLUMNS,
        "provenance": tables.provenance(frame),
        "experiment": json.dumps({k: v for k, v in identity.items() if k != "runs"}, indent=1),
    }
