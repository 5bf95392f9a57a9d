"""The grid of samples: prompts by methods and budgets."""

from __future__ import annotations

from PIL import Image, ImageDraw

from bench.analysis.comparison import Analysis
from bench.analysis.metrics import METRICS, best_per_budget
from bench.results.folder import Results
from bench.results.table import TUNED

GRID_SIDE = 64
"""Pixels of an image in the grid, at least; small images are enlarged by a whole factor."""
GRID_PROMPTS, GRID_GAP = 8, 2


def sample_grid(analysis: Analysis, results: Results) -> Image.Image | None:
    """The first prompts of each method (rows of the grid) at each budget (bands), from the runs' samples.png."""
    name = next((name for name in TUNED if len(analysis.rows(name))), "fid")
    done, methods, budgets = analysis.rows(name), analysis.methods, analysis.budgets
    strips: dict[tuple[str, float], Image.Image] = {}
    for _, cell in best_per_budget(done, METRICS[name]).iterrows():
        rows = done[(done["method"] == cell["method"]) & (done["flops_budget"] == cell["flops_budget"])]
        rows = rows[(rows["width"] == cell["width"]) & (rows["depth"] == cell["depth"])].sort_values("seed")
        path = results.run_folder(rows["run_id"].iloc[0]).samples
        if path.exists():
            with Image.open(path) as image:
                side = image.width // GRID_PROMPTS
                strips[cell["method"], cell["flops_budget"]] = image.crop((0, 0, image.width, side)).convert("RGB")
    if not strips:
        return None
    side = next(iter(strips.values())).height
    side *= -(-GRID_SIDE // side)
    width = GRID_PROMPTS * (side + GRID_GAP)
    label, band = 10 + 7 * max(len(method) for method in methods), 18
    canvas = Image.new("RGB", (label + width, len(budgets) * (len(methods) * (side + GRID_GAP) + band)), "white")
    draw = ImageDraw.Draw(canvas)
    y = 0
    for budget in budgets:
        draw.text((4, y + 3), f"{budget:.2e} training FLOPs per run", fill="black")
        y += band
        for method in methods:
            draw.text((4, y + side // 2 - 6), method, fill="black")
            if (method, budget) in strips:
                strip = strips[method, budget].resize((GRID_PROMPTS * side, side), Image.Resampling.NEAREST)
                for column in range(GRID_PROMPTS):
                    cell = strip.crop((column * side, 0, (column + 1) * side, side))
                    canvas.paste(cell, (label + column * (side + GRID_GAP), y))
            y += side + GRID_GAP
    return canvas
