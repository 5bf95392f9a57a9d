"""The rules of a submission, read from rules.json: numbers and lists are data, so that changing one is a line of a diff."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.files import read_json


@dataclass(frozen=True, kw_only=True)
class Band:
    """How far a run may lie from the reference runs that differ from it in their seed alone."""

    min_seeds: int
    """Fewer reference runs make no band."""
    error_rate: float
    """Share of honest submissions that one of its metrics would refuse."""
    metrics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What rules.json says."""

    version: int
    budget_tolerance: float
    """Largest |spent / budget - 1|."""
    first_seed: int
    """Seeds count up from here without a gap, so that none can be chosen."""
    band: Band
    closed: tuple[str, ...]
    """What the closed division shares with the reference; names of `bench.submission.reference.CLOSED`."""
    ignored_by_evaluation: tuple[str, ...]
    """Fields of an Evaluation that change no quality number."""
    not_replayed: tuple[str, ...]
    """Columns that the clock or the machine decides."""


RULES = Path(__file__).with_name("rules.json")


def load_rules(path: Path = RULES) -> Rules:
    """The rules of a file, by default those of the suite.

    Raises:
        ValueError: when it is damaged.
    """
    content = read_json(path)
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    band = content["band"]
    return Rules(**{**content, **lists, "band": Band(**{**band, "metrics": tuple(band["metrics"])})})
