"""The sample explorer: the runs' examples on one sheet, by caption, method and budget; kept for when the runs are gone."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.progress import format_number
from bench.report.palette import SAMPLE_COLORS, in_few_colors
from bench.report.style import setting_of
from bench.results.folder import Results
from bench.results.table import TUNED

MAX_PIXELS = 800_000
"""Of the sheet: about 1 MB of the page. Where there are more methods and budgets, there are fewer captions."""
COLUMNS = 32
TEXT = "examples"
"""The text of a PNG that says what is where."""


def sample_explorer(analysis: Analysis, results: Results, *, keep: bool = True) -> dict[str, Any] | None:
    """What the page's explorer reads, with its sheet as an address; None where no run has examples and none are kept.

    With `keep` the sheet stays in the folder.
    """
    made = _compose(analysis, results) if analysis.methods else None
    if made is not None:
        sheet, content = in_few_colors(made[0], SAMPLE_COLORS), made[1]
        if keep:
            _save(sheet, content, results)
    elif results.examples.exists():
        sheet, content = _read(results.examples)
        content["cells"] = [cell for cell in content["cells"] if cell["method"] in analysis.methods]
    else:
        return None
    buffer = io.BytesIO()
    sheet.convert("RGB").save(buffer, format="webp", lossless=True, method=4)  # exact, and smaller than PNG
    return {**content, "sheet": f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"}


def _save(sheet: Image.Image, content: dict[str, Any], results: Results) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt(TEXT, json.dumps(content))
    results.figures.mkdir(exist_ok=True)
    sheet.save(results.examples, pnginfo=text, optimize=True)


def _read(path: Path) -> tuple[Image.Image, dict[str, Any]]:
    """A sheet with what it says of itself.

    Raises:
        ValueError: when it is no such picture.
    """
    try:
        with Image.open(path) as image:
            text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
            return image.convert("RGB"), json.loads(text[TEXT])
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, or restore it") from error


def _compose(analysis: Analysis, results: Results) -> tuple[Image.Image, dict[str, Any]] | None:
    """The examples of each method's best size and first seed at each budget, cut from the runs' sheets."""
    name = next((name for name in TUNED if len(analysis.rows(name))), "fid")
    runs = analysis.best_runs(name).sort_values("seed", kind="stable").groupby(["method", "flops_budget"])["run_id"].first()
    paths = {key: results.run_folder(str(run_id)).examples for key, run_id in runs.items()}
    found = {key: _read(path) for key, path in paths.items() if path.exists()}
    if not found:
        return None
    items = next(iter(found.values()))[1]["items"]
    asked = [(item["caption"], item["group"]) for item in items]
    found = {key: one for key, one in found.items() if [(i["caption"], i["group"]) for i in one[1]["items"]] == asked}
    side = next(iter(found.values()))[1]["side"]
    per_caption = len(found) + any(item["real"] is not None for item in items)
    kept = _spread(len(items), max(1, MAX_PIXELS // (side * side * per_caption)))
    budgets = sorted({budget for _, budget in found})
    squares: list[Image.Image] = []

    def add(sheet: Image.Image, about: dict[str, Any], place: int | None) -> int | None:
        if place is None:
            return None
        x, y = place % about["columns"] * side, place // about["columns"] * side
        squares.append(sheet.crop((x, y, x + side, y + side)))
        return len(squares) - 1

    captions: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    first_sheet, first = next(iter(found.values()))
    for number, index in enumerate(kept):
        item = items[index]
        captions.append({"text": item["caption"], "group": item["group"], "real": add(first_sheet, first, item["real"])})
        for method in analysis.methods:
            for (owner, budget), (sheet, about) in found.items():
                if owner == method:
                    one = about["items"][index]
                    place = add(sheet, about, one["place"])
                    cell = {"caption": number, "method": method, "budget": budgets.index(budget), "place": place}
                    cells.append({**cell, "obeyed": one["obeyed"], "reason": one["reason"]})
    canvas = Image.new("RGB", (COLUMNS * side, -(-len(squares) // COLUMNS) * side), "white")
    for place, square in enumerate(squares):
        canvas.paste(square, (place % COLUMNS * side, place // COLUMNS * side))
    content = {
        "columns": COLUMNS,
        "captions": captions,
        "cells": cells,
        "budgets": [format_number(budget) for budget in budgets],
        "judged": any(cell["obeyed"] is not None for cell in cells),
        "note": f"Each method's best size, first seed, {setting_of(METRICS[name], analysis.rows(name))}. The same captions for "
        "all methods, spread evenly over the frozen list; nothing is picked by how it looks.",
    }
    return canvas, content


def _spread(num: int, most: int) -> list[int]:
    """At most so many of num places, evenly."""
    return list(range(num)) if num <= most else [round(place * (num - 1) / max(most - 1, 1)) for place in range(most)]
