"""This machine: how many runs train at once on it."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import torch


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
    workers_per_device: int = 1
    """Runs that share a GPU."""


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


SHARING_WIDTH = 256
"""Models up to this width leave a large GPU idle between their small kernels (not measured)."""
MOST_SHARING = 8
CONTEXT_BYTES = 2 * 10**9
"""Of a process with CUDA, its libraries and compiled code; an estimate."""
ACTIVATION_BYTES = 34
"""Per position, channel and block in bf16, with fused attention (Korthikanti et al. 2022, section 4.1)."""


def worker_bytes(num_params: int, width: int, batch_size: int, flops_per_image: float) -> float:
    """Device memory of one run, estimated: a block's forward costs about 24 FLOPs per position and squared channel."""
    positions = batch_size * flops_per_image / 3 / (24 * width**2)
    return CONTEXT_BYTES + BYTES_PER_PARAMETER * num_params + ACTIVATION_BYTES * positions * width


def share_devices(machine: Machine, widest: int, largest_run: float, memory: int | None) -> Machine:
    """The machine with several runs on each GPU where all models are small and that many fit its memory; else as it is.

    Args:
        widest: width of the widest model.
        largest_run: bytes of the largest run.
        memory: of a GPU; None without one.
    """
    if memory is None or widest > SHARING_WIDTH or machine.devices * machine.nodes > 1:
        return machine
    sharing = max(1, min(MOST_SHARING, int(memory / largest_run)))
    threads = max(1, machine.num_threads // sharing)
    return replace(machine, num_workers=machine.num_workers * sharing, num_threads=threads, workers_per_device=sharing)


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


def git_sha(folder: Path = Path(__file__).parent) -> str:
    """Commit of the code in a folder, with "+" when the working tree differs; empty outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    sha = git("rev-parse", "--short=12", "HEAD")
    return sha + ("+" if sha and git("status", "--porcelain", "--untracked-files=no") else "")
