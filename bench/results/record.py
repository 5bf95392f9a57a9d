"""A run's record, run.json: how far it is, why it failed, what its training was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Status = Literal["missing", "training", "interrupted", "trained", "evaluating", "done", "failed"]
"""In the order of a run's life; a run without a record is missing."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What run.json says beside the run's configuration."""

    status: Status = "missing"
    error: str | None = None
    """Of a failed run, in one line."""
    training: dict[str, Any] = field(default_factory=dict)
    """Columns of the table that training decides."""

    @property
    def is_trained(self) -> bool:
        """Whether its weights are final."""
        return self.status in ("trained", "evaluating", "done")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Record:
        """What a run.json holds.

        Raises:
            ValueError: for a status that no run has, or a training that is no object.
        """
        status, error, training = content.get("status", "missing"), content.get("error"), content.get("training") or {}
        if status not in get_args(Status):
            raise ValueError(f"status {status!r} is none of {', '.join(get_args(Status))}")
        if not isinstance(training, dict) or not isinstance(error, str | None):
            raise ValueError("error must be a text and training an object")
        return cls(status=status, error=error, training=training)
