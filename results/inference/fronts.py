"""What inference compute buys: every sampler setting and the best of n samples of the runs of a results folder.

    python results/inference/fronts.py results/inference [--most 1.2e8] [--workers 2]

Every run of the folder that is trained is sampled at every setting of SETTINGS on the validation captions; the strategies that no
other one of the method beats there are sampled on the test captions (bench/analysis/fronts.py). The folder's evaluation says how
many captions there are. Where n samples cost more than `--most` FLOPs no best of n is drawn. Rows go to fronts.csv in that folder
as they are made, and none is made twice; from them come gains.csv (what a factor of ten buys), leaders.csv (who is best at each
cost) and the figures, also when the weights are gone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.analysis.fronts import MEASURED, fronts, gains, leaders
from bench.config.experiment import Json, Method, Setting, grid
from bench.data.open import open_data
from bench.evaluate.candidates import counted_costs, strategy_rows
from bench.evaluate.evaluator import Evaluator
from bench.evaluate.sampler import Sampler
from bench.model import device_type
from bench.plan.machine import this_machine
from bench.report.front_figures import quality_against_inference
from bench.results.folder import Results
from bench.results.identity import read_identity
from bench.results.strategies import KEEPERS, NO_CHOICE, NUMBERS, affordable_numbers

GUIDANCE = (1.0, 1.5, 2.5)
TEMPERATURES = (1.0, 0.6)
STEPS = (1, 2, 4, 8, 16)
"""Of methods that reveal 16 tokens, which cannot take more."""
MOST_FLOPS = 1.2e8
"""Of the samples that one image is chosen among: sixteen of a next-token model at 48x4."""


def head(sampler: str, steps: int) -> dict[str, Json]:
    """Options of MAR's head for sampling."""
    return {"head_options": {"sampler": sampler, "steps": steps}}


SETTINGS: dict[str, tuple[Setting, ...]] = {
    "diffusion": (
        *grid(steps=(*STEPS, 32, 64), guidance=GUIDANCE),
        *grid(steps=(8, 16, 32), guidance=GUIDANCE[:2], temperature=(0.6,)),
        *grid(steps=(250,), guidance=GUIDANCE[:2]),
        *grid(steps=(1000,)),
    ),
    "next-token": grid(guidance=GUIDANCE, temperature=TEMPERATURES),
    "masked-token": grid(steps=STEPS, guidance=GUIDANCE, temperature=TEMPERATURES),
    "mar": (
        *grid(steps=STEPS, guidance=GUIDANCE, options=(head("probability-flow", 10),)),
        *grid(steps=(8,), guidance=GUIDANCE, temperature=(0.6,), options=(head("probability-flow", 10),)),
        *grid(steps=(8,), options=tuple(head("probability-flow", steps) for steps in (2, 4, 25, 50))),
        *grid(steps=(8,), options=tuple(head("ancestral", steps) for steps in (25, 1000))),
    ),
}
"""By paradigm; others are sampled at their method's own. The most expensive ones come without the whole range of guidance."""


def settings_of(method: Method) -> tuple[Setting, ...]:
    """The settings that a method is sampled at."""
    return SETTINGS.get(method.paradigm, method.settings)


@dataclass(frozen=True)
class Job:
    """One run at one setting on the captions of one split."""

    folder: Path
    run_id: str
    setting: int
    """Its place among the settings of the method."""
    split: str
    most: float
    """FLOPs of the samples that an image is chosen among, at most."""
    numbers: tuple[int, ...] = NUMBERS
    """How many samples, of those that are affordable."""


