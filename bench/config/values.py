"""Whether an experiment's values have the types that its fields state, and numbers that can be. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MAY_BE_ZERO = set(
    "num_seeds warmup_steps cooldown weight_decay betas condition_dropout num_samples num_held_out seed temperature num_classes "
    "max_corrupt num_codes".split()
)
"""Numeric fields that need not be positive; guidance may be any number."""
SHARES = {"cooldown", "condition_dropout", "max_corrupt", "rungs"}
SIDES = {"width", "depth", "num_heads"}
LARGEST_SIDE, LARGEST_COUNT, LARGEST = 10**5, 10**12, 1e30
"""Of a network's sides, whose square must be the size of a tensor; of other whole numbers; of the rest."""


def check_values(owner: Any, name: str) -> None:
    """Compare each field of a dataclass, nested ones too, with its annotation. Only what is empty by default may be empty.

    Raises:
        ValueError: naming the field, what it may be and what it is.
    """
    hints = get_type_hints(type(owner))
    for field in fields(owner):
        if getattr(owner, field.name) == () == field.default:
            continue
        _check(getattr(owner, field.name), hints[field.name], f"{name}.{field.name}", field.name)


def _check(value: Any, hint: Any, name: str, field: str) -> None:
    if is_dataclass(value) and not isinstance(value, type) and _fits(value, hint):
        check_values(value, name)
    elif not _fits(value, hint):
        shown = "text" if hint is str else str(hint).replace("typing.", "").replace("<class '", "").replace("'>", "")
        raise ValueError(f"{name} must be {shown}, not {value!r}")
    elif get_origin(hint) in (Union, UnionType):
        _check(value, next(each for each in get_args(hint) if _fits(value, each)), name, field)
    elif get_origin(hint) is tuple:
        if not value and field != "levels":
            raise ValueError(f"{name} is empty; give it at least one value")
        for index, (part, inner) in enumerate(zip(value, _inner(hint, len(value)), strict=True)):
            _check(part, inner, f"{name}[{index}]", field)
    elif isinstance(value, int | float) and not isinstance(value, bool) and field != "guidance":
        largest = 1 if field in SHARES else LARGEST_SIDE if field in SIDES else LARGEST_COUNT if hint is int else LARGEST
        low = "at least 0" if field in MAY_BE_ZERO else "above 0"
        if value < 0 or (value == 0 and field not in MAY_BE_ZERO) or value > largest:
            raise ValueError(f"{name} must be {low} and at most {largest:g}, not {value!r}")


def _inner(hint: Any, length: int) -> tuple[Any, ...]:
    """Annotations of a tuple's parts."""
    inner = get_args(hint)
    return inner[:1] * length if inner[1:] == (...,) else inner


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation; a list may stand for a tuple, a whole number for a fraction."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        inner = _inner(hint, len(value))
        return len(inner) == len(value) and all(_fits(part, each) for part, each in zip(value, inner, strict=True))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
        return isinstance(value, Mapping)
    return value is None if hint in (None, NoneType) else isinstance(value, hint)
