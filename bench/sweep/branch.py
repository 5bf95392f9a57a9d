"""Train one run: extend its trunk to where the run leaves it, then cool down to its budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.data.stream import training_images
from bench.files import read_lines, write_lines
from bench.plan.environment import processor_kind
from bench.plan.machine import Machine, git_sha
from bench.plan.plugin import plugin_commit
from bench.results.folder import STEP_KEYS, Results, checkpoints
from bench.sweep.reports import RunReporter
from bench.train import checkpoint_files
from bench.train.distributed import ProcessGroup
from bench.train.loop import Segment, Trained, train_segment


@dataclass(frozen=True, kw_only=True)
class RunTraining:
    """One run's training, in all processes of a group; this is its first."""

    run: Run
    results: Results
    dataset: TokenizedData
    machine: Machine
    group: ProcessGroup
    reporter: RunReporter

    @property
    def latents(self) -> Path:
        """What it trains on."""
        return self.dataset.latent_folder(self.results.cache, self.run.tokenizer, self.run.recipe.num_training_images)

    @property
    def branch(self) -> Path:
        """The checkpoint from which the run cools down."""
        return self.results.trunk_folder(self.run.trunk_id).branch(self.run.branch_flops)

    def train(self) -> dict[str, Any]:
        """Extend the trunk where it is too short, cool down, and say what run.json keeps of it.

        Raises:
            FloatingPointError: when the loss is not finite.
            InterruptedTrainingError: when a signal stopped it; the same call goes on.
        """
        if self.branch.exists() and not checkpoint_files.is_whole(self.branch):
            self.reporter.note(f"checkpoint {self.branch} is damaged; training to it again")
            checkpoint_files.remove(self.branch)
        if not self.branch.exists():
            self.extend_trunk()
        return self.training_record(self.cool_down())

    def extend_trunk(self) -> None:
        """Train the trunk at a constant rate from its last branch below the run's, or the seed, and write the run's branch."""
        trunk, run = self.results.trunk_folder(self.run.trunk_id), self.run
        trunk.path.mkdir(parents=True, exist_ok=True)
        start = checkpoint_files.newest_whole(trunk.path, self.reporter.note, below=run.branch_flops)
        trained = self._train_segment(
            start,
            budget=float("inf"),
            stop_at=run.branch_flops,
            running=trunk.running,
            checkpoint=self.branch,
            metrics=trunk.metrics,
        )
        before = trunk.seconds
        trunk.save_seconds({**before, self.branch.stem: trained.seconds + (before.get(start.stem, 0.0) if start else 0.0)})

    def cool_down(self) -> Trained:
        """Train from the branch to the run's budget, the rate falling to zero, and write its weights."""
        folder, run = self.results.run_folder(self.run.run_id), self.run
        if not checkpoints(folder.running):  # else the lines of the cooldown so far are there too
            lines = read_lines(self.results.trunk_folder(run.trunk_id).metrics, STEP_KEYS)
            write_lines(folder.metrics, [line for line in lines if line["flops_spent"] <= run.branch_flops * 1.01])
        return self._train_segment(
            self.branch,
            budget=float(run.flops_budget),
            stop_at=float(run.flops_budget),
            running=folder.running,
            weights=folder.weights,
            metrics=folder.metrics,
        )

    def training_record(self, done: Trained) -> dict[str, Any]:
        """The columns of the table that training decides."""
        images = done.steps * self.run.recipe.batch_size
        trunk_seconds = self.results.trunk_folder(self.run.trunk_id).seconds.get(self.branch.stem, 0.0)
        return {
            "flops_spent": done.flops_spent,
            "flops_spent_causal": done.flops_spent_causal,
            "flops_per_image": round(done.flops_spent / images),
            "flops_per_image_causal": round(done.flops_spent_causal / images),
            "steps": done.steps,
            "images_seen": images,
            "epochs": round(images / len(training_images(self.latents)), 3),
            "loss": done.loss,
            "train_seconds": round(trunk_seconds + done.seconds, 2),
            **processor_kind(),
            "device": self.machine.device,
            "num_devices": self.machine.devices * self.machine.nodes,
            "num_threads": self.machine.num_threads,
            "git_sha": git_sha(),
            "plugin_commit": plugin_commit(self.run.paradigm),
        }

    def _train_segment(self, start: Path | None, **arguments: Any) -> Trained:
        """Train a segment in all processes of the group, and report its progress."""
        start_flops = int(start.stem) if start else 0
        segment = Segment(
            run=self.run,
            latents=self.latents,
            space=self.dataset.space(self.run.tokenizer),
            conditions=self.dataset.conditions,
            start=start,
            micro_batch=self.machine.micro_batch,
            **arguments,
        )
        return train_segment(
            self.group.share(segment),
            lambda progress: self.reporter.progress(progress.flops_spent, start_flops, progress.loss),
            self.reporter.note,
            self.group,
        )
