"""This machine: how many runs train at once on it, and how fast."""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass

import torch

from bench.build import build_paradigm, device_type
from bench.conditioning import Condition
from bench.config import Run
from bench.instrument import Instrument
from bench.paradigm import TokenSpace

CALIBRATION_FLOPS = 1.5e9
"""Size of a calibration step; a full batch of a large model would take minutes on a CPU."""
CALIBRATION_STEPS = 3
SLOW_SECONDS = 3.0
"""A pass this long needs no repetition to be told from its start-up."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How many runs train at once here, and with what. Nothing in here changes a result."""

    device: str
    num_workers: int
    num_threads: int
    devices: int = 1
    """GPUs (or, without any, processes) per run and node."""
    nodes: int = 1
    """Machines per run."""
    micro_batch: int | None = None
    """Most images at once on a device."""


def this_machine(devices: int = 1, nodes: int = 1, micro_batch: int | None = None, *, elsewhere: bool = False) -> Machine:
    """One run per `devices` GPUs; on CPU one single-threaded process per core (two spinning threads on a shared core collapse).

    Args:
        elsewhere: the runs may train on other machines, with more devices.

    Raises:
        ValueError: when a run asks for more devices than there are.
    """
    name, units, threads = "cpu", num_cores(), 1
    if torch.cuda.is_available():
        name, units = torch.cuda.get_device_name(), torch.cuda.device_count()
        threads = max(1, num_cores() // (2 * units))
    if min(devices, nodes, micro_batch or 1) < 1:
        raise ValueError(f"DEVICES={devices}, NODES={nodes} and MICRO_BATCH={micro_batch or ''} must be at least 1")
    if devices > units and not elsewhere:
        raise ValueError(f"DEVICES={devices}, but this machine has {units} ({name}); use 1 to {units}")
    return Machine(name, max(1, units // devices), threads, devices, nodes, micro_batch)


BYTES_PER_PARAMETER = 20
"""fp32 weights, gradients, AdamW's two moments and the average."""


def check_memory(num_params: int, memory: int | None) -> None:
    """Refuse a model that a device of so many bytes cannot hold (None: unknown).

    Raises:
        ValueError: naming both.
    """
    needed = BYTES_PER_PARAMETER * num_params
    if memory is not None and needed > memory:
        raise ValueError(
            f"a model of {num_params:,} parameters needs {needed / 1e9:.3g} GB on each device beside activations, and this one "
            f"has {memory / 1e9:.3g} GB; use a smaller size (docs/cluster.md says why FSDP is not offered)"
        )


def device_memory() -> int | None:
    """Bytes of a GPU; None without one."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def calibrate(run: Run, space: TokenSpace, instrument: Instrument, flops_per_image: float) -> float:
    """Training FLOP/s of one worker here: the fastest of a few real forward and backward passes of the run's first blocks, with
    `flops_per_image` theirs."""
    device = device_type()
    batch = max(1, min(run.recipe.batch_size, math.ceil(CALIBRATION_FLOPS / flops_per_image)))
    with torch.device(device):
        paradigm = build_paradigm(run, space, instrument.conditions)
        words = instrument.conditions.example(batch)
        tokens = space.example(batch)
    seconds = []
    for _ in range(CALIBRATION_STEPS):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=run.recipe.precision == "bf16"):
            loss, _ = paradigm.loss(tokens, Condition.of(words))
        loss.mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > SLOW_SECONDS:
            break
    return flops_per_image * batch / min(seconds)
