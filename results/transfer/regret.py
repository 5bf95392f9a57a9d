"""The regret table: what carried rates lose against searched ones, from the trials of `study.py`.

python results/transfer/regret.py results/transfer/trials.csv results/transfer/regret.csv
"""

import sys

import numpy as np
import pandas as pd


def regret(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per method and cell.

    The best place is that of the lowest loss with the first seed, with which all places were tried. Regret is the mean over seeds
    of the loss at the carried rate less that at the best rate, trained with the same seeds, as a share of the loss. `regret_se`
    is its standard error over the seeds, empty where the carried rate is the best. `seed_se` is the standard error of a mean loss
    at the best rate.
    """
    rows = []
    for (paradigm, cell), group in trials.groupby(["paradigm", "cell"], sort=False):
        losses = group[group["parametrization"] == "completep"].pivot(index="seed", columns="place", values="loss")
        rates = group[group["parametrization"] == "completep"].groupby("place")["rate"].first()
        best = int(losses.iloc[0].idxmin())
        row = {
            "paradigm": paradigm,
            "cell": cell,
            "best_place": best,
            "best_rate": rates[best],
            "best_loss": losses[best].mean(),
            "seed_se": losses[best].std() / np.sqrt(len(losses)) / losses[best].mean(),
            "num_rates": losses.shape[1],
            "num_seeds": len(losses),
        }
        if cell != "base":
            lost = (losses[0] - losses[best]) / losses[best].mean()
            standard = group[group["parametrization"] == "standard"].set_index("seed")["loss"]
            row |= {
                "carried_rate": rates[0],
                "regret": lost.mean(),
                "regret_se": lost.std() / np.sqrt(len(lost)) if best else np.nan,
                "standard_regret": ((standard - losses[best]) / losses[best].mean()).mean(),
                "carries": bool(abs(best) <= 1 or lost.mean() <= row["seed_se"]),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table and print it."""
    table = regret(pd.read_csv(sys.argv[1]))
    table.to_csv(sys.argv[2], index=False, float_format="%.5g")
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
