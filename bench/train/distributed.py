"""The processes that train one run together: one per device, on one or several nodes.

The first process (rank 0) does the whole job: it looks at the disk, writes checkpoints, evaluates. The others take part in the
training alone: each waits for a segment, trains it, and waits for the next. All of them pass through the same steps, so that they
agree on every decision by construction, but for signals and the clock, which `agree` settles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

T = TypeVar("T")
JOIN_SECONDS = 600.0
"""How long a process waits for the others, as long as a first compilation may take."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among those of its run; by default it is alone."""

    rank: int = 0
    size: int = 1
    devices: int = 1
    """Processes per node."""

    @classmethod
    def join(cls, rank: int, size: int, devices: int, address: str) -> ProcessGroup:
        """Meet the other processes at address, "host:port" of the first; collectives of CPU tensors go through gloo."""
        if size > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            torch.distributed.init_process_group(
                backend, init_method=f"tcp://{address}", rank=rank, world_size=size, timeout=timedelta(seconds=JOIN_SECONDS)
            )
        return cls(rank, size, devices)

    @property
    def first(self) -> bool:
        """Whether this process does the job, and the others follow."""
        return self.rank == 0

    @property
    def local_rank(self) -> int:
        """This process on its node."""
        return self.rank % self.devices

    @property
    def nodes(self) -> int:
        """Machines."""
        return self.size // self.devices

    def share(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, value: int) -> int:
        """The largest value of any process, without waiting for a GPU."""
        if self.size == 1:
            return value
        box = torch.tensor(value)
        torch.distributed.all_reduce(box, op=torch.distributed.ReduceOp.MAX)
        return int(box)

    def mean(self, value: float) -> float:
        """The mean over processes."""
        if self.size == 1:
            return value
        box = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(box)
        return float(box) / self.size

    def leave(self) -> None:
        """Let the followers end, and close the connections."""
        if self.size > 1 and torch.distributed.is_initialized():
            if self.first:
                with contextlib.suppress(RuntimeError):  # of followers that died
                    self.share(None)
            torch.distributed.destroy_process_group()

    def follow(self, train: Callable[[Any], None]) -> None:
        """Train what the first process shares, until it shares None; then leave."""
        while (segment := self.share(None)) is not None:
            train(segment)
        self.leave()


ALONE = ProcessGroup()


class GroupEnvironment(ClusterEnvironment):
    """Tells Lightning of the group, so that it neither starts processes nor takes over SLURM's signals."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts no process."""
        return True

    @property
    def main_address(self) -> str:
        """Where processes would meet; unused, since `ProcessGroup.join` has connected them."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Its port, unused likewise."""
        return 0

    @staticmethod
    def detect() -> bool:
        """False: Lightning never chooses this environment by itself."""
        return False

    def world_size(self) -> int:
        """Processes of the run."""
        return self.group.size

    def set_world_size(self, size: int) -> None:
        """Ignored: the group fixes the size."""

    def global_rank(self) -> int:
        """This process."""
        return self.group.rank

    def set_global_rank(self, rank: int) -> None:
        """Ignored: the group fixes the rank."""

    def local_rank(self) -> int:
        """This process on its node."""
        return self.group.local_rank

    def node_rank(self) -> int:
        """This node."""
        return self.group.rank // self.group.devices
