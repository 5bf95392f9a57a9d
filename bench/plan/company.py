"""How much of its speed a process keeps while the other workers of a sweep run beside it.

A core that announces two threads is not two cores: on two hyperthreads two runs at once are 1.2 times as fast as one (measured,
docs/log.md), so that a plan which times one process alone promises too much. The share is measured once per machine, by small
training steps in processes of their own, and kept in the cache.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from bench.hub import once_per_machine
from bench.processor import announced

SECONDS = 1.0
"""Of each of the two timings."""
MOST_PROCESSES = 16
"""More cores than these are taken to behave alike; each process needs 0.4 GB."""
STEPS = """
import sys, time, torch
torch.set_num_threads(1)
layer = torch.nn.TransformerEncoderLayer(32, 1, 128, dropout=0.0, batch_first=True)
x = torch.randn(32, 24, 32)
def step():
    layer(x).square().mean().backward()
for _ in range(5):
    step()
print("ready", flush=True)
for line in sys.stdin:
    end, count = time.perf_counter() + float(line), 0
    while time.perf_counter() < end:
        step()
        count += 1
    print(count, flush=True)
"""
"""A child's work: how many steps of a small block it does in the seconds that each line asks for."""


def kept_speed(num_workers: int) -> float:
    """Share of its speed alone that each of so many single-threaded processes keeps, in (0, 1]; measured once per machine."""
    if num_workers == 1:
        return 1.0
    name, flags = announced()
    return once_per_machine("company", (name, sorted(flags), num_workers), lambda: measure(min(num_workers, MOST_PROCESSES)))


def measure(num_processes: int) -> float:
    """Steps of a process among so many over steps of one alone, at most 1."""
    (alone,), together = steps_together(STEPS, (1, num_processes), SECONDS)
    return min(1.0, sum(together) / len(together) / alone)


def steps_together(script: str, numbers: Sequence[int], seconds: float) -> list[list[float]]:
    """What each of the first n children did in so many seconds, for each n in turn.

    Args:
        script: a child's work in Python: it says "ready", then answers each line of seconds with how many steps it did in them.
        numbers: of children that work at once; as many as the largest are there all the while.

    Raises:
        RuntimeError: when a child ends early.
    """
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(max(numbers))
    ]
    try:
        for child in children:
            _answer(child)
        return [_work(children[:number], seconds) for number in numbers]
    finally:
        for child in children:
            child.kill()
            child.wait()


def _work(children: list[subprocess.Popen[str]], seconds: float) -> list[float]:
    """Let some children work at once; steps of each."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{seconds}\n")
        child.stdin.flush()
    return [float(_answer(child)) for child in children]


def _answer(child: subprocess.Popen[str]) -> str:
    """A child's next line.

    Raises:
        RuntimeError: when it has ended.
    """
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"a process that timed training steps ended with status {child.wait()}")
    return line
