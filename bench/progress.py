"""What a user sees while a stage runs: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

PLAIN_SECONDS = 15.0
LIVE_SECONDS = 0.25


def duration(seconds: float) -> str:
    """h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def share_bar(share: float, width: int = 20) -> str:
    """A share from 0 to 1 as a bar of so many characters, with the percentage."""
    share = min(max(share, 0.0), 1.0)
    full = round(share * width)
    return f"{'█' * full}{'░' * (width - full)} {share:4.0%}"


class Display:
    """Prints stages and their progress to standard error; results go to standard output."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self._line = ""
        self._shown = 0.0

    def say(self, text: str) -> None:
        """One permanent line."""
        self._clear()
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._line:
            print("\r" + " " * len(self._line) + "\r", end="", file=sys.stderr)
            self._line = ""

    def update(self, text: str, last: bool = False) -> None:
        """Replace the live line, or print a plain one every PLAIN_SECONDS."""
        now = time.monotonic()
        if self.quiet or (not last and now - self._shown < (LIVE_SECONDS if self.live else PLAIN_SECONDS)):
            return
        self._shown = now
        if not self.live:
            print(text, file=sys.stderr, flush=True)
            return
        text = text[: self.console.width - 1]
        print("\r" + text.ljust(len(self._line)), end="", file=sys.stderr, flush=True)
        self._line = text

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Progress of a counted stage: share, rate and ETA."""
        began = time.monotonic()
        self._shown = 0.0 if self.live else began

        def update(done: int) -> None:
            passed = max(time.monotonic() - began, 1e-6)
            left = (total - done) * passed / max(done, 1)
            self.update(f"{name}: {done / total:.0%} of {total} {unit}, {done / passed:,.0f} {unit}/s, ETA {duration(left)}")

        yield update
        self.say(f"{name}: {total} {unit} in {duration(time.monotonic() - began)}")

    @contextmanager
    def training(self, total_flops: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Progress of all workers together in FLOPs; finished runs get a line of their own."""
        began = time.monotonic()
        self._shown = 0.0
        state: dict[str, Any] = {"done": 0, "busy": {}}

        def track(report: dict[str, Any]) -> None:
            state["done"] += report["flops"]
            run = report["run"]
            if "note" in report:
                self.say(f"{run}: {report['note']}")
                return
            if "stage" in report:
                state["busy"][run] = report["stage"]
                if report["stage"].startswith(("done", "failed", "interrupted")):
                    state["busy"].pop(run, None)
                    self.say(f"[{duration(time.monotonic() - began)}] {run}: {report['stage']}")
            elif "loss" in report:
                state["busy"][run] = f"loss {report['loss']:.3f}"
            passed = max(time.monotonic() - began, 1e-6)
            share = state["done"] / total_flops
            left = duration(passed * (1 - share) / share) if share > 0.005 else "--"
            busy = "; ".join(f"{name.rsplit('-', 1)[0]} {what}" for name, what in state["busy"].items())
            self.update(
                f"training {share:.0%} of {total_flops:.2e} FLOPs, {state['done'] / passed:.2e} FLOP/s, ETA {left} | {busy}"
            )

        yield track
        self.say(f"trained and evaluated in {duration(time.monotonic() - began)}")


def format_bytes(number: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def format_number(value: float, digits: int = 3) -> str:
    """A number as figures, page and tables write it.

    Whole numbers below 100,000 in full, others to so many significant digits: plain from 0.001 to 99,999, with an exponent
    (2e11) elsewhere. Not finite is "none".
    """
    if not math.isfinite(value):
        return "none"
    if value == round(value) and abs(value) < 1e5:
        return str(round(value))
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    rounded = float(f"{mantissa}e{exponent}")
    if 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:.{digits + 2}f}".rstrip("0").rstrip(".")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if "." in mantissa else f"{mantissa}e{int(exponent)}"


def format_hours(hours: float) -> str:
    """Minutes, hours, days or years, whichever reads best."""
    for limit, unit, scale in ((1, "minutes", 60), (72, "hours", 1), (24 * 1000, "days", 1 / 24)):
        if hours < limit:
            return f"{hours * scale:.3g} {unit}"
    return f"{hours / 24 / 365.25:.3g} years"
