"""The search of a sampler's setting that begins where the rung below ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from bench.config.experiment import Setting

Row = dict[str, Any]


def neighbors(settings: Sequence[Setting], index: int) -> list[int]:
    """Settings of a grid that differ from one in one value alone, and in that by the least step up or down."""
    values = [_values(setting) for setting in settings]
    axes = [sorted({v[axis] for v in values}, key=_order) for axis in range(4)]
    mine, found = values[index], []
    for axis, tried in enumerate(axes):
        place = tried.index(mine[axis])
        for near in (place - 1, place + 1):
            if 0 <= near < len(tried):
                wanted = (*mine[:axis], tried[near], *mine[axis + 1 :])
                found += [other for other, v in enumerate(values) if v == wanted]
    return found


def climb(
    settings: Sequence[Setting],
    starts: Sequence[int],
    tries: int,
    measure: Callable[[int], Row],
    keys: Sequence[Callable[[Row], Any]],
) -> dict[int, Row]:
    """Rows of the settings that were tried, by their index: those to start from, then the neighbors of whichever is best by each
    key, until none of these is left or so many were tried.

    Args:
        starts: carried settings; empty begins in the middle of the grid.
        measure: makes a row.
        keys: what ranks rows, larger is better.
    """
    rows: dict[int, Row] = {}
    begin = list(dict.fromkeys(starts)) or [len(settings) // 2]
    while len(rows) < tries:
        best = [_best(rows, key) for key in keys] if rows else []
        near = [other for index in dict.fromkeys(best) for other in neighbors(settings, index)]
        wanted = next((index for index in (*begin, *near) if index not in rows), None)
        if wanted is None:
            break
        rows[wanted] = measure(wanted)
    return rows


def _best(rows: dict[int, Row], key: Callable[[Row], Any]) -> int:
    return max(rows, key=lambda index: key(rows[index]))


def _values(setting: Setting) -> tuple[Any, ...]:
    return setting.steps, setting.guidance, setting.temperature, json.dumps(setting.options, sort_keys=True)


def _order(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)
