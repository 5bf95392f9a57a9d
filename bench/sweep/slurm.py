"""Sweeps on a SLURM cluster, through submitit: one task of a job array per trunk, before it the encoding, after it the report.

A task looks at the disk as a local worker does, so that SLURM may stop and requeue it anywhere. At the time limit SLURM sends
SIGUSR2, in training the checkpoint follows within a step, and the task requeues itself; a preempted one is requeued by SLURM and
goes on from its last checkpoint. The results folder must be on a file system that all nodes share.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import submitit

from bench.data.base import TokenizedData
from bench.data.open import open_data
from bench.files import write_text
from bench.plan.machine import this_machine
from bench.plan.plan import Plan
from bench.progress import Display
from bench.results.folder import Results
from bench.sweep.jobs import TrunkJob, training_flops
from bench.sweep.latents import encode_latents, missing_latents
from bench.sweep.reports import DirectReports
from bench.sweep.status import queue, submitted
from bench.sweep.sweep import begin, finish

MOST_REQUEUES = 1000
"""After its time limit; a long run passes many."""
FIRST_PORT, NUM_PORTS = 20_000, 20_000
"""Where the processes of a job on several devices meet: its number decides."""
ENDED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Resumable(ABC):
    """What submitit runs again as it was, after a requeue."""

    @abstractmethod
    def __call__(self) -> object:
        """Do the work, or what is left of it."""

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same call."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class Encoding(Resumable):
    """Fills the latent caches, which goes on at the first missing shard."""

    plan: Plan
    results: Results

    def __call__(self) -> None:
        """Encode."""
        encode_latents(self.plan, self.results, open_data(self.plan.experiment.data), Display())


@dataclass(frozen=True)
class Training(Resumable):
    """Trains and evaluates a trunk's runs, in one process per device."""

    job: TrunkJob

    def __call__(self) -> str:
        """Do the job, or take part in it; exits where a signal asked for it."""
        from bench.sweep.trunk import TrunkWorker  # imported late: who submits needs neither Lightning nor judges
        from bench.train.distributed import ProcessGroup
        from bench.train.loop import follow

        place = submitit.JobEnvironment()
        host = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or place.hostnames[0]
        address = f"{host}:{FIRST_PORT + int(place.raw_job_id) % NUM_PORTS}"
        asked = self.job.machine
        machine = this_machine(asked.devices, asked.nodes, asked.micro_batch)
        group = ProcessGroup.join(place.global_rank, place.num_tasks, machine.devices, address)
        if not group.first:
            follow(group)
            return "followed"
        job, worker = replace(self.job, machine=machine), TrunkWorker(group)
        with Display().training(training_flops([job])) as tracker:
            result = worker.run_job(job, DirectReports(tracker))
        if result == "failed" and group.size > 1:
            os._exit(1)  # the others wait in the middle of a step; they notice
        group.leave()
        if worker.stopped_by == signal.SIGUSR2:
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's handler requeues
        if worker.stopped_by is not None:
            sys.exit(ENDED)  # preempted, and requeued by SLURM, or canceled
        return result


@dataclass(frozen=True)
class Finishing(Resumable):
    """Derives table, figures and report when the array has ended, however it did."""

    plan: Plan
    results: Results

    def __call__(self) -> None:
        """Write them."""
        finish(self.plan, self.results, Display())


def parse_parameters(text: str) -> dict[str, Any]:
    """submitit's SLURM parameters from "time=240 partition=gpu array_parallelism=16".

    Raises:
        ValueError: for text of another form, or without a time limit.
    """
    parameters: dict[str, Any] = {}
    for part in text.replace(",", " ").split():
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"SLURM parameters are name=value pairs, not {part!r}; for example SLURM='time=240 partition=gpu'")
        parameters[name] = int(value) if value.isdigit() else value
    if not isinstance(parameters.get("time"), int):
        raise ValueError("LAUNCHER=slurm needs a time limit per job in minutes; for example SLURM='time=240 partition=gpu'")
    return parameters


def check_slurm() -> None:
    """Refuse where jobs cannot be submitted.

    Raises:
        ValueError: naming what is missing.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ValueError("LAUNCHER=slurm, but sbatch and srun are not on this machine; use a login node, or LAUNCHER=local")


def submit_sweep(plan: Plan, results: Results, dataset: TokenizedData, parameters: dict[str, Any], display: Display) -> None:
    """Submit what the plan misses and the queue does not hold.

    Raises:
        ValueError: when SLURM refuses the parameters.
    """
    missing = begin(plan, results, dataset, display)
    if not missing:
        finish(plan, results, display)
        return
    known = submitted(results)
    queued = queue(known.values())
    jobs = [job for job in missing if known.get(job.trunk_id) not in queued]
    if not jobs:
        display.say(f"nothing to submit: what is missing is in the queue; `paradigm-bench status {results.root}` shows it")
        return
    machine = plan.machine
    common = {"cpus_per_task": max(2, machine.num_threads), **parameters, "additional_parameters": {"requeue": True}}

    def executor(**own: Any) -> submitit.SlurmExecutor:
        made = submitit.SlurmExecutor(results.slurm, max_num_timeout=MOST_REQUEUES)
        made.update_parameters(**{**common, **own})
        return made

    after = {}
    try:
        if missing_latents(plan, results, dataset):
            known["encoding"] = executor(job_name="encode").submit(Encoding(plan, results)).job_id
            after = {"dependency": f"afterok:{known['encoding']}"}
        array = executor(job_name="train", nodes=machine.nodes, ntasks_per_node=machine.devices, **after)
        with array.batch():
            sent = [array.submit(Training(job)) for job in jobs]
        known |= {job.trunk_id: task.job_id for job, task in zip(jobs, sent, strict=True)}
        last = {"dependency": f"afterany:{sent[0].job_id.split('_')[0]}"}
        known["report"] = executor(job_name="report", **last).submit(Finishing(plan, results)).job_id
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
        raise ValueError(f"SLURM refuses the jobs: {error}") from error
    finally:
        write_text(results.slurm_jobs, json.dumps(known, indent=1))
    display.say(
        f"submitted {len(jobs)} trunks with {sum(len(job.runs) for job in jobs)} runs as job {sent[0].job_id.split('_')[0]}, "
        f"{parameters['time']} minutes each before a requeue; logs in {results.slurm}; "
        f"`paradigm-bench status {results.root}` shows them"
    )
