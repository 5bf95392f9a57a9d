"""The regret table: what carried rates lose against searched ones, from the trials of `study.py`.

python results/transfer/regret.py results/transfer/trials.csv results/transfer/regret.csv
"""

import math
import sys

import pandas as pd
from scipy.stats import t
from study import CELLS, SEEDS, lowest_point

SMALL = 0.02
"""A regret that is small: by the measured laws 2 % of the loss is about 15 % of the compute (results/laws, exponents of .14)."""


def interval(lost: pd.Series) -> tuple[float, float]:
    """Of 95 % for a mean over seeds, by Student's t."""
    error = float(t.ppf(0.975, len(lost) - 1)) * lost.std() / math.sqrt(len(lost))
    return lost.mean() - error, lost.mean() + error


def verdict(low: float, high: float) -> str:
    """Whether rates carry, from the interval of their regret; simulated in tests/test_transfer.py."""
    if high <= SMALL:
        return "carries"
    return "does not carry" if low > SMALL else "undecided"


def regret(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per method and cell.

    The best rate is the one with the lowest mean loss over the first seeds; `shift` is how many factors of 2 the lowest point of
    a parabola through it and its neighbors lies above the carried rate. Regret is the mean over fresh seeds of the loss at the
    carried rate less that at the best one, both trained with the same seeds, as a share of the loss: 0 where no rate was better.
    `regret_low` and `regret_high` are its interval of 95 %. `standard_regret` is that of the standard parametrization at the
    rate that its own rule carries, with the first seeds.
    """
    rows = []
    for (paradigm, cell), group in trials.groupby(["paradigm", "cell"], sort=False):
        searched = group[group["parametrization"] == "completep"]
        every = searched.pivot(index="seed", columns="place", values="loss")
        losses, fresh = every[every.index.isin(SEEDS)], every[~every.index.isin(SEEDS)]
        means = losses.mean()
        best = int(means.idxmin())
        row = {
            "paradigm": paradigm,
            "cell": cell,
            "rate": searched.loc[searched["place"] == 0, "rate"].iloc[0],
            "loss": means[0],
            "best_rate": searched.loc[searched["place"] == best, "rate"].iloc[0],
            "best_loss": means[best],
            "seed_deviation": losses[best].std() / means[best],
            "shift": lowest_point(dict(means)),
            "num_rates": losses.shape[1],
            "num_seeds": len(losses),
            "num_fresh_seeds": len(fresh),
        }
        if cell != "base":
            lost = (fresh[0] - fresh[best]) / fresh[best].mean() if best else 0 * losses[0]
            standard = group[group["parametrization"] == "standard"].set_index("seed")["loss"]
            low, high = interval(lost)
            row |= {
                "regret": lost.mean(),
                "regret_low": low,
                "regret_high": high,
                "standard_regret": ((standard - losses[best]) / means[best]).mean(),
                "verdict": verdict(low, high),
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["cell"] = pd.Categorical(table["cell"], list(CELLS))
    return table.sort_values(["paradigm", "cell"], ignore_index=True)


def main() -> None:
    """Write the table and print it."""
    table = regret(pd.read_csv(sys.argv[1]))
    table.to_csv(sys.argv[2], index=False, float_format="%.5g")
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
