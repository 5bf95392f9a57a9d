"""Prompt following: seen against held-out pairs, and by attribute."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bench.analysis.comparison import Analysis
from bench.report.style import add_legend, at_top_budget, caption, finish_axes, legend_room, look, measured_columns, new_figure

ATTRIBUTES = ("count", "shape", "color", "size", "relation")


def seen_against_held_out(analysis: Analysis) -> Figure:
    """Prompt accuracy on unseen captions of seen pairs against held-out pairs; on the diagonal nothing is lost."""
    rows, methods = analysis.rows("prompt_accuracy"), analysis.methods
    levels = {
        "prompt_accuracy_heldout": "all held-out captions",
        "prompt_accuracy_heldout_one": "one object of a held-out pair",
        "prompt_accuracy_heldout_both": "both objects of held-out pairs",
    }
    figure = new_figure(11.0 + legend_room(methods), 4.2, caption(rows))
    levels = measured_columns(rows, levels)
    for axes, (column, text) in zip(figure.subplots(1, len(levels), sharey=True, squeeze=False)[0], levels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
        for method in methods:
            drawn, mine = look(method, methods), rows[rows["method"] == method]
            axes.errorbar(
                mine["prompt_accuracy"],
                mine[column],
                xerr=mine["prompt_accuracy_se"],
                yerr=mine[f"{column}_se"],
                ls="",
                marker=drawn.marker,
                color=drawn.color,
                label=method,
                alpha=0.8,
                lw=0.8,
            )
        axes.set_title(text, fontsize=9)
        axes.set_xlabel("exact prompt accuracy, seen pairs")
        finish_axes(axes)
    figure.axes[0].set_ylabel("exact prompt accuracy, held-out pairs")
    add_legend(figure.axes[-1])
    return figure


def attributes(analysis: Analysis) -> Figure:
    """Each attribute's share at the top budget, their product (what independent errors would give), and the joint accuracy."""
    runs, methods = analysis.best_runs("prompt_accuracy"), analysis.methods
    top = at_top_budget(runs)
    columns = [f"prompt_accuracy_{name}" for name in ATTRIBUTES]
    figure = new_figure(9.5, 3.9, caption(top))
    axes = figure.add_subplot()
    names = [*ATTRIBUTES, "product", "joint"]
    width = 0.8 / max(1, len(methods))
    hatches = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
    for index, method in enumerate(methods):
        mine = top[top["method"] == method]
        if mine.empty:
            continue
        means = mine[columns].mean().to_numpy()
        # two objects carry shape, color and size each
        product = means[0] * (means[1] * means[2] * means[3]) ** 2 * means[4]
        heights = [*means, product, mine["prompt_accuracy"].mean()]
        places = np.arange(len(names)) + (index - (len(methods) - 1) / 2) * width
        axes.bar(
            places,
            heights,
            width,
            color=look(method, methods).color,
            label=method,
            hatch=hatches[index % 8],
            edgecolor="white",
            lw=0.4,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.02)
    finish_axes(axes, label="share of images (count, relation, joint)\nor of named objects")
    add_legend(axes, beside=True)
    return figure
