"""What the rules say of a submission, before anything is replayed. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.submission.checks import CHECKS
from bench.submission.reference import Reference, open_because, outside_band
from bench.submission.rules import Rules
from bench.submission.submission import Submission


@dataclass(frozen=True)
class Verdict:
    """Of one submission."""

    refused: tuple[str, ...]
    """Why it does not count, a line each; empty when it does."""
    open_because: tuple[str, ...]
    """Why it is in the open division; empty for the closed one."""
    num_in_band: int
    """Runs that were compared with a reference band."""

    @property
    def division(self) -> Literal["closed", "open"]:
        """Closed: a paradigm may differ from the reference and nothing else."""
        return "open" if self.open_because else "closed"


def judge(submission: Submission, reference: Reference | None, rules: Rules) -> Verdict:
    """Apply every rule that needs no training."""
    refused = [line for check in CHECKS for line in check(submission, rules)]
    if reference is None:
        return Verdict(tuple(refused), ("there is no reference to compare with",), 0)
    lines, known = outside_band(submission.identity, submission.rebuilt, reference, rules)
    return Verdict(tuple(refused + lines), tuple(open_because(submission, reference, rules)), len(known))
