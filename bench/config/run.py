"""One trained model: everything that decides its weights, and its name; and the budget as users type it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.config.experiment import FlopRule, Json, Recipe, Size


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained model: everything that decides its weights and nothing else."""

    method: str
    paradigm: str
    paradigm_version: int
    options: Mapping[str, Json]
    tokenizer: str
    tokenizer_hash: str
    data: str
    """Name and fingerprint of the training data."""
    width: int
    depth: int
    num_heads: int
    seed: int
    learning_rate: float
    recipe: Recipe
    flop_rule: FlopRule
    flops_budget: int
    plugin: str = ""
    """Package, version and source of a paradigm of another package; empty for built-ins, whose versions are paradigm_version."""

    @property
    def size(self) -> Size:
        """Its size as an experiment lists it."""
        return Size(width=self.width, depth=self.depth, num_heads=self.num_heads)

    @property
    def trunk_id(self) -> str:
        """Name of the constant-rate trunk that this run branches off: the same for all budgets."""
        return self._identifier({**self.content(), "flops_budget": None}, "trunk")

    @property
    def run_id(self) -> str:
        """Readable prefix and hash of the whole configuration. Never parse it."""
        return self._identifier(self.content(), f"{self.flops_budget:.1e}".replace("e+", "e"))

    @property
    def branch_flops(self) -> float:
        """Training FLOPs of the trunk where this run leaves it."""
        return (1 - self.recipe.cooldown) * self.flops_budget

    @property
    def cooldown_flops(self) -> float:
        """Training FLOPs of its own, from there to its budget."""
        return self.recipe.cooldown * self.flops_budget

    def content(self) -> dict[str, Any]:
        """All fields as JSON has them; a recipe without CompleteP and a built-in lack the fields that name these, as before."""
        content = asdict(self)
        if self.recipe.completep_base is None:
            del content["recipe"]["completep_base"]
        if not self.plugin:
            del content["plugin"]
        return content

    def _identifier(self, content: dict[str, Any], middle: str) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.method}-{self.size.name}-s{self.seed}-{middle}-{digest}"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Run:
        """Inverse of content and of dataclasses.asdict, also after a JSON round trip.

        Raises:
            KeyError, TypeError: when it is no run of this version.
        """
        recipe, base = content["recipe"], content["recipe"].get("completep_base")
        typed = {"betas": tuple(recipe["betas"]), "completep_base": Size(**base) if base else None}
        return cls(**{**content, "recipe": Recipe(**{**recipe, **typed})})


def parse_budget(text: str, name: str = "BUDGET") -> int:
    """Training FLOPs from text such as "1e20"; name: what an error calls it.

    Raises:
        ValueError: when it is not a finite number of at least 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 1:
        raise ValueError(f"{name} must be a number of training FLOPs such as 3e12 or 1e20, not {text!r}")
    return round(value)
