"""The grid of samples: prompts by methods and budgets, with the verdict on each image."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS
from bench.progress import format_number
from bench.report.style import setting_of
from bench.results.folder import Results
from bench.results.table import TUNED

SIDE = 96
"""Pixels of an image in the grid, at least; small images are enlarged by a whole factor."""
PROMPTS, GAP, FRAME = 8, 6, 3
MARK = 12
"""Pixels of the line below an image that holds its mark."""
FONT_SIZE, LINE_HEIGHT, LETTER = 11, 16, 5.8
SMALL_FONT, SMALL_LETTER = 9, 4.6
OBEYED, MISSED = "#0072B2", "#D55E00"


@dataclass(frozen=True, slots=True)
class Strip:
    """The first samples of one run."""

    images: Image.Image
    """PROMPTS squares side by side."""
    prompts: list[str]
    """Empty where the run's picture does not hold them."""
    obeyed: list[bool]
    """Empty where nothing can tell, or the picture does not say."""
    reasons: list[str]
    """What is wrong with each, in words; empty where nothing can tell."""


@dataclass(frozen=True, slots=True)
class SampleGrid:
    """The picture, and what is to be said of it."""

    image: Image.Image
    caption: str


def _strip(path: Path) -> Strip:
    with Image.open(path) as image:
        text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
        side = image.width // PROMPTS
        said = [json.loads(text.get(name, "[]"))[:PROMPTS] for name in ("prompts", "obeyed", "reasons")]
        return Strip(image.crop((0, 0, image.width, side)).convert("RGB"), *said)


def _strips(analysis: Analysis, results: Results, name: str) -> dict[tuple[str, float], Strip]:
    """By method and budget: the first seed's samples at the best size."""
    found = {}
    for (method, budget), runs in analysis.best_runs(name).sort_values("seed", kind="stable").groupby(["method", "flops_budget"]):
        path = results.run_folder(runs["run_id"].iloc[0]).samples
        if path.exists():
            found[str(method), float(budget)] = _strip(path)
    return found


def sample_grid(analysis: Analysis, results: Results) -> SampleGrid | None:
    """The first prompts of each method (rows of the grid) at each budget (bands); None where the runs' pictures are missing."""
    name = next((name for name in TUNED if len(analysis.rows(name))), "fid")
    strips = _strips(analysis, results, name)
    if not strips:
        return None
    shown = [method for method in analysis.methods if any(method == m for m, _ in strips)]
    budgets = sorted({budget for _, budget in strips})
    side = next(iter(strips.values())).images.height
    side *= -(-SIDE // side)
    cell = side + 2 * FRAME
    marked = any(strip.obeyed for strip in strips.values())
    step = cell + (MARK if marked else 0) + GAP
    prompts = next((strip.prompts for strip in strips.values() if strip.prompts), [])
    texts = [textwrap.wrap(prompt, int(cell / LETTER)) for prompt in prompts]
    head = LINE_HEIGHT * max(map(len, texts), default=0) + GAP
    left, band = round(12 + 6.4 * max(map(len, shown))), LINE_HEIGHT + GAP
    height = head + len(budgets) * band + sum(step for budget in budgets for m in shown if (m, budget) in strips)
    canvas = Image.new("RGB", (left + PROMPTS * (cell + GAP), height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for column, lines in enumerate(texts):
        draw.text((left + column * (cell + GAP), 2), "\n".join(lines), fill="black", font=font)
    y = head
    for budget in budgets:
        draw.text((4, y), f"{format_number(budget)} training FLOPs per run", fill="black", font=font)
        y += band
        for method in shown:
            if (method, budget) not in strips:
                continue
            draw.text((4, y + cell // 2 - 8), method, fill="black", font=font)
            _paste(canvas, strips[method, budget], left, y, side)
            y += step
    said = f"The same first {len(prompts) or PROMPTS} test conditions for every method (rows) at each budget, from the best size"
    said += f" and the first seed, {setting_of(METRICS[name], analysis.rows(name))}."
    if marked:
        said += " A check and a blue frame: the image shows what was asked for; a cross and an orange frame: it does not."
    if any(strip.reasons for strip in strips.values()):
        said += " Beside a cross: what is wrong."
    return SampleGrid(canvas, said)


def _paste(canvas: Image.Image, strip: Strip, left: int, y: int, side: int) -> None:
    """One row of the grid, framed and marked where there is a verdict."""
    draw, cell = ImageDraw.Draw(canvas), side + 2 * FRAME
    large = strip.images.resize((PROMPTS * side, side), Image.Resampling.NEAREST)
    for column in range(PROMPTS):
        x = left + column * (cell + GAP)
        if column < len(strip.obeyed):
            obeyed = strip.obeyed[column]
            why = strip.reasons[column] if column < len(strip.reasons) else ""
            color, middle, top = (OBEYED if obeyed else MISSED), x + (MARK if why else cell // 2), y + cell + 2
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=color, width=FRAME)
            check = [(middle - 5, top + 4), (middle - 1, top + 8), (middle + 6, top)]
            cross = [(middle - 4, top), (middle + 4, top + 8), (middle, top + 4), (middle - 4, top + 8), (middle + 4, top)]
            draw.line(check if obeyed else cross, fill=color, width=2)
            if why:
                words = textwrap.shorten(why, int((cell - 2 * MARK) / SMALL_LETTER), placeholder=" ...")
                draw.text((middle + MARK, top - 1), words, fill=color, font=ImageFont.load_default(SMALL_FONT))
        canvas.paste(large.crop((column * side, 0, (column + 1) * side, side)), (x + FRAME, y + FRAME))