class Folder:
    """A results folder, opened in a process: its judge, and the run that was sampled last."""

    def __init__(self, folder: Path) -> None:
        self.results = Results(folder)
        self.identity = read_identity(self.results)
        self.dataset = open_data(self.identity.data)
        self.evaluator = Evaluator(self.dataset, self.identity.evaluation, self.results)
        self.sampler = functools.lru_cache(maxsize=1)(self._sampler)

    def _sampler(self, run_id: str) -> Sampler:
        run = self.identity.runs[run_id]
        return Sampler(self.dataset, run, self.identity.methods[run.method], self.results.run_folder(run_id).weights)

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The rows of a job, one per number of samples and keeper."""
        sampler, evaluation = self.sampler(job.run_id), self.identity.evaluation
        setting = settings_of(sampler.method)[job.setting]
        num = evaluation.num_validation if job.split == "validation" else evaluation.num_samples
        costs = counted_costs(self.evaluator, sampler, setting)
        numbers = affordable_numbers(costs["flops_per_sample"], job.most, job.numbers)
        rows = strategy_rows(self.evaluator, sampler, setting, costs, job.split, num, numbers)
        return [{**row, "setting": job.setting} for row in rows]


open_folder = functools.lru_cache(maxsize=1)(Folder)
"""Of this process."""


def work(job: Job) -> list[dict[str, Any]]:
    """Do a job in a worker."""
    if device_type() == "cpu":
        torch.set_num_threads(1)
    return open_folder(job.folder).rows(job)


def done(path: Path) -> pd.DataFrame:
    """The rows that are there; an empty table with the keys of a job where none is."""
    return pd.read_csv(path, low_memory=False) if path.exists() else pd.DataFrame(columns=["run_id", "setting", "split"])


def jobs(folder: Path, split: str, most: float, rows: pd.DataFrame) -> list[Job]:
    """What is missing on a split, the most expensive settings first; on test captions the settings of the fronts alone."""
    results = Results(folder)
    identity = read_identity(results)
    have = set(zip(rows["run_id"], rows["setting"], rows["split"], strict=True))
    wanted = chosen(rows) if split == "test" else {}
    found = []
    for run_id, run in identity.runs.items():
        if not results.run_folder(run_id).weights.exists():
            continue
        for place, setting in enumerate(settings_of(identity.methods[run.method])):
            most_drawn = (
                wanted.get((run.method, run.flops_budget, run.width, run.depth, place), 0) if split == "test" else NUMBERS[-1]
            )
            if most_drawn and (run_id, place, split) not in have:
                numbers = tuple(number for number in NUMBERS if number <= most_drawn)
                found.append(((setting.steps or 1) * run.width**2, Job(folder, run_id, place, split, most, numbers)))
    return [job for _, job in sorted(found, key=lambda each: -each[0])]


def chosen(rows: pd.DataFrame) -> dict[tuple[Any, ...], int]:
    """The most samples that are drawn of any setting on a front of the validation captions, in any metric and by any keeper; by
    method, budget, width, depth and the setting's place."""
    found: dict[tuple[Any, ...], int] = {}
    for name, keeper in itertools.product(MEASURED, (NO_CHOICE, *KEEPERS)):
        for front in fronts(rows, name, keeper):
            for point in front.points:
                size = point.strategy["width"], point.strategy["depth"]
                where = (front.method, front.budget, *size, point.validation["setting"].iloc[0])
                found[where] = max(found.get(where, 0), point.strategy["candidates"])
    return found


def measure(folder: Path, most: float, workers: int) -> pd.DataFrame:
    """Make the rows that are missing and return all of them."""
    path = folder / "fronts.csv"
    for split in ("validation", "test"):
        waiting = jobs(folder, split, most, done(path))
        print(f"{split} captions: {len(waiting)} settings to sample", flush=True)
        if not waiting:
            continue
        for number, rows in enumerate(results_of(waiting, workers), start=1):
            both = [done(path), pd.DataFrame(rows)]
            pd.concat([part for part in both if len(part)]).to_csv(path.with_suffix(".partial"), index=False, float_format="%.7g")
            path.with_suffix(".partial").replace(path)
            print(f"{number} of {len(waiting)}: {rows[0]['method']} {rows[0]['width']}x{rows[0]['depth']}", flush=True)
    return done(path)


def results_of(waiting: list[Job], workers: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of each job as it ends; in this process where there is one worker."""
    if workers == 1:
        yield from map(work, waiting)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work, job) for job in waiting]):
            yield future.result()


def report(folder: Path, table: pd.DataFrame) -> None:
    """Write gains.csv, leaders.csv and the figures, and print the first."""
    gained = gains(table)
    gained.to_csv(folder / "gains.csv", index=False, float_format="%.5g")
    leaders(table).to_csv(folder / "leaders.csv", index=False, float_format="%.5g")
    print(gained.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    figures = Results(folder).figures
    figures.mkdir(exist_ok=True)
    for budget, keeper in itertools.product(sorted(table["flops_budget"].unique()), KEEPERS):
        chart = quality_against_inference(table, budget, keeper)
        if not chart.missing:
            chart.draw().savefig(figures / f"{chart.name}.png", dpi=160)
            print(figures / f"{chart.name}.png")


def main() -> None:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="a results folder whose runs have weights")
    parser.add_argument("--most", type=float, default=MOST_FLOPS, help="FLOPs of the samples that one image is chosen among")
    parser.add_argument("--workers", type=int, default=1 if device_type() == "cuda" else this_machine().num_workers)
    options = parser.parse_args()
    table = measure(options.results, options.most, options.workers)
    report(options.results, table)


if __name__ == "__main__":
    main()
