"""`make bench`: measure everything, print one table, write it to results/bench/ with the figures of growth."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
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


def measure(parts: list[str], machine: Machine) -> Iterator[dict[str, Any]]:
    """Rows of the named measures, all when none is named.

    Raises:
        ValueError: for an unknown name.
    """
    experiment = load_experiment(DEFAULT_EXPERIMENT)
    dataset = open_data(experiment.data)
    assert isinstance(dataset, TokenizedShapes)
    measures = {
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
    for name in parts or list(measures):
        if name not in measures:
            raise ValueError(f"no measure {name!r}; {nearest(name, list(measures))}")
        print(f"measuring {name}", file=sys.stderr, flush=True)
        yield from ({"measure": name, **each} for each in measures[name]())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help="only these measures; the rows of the others stay")
    parts = parser.parse_args().parts
    matplotlib.use("Agg")
    machine = this_machine()
    torch.set_num_threads(machine.num_threads)
    try:
        frame = pd.DataFrame(list(measure(parts, machine)))
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    frame = frame.assign(device=machine.device, num_threads=machine.num_threads, torch=torch.__version__, git_sha=git_sha())
    print(as_text(frame))
    print(
        f"value: median of {REPEATS} interleaved rounds after one that warms up, low and high: quartiles; without them: one call"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{platform.machine()}-{machine.device.replace(' ', '-').lower()}.csv"
    if parts and path.exists():
        before = pd.read_csv(path)
        frame = pd.concat([before[~before["measure"].isin(parts)], frame])
    save_frame(frame, path)
    growth.draw(frame, FOLDER)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
