"""What a run says while it trains, from its process to the launcher."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from bench.config.run import Run

REPORT_SECONDS = 0.5


class Reports(Protocol):
    """Where a job's reports go."""

    def put(self, report: dict[str, Any]) -> None:
        """Send one report."""


class RunReporter:
    """Sends a run's progress to the launcher."""

    def __init__(self, run: Run, reports: Reports) -> None:
        self.run, self.reports = run, reports
        self.sent_flops = 0
        self.sent_at = 0.0

    def stage(self, text: str) -> None:
        """Say what the run is doing now."""
        self.reports.put({"run": self.run.run_id, "stage": text, "flops": 0})

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        self.reports.put({"run": self.run.run_id, "note": text, "flops": 0})

    def progress(self, spent: int, start: int, loss: float) -> None:
        """Report FLOPs of a segment that began at `start`."""
        self.sent_flops = max(self.sent_flops, start)
        if time.monotonic() - self.sent_at > REPORT_SECONDS:
            self.reports.put({"run": self.run.run_id, "flops": spent - self.sent_flops, "loss": loss})
            self.sent_flops, self.sent_at = spent, time.monotonic()


@dataclass(frozen=True)
class PipeReports:
    """Reports to the launcher; nobody listens any more when it has died."""

    connection: Connection

    def put(self, report: dict[str, Any]) -> None:
        """Send one report."""
        with contextlib.suppress(OSError):
            self.connection.send(report)


@dataclass(frozen=True)
class DirectReports:
    """Reports of a job in this process."""

    receive: Callable[[dict[str, Any]], None]

    def put(self, report: dict[str, Any]) -> None:
        """Hand over one report."""
        self.receive(report)
