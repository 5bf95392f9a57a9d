"""Train and evaluate the missing runs of a trunk, looking at the disk before every step."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Literal

import torch

from bench.config.data import ImageData
from bench.config.experiment import Evaluation
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.data.open import open_data
from bench.errors import first_line
from bench.evaluate.evaluator import Evaluator
from bench.files import write_text
from bench.processor import keep_memory
from bench.results.folder import Results
from bench.sweep.branch import RunTraining
from bench.sweep.jobs import TrunkJob
from bench.sweep.locks import file_lock
from bench.sweep.reports import Reports, RunReporter
from bench.train.checkpoint_callback import InterruptedTrainingError
from bench.train.distributed import ALONE, ProcessGroup

Result = Literal["done", "failed", "interrupted", "busy"]
"""How a job ended; "busy" when another process works on the trunk."""


class TrunkWorker:
    """Does one job after another in this process, the first of its group; the data set and its reference images are opened
    once."""

    def __init__(self, group: ProcessGroup = ALONE) -> None:
        self.group = group
        self.stopped_by: int | None = None
        """The signal that asked this worker to stop: it begins no further job."""
        self._opened: tuple[str | ImageData, TokenizedData] | None = None
        self._evaluators: dict[tuple[Path, Evaluation], Evaluator] = {}

    def run_job(self, job: TrunkJob, reports: Reports, *, wait: bool = True) -> Result:
        """Train and evaluate the missing runs of a trunk; with `wait` after another process that works on it."""
        if self.stopped_by is not None:
            return "interrupted"
        results = Results(job.root)
        with file_lock(results.trunk_folder(job.trunk_id).lock, wait=wait) as mine:
            return self._run_owned(job, results, reports) if mine else "busy"

    def _run_owned(self, job: TrunkJob, results: Results, reports: Reports) -> Result:
        torch.set_num_threads(job.machine.num_threads)
        keep_memory()
        dataset = self._dataset(job)
        for index, run in enumerate(job.runs):
            reporter, folder = RunReporter(run, reports), results.run_folder(run.run_id)
            if folder.record.status == "done":  # by another sweep on this folder
                reporter.stage("done")
                continue
            try:
                self._train_and_evaluate(job, run, results, dataset, reporter)
            except InterruptedTrainingError as error:
                folder.save_record(run, status="interrupted", error=None)
                reporter.stage(f"interrupted: {error}")
                self.stopped_by = error.number
                return "interrupted"
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                for failed in job.runs[index:]:
                    results.run_folder(failed.run_id).save_record(failed, status="failed", error=reason)
                write_text(folder.error, traceback.format_exc())
                reporter.stage(f"failed: {reason}")
                return "failed"
        return "done"

    def _train_and_evaluate(
        self, job: TrunkJob, run: Run, results: Results, dataset: TokenizedData, reporter: RunReporter
    ) -> None:
        """Do what the run's record says is missing."""
        folder = results.run_folder(run.run_id)
        if not folder.record.is_trained:
            folder.save_record(run, status="training", error=None)
            reporter.stage("training")
            training = RunTraining(
                run=run, results=results, dataset=dataset, machine=job.machine, group=self.group, reporter=reporter
            )
            folder.save_record(run, status="trained", training=training.train())
        folder.save_record(run, status="evaluating")
        reporter.stage("evaluating")
        self._evaluator(job, dataset, results).evaluate(run, job.method, reporter.stage)
        folder.save_record(run, status="done", error=None)
        reporter.stage("done")

    def _dataset(self, job: TrunkJob) -> TokenizedData:
        if self._opened is None or self._opened[0] != job.data:
            self._opened = job.data, open_data(job.data)
            self._evaluators.clear()
        return self._opened[1]

    def _evaluator(self, job: TrunkJob, dataset: TokenizedData, results: Results) -> Evaluator:
        key = job.root, job.evaluation
        if key not in self._evaluators:
            self._evaluators[key] = Evaluator(dataset, job.evaluation, results)
        return self._evaluators[key]
