"""Images per parameter at the best size, from sizes.csv: prints the numbers of bench/laws/shapes.json.

sizes.csv holds the best of a few sampler settings per model: commit 47c04c4, shapes32, depth 4, batch 32, warm-up of 20 steps,
one seed, two cores, rates falling as the square root of the width, 572 test images; parameters and FLOPs as `paradigm-bench plan`
counts them. MAR is left out: its head was 64 wide at every width, which a ladder's is not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

MIDDLE = 2e11
"""Where the fitted line is read; the slope is with respect to log budget."""


def best_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """The size of the lowest FID for each method and budget: images_per_parameter, and whether it is at an edge of the widths."""
    table = table[table["method"] != "mar"]
    rows = []
    for (method, budget), group in table.sort_values("width").groupby(["method", "flops_budget"]):
        row = group.loc[group["fid"].idxmin()]
        ratio = budget / row["flops_per_image"] / row["num_params"]
        edge = row["width"] in (group["width"].min(), group["width"].max())
        rows.append(
            {"method": method, "flops_budget": budget, "width": row["width"], "images_per_parameter": ratio, "edge": edge}
        )
    return pd.DataFrame(rows)


def fit(best: pd.DataFrame) -> dict[str, float]:
    """Geometric mean and scatter (one deviation, as a factor), and the slope with its standard error."""
    x, y = np.log(best["flops_budget"] / MIDDLE), np.log(best["images_per_parameter"])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return {
        "value": float(np.exp(y.mean())),
        "deviation_factor": float(np.exp(y.std(ddof=1))),
        "slope": float(slope),
        "slope_error": float(covariance[0, 0] ** 0.5),
        "cells": len(best),
    }


if __name__ == "__main__":
    found = best_sizes(pd.read_csv(Path(__file__).parent / "sizes.csv"))
    print(found.to_string(index=False))
    print("all cells", fit(found))
    print("minima inside the widths", fit(found[~found["edge"]]))
