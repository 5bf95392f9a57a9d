"""What a figure shows, read back from matplotlib's artists."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Points = list[tuple[float, float]]


def points(where: Figure | Axes, gid: str) -> Points:
    """Every (x, y) of the lines and markers with a gid, sorted; empty when nothing has it."""
    found = []
    for axes in where.axes if isinstance(where, Figure) else [where]:
        for line in axes.get_lines():
            if line.get_gid() == gid:
                found += list(zip(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), strict=True))
    return sorted((float(x), float(y)) for x, y in found)


def gids(figure: Figure) -> set[str]:
    """Of every line and bar that shows at least one point."""
    lines = {str(line.get_gid()) for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata())}
    return lines | {str(bar.get_gid()) for axes in figure.axes for bar in axes.patches}
