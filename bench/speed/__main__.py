"""`make bench`: measure everything, print one table, write it to results/bench/ with the figures of growth."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import torch

from bench.config.file import DEFAULT_EXPERIMENT, load_experiment
from bench.data.open import open_data
from bench.data.shapes_data import TokenizedShapes
from bench.errors import nearest
from bench.plan.machine import Machine, git_sha, this_machine
from bench.results.table import save_frame
from bench.speed import growth, published, reporting, sampling, setup, small, training
from bench.speed.timing import REPEATS, as_text

FOLDER = Path("results/bench")


def measures(machine: Machine) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """What can be measured, by name."""
    experiment = load_experiment(DEFAULT_EXPERIMENT)
    dataset = open_data(experiment.data)
    assert isinstance(dataset, TokenizedShapes)
    return {
        "training": lambda: training.measure_training(experiment, dataset, machine),
        "precision": lambda: training.measure_precision(experiment, dataset),
        "overhead": lambda: small.measure_overhead(experiment, dataset),
        "compiled": lambda: small.measure_compiled(experiment, dataset),
        "sampling": lambda: sampling.measure_sampling(experiment, dataset),
        "cache": sampling.measure_cache,
        "modulation": sampling.measure_modulation,
        "decoding": sampling.measure_decoding,
        "published": published.measure_published,
        "set-up": setup.measure_commands,
        "evaluation": lambda: setup.measure_evaluation(dataset),
        "report": reporting.measure_report,
        "latents": reporting.measure_cache,
        "growth": lambda: growth.measure_growth(experiment, dataset),
    }


def main() -> None:
    """Measure, print, and write each measure's rows as it ends; the rows of measures that are not asked for stay."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help="only these measures")
    parts = parser.parse_args().parts
    matplotlib.use("Agg")
    machine = this_machine()
    torch.set_num_threads(machine.num_threads)
    known = measures(machine)
    for name in parts:
        if name not in known:
            parser.exit(2, f"{parser.prog}: no measure {name!r}; {nearest(name, list(known))}\n")
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{platform.machine()}-{machine.device.replace(' ', '-').lower()}.csv"
    where = {"device": machine.device, "num_threads": machine.num_threads, "torch": torch.__version__, "git_sha": git_sha()}
    frame = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["measure"])
    for name in parts or known:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        rows = pd.DataFrame([{"measure": name, **each} for each in known[name]()]).assign(**where)
        frame = pd.concat([each for each in (frame[frame["measure"] != name], rows) if len(each)])
        save_frame(frame, path)
    print(as_text(frame[frame["measure"].isin(parts or list(known))]))
    print(
        f"value: median of {REPEATS} interleaved rounds after one that warms up, low and high: quartiles; without them: one call"
    )
    growth.draw(frame, FOLDER)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
