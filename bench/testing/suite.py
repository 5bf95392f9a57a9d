"""All checks in their order, each with any exception as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

from bench.errors import first_line
from bench.paradigm import Paradigm
from bench.testing.cost_checks import check_backbone, check_harness, check_sampling_cost, check_training_cost
from bench.testing.learning import check_learning, check_memory
from bench.testing.loss_checks import (
    check_buffers,
    check_declaration,
    check_division,
    check_likelihood,
    check_modes,
    check_repetition,
    check_scalars,
    check_shape,
    check_values,
)
from bench.testing.sample_checks import check_parameters, check_samples, check_state

Check = Callable[..., list[str]]


def check_paradigm(cls: type[Paradigm], **options: object) -> list[str]:
    """Test a paradigm class against the contract: every check of `paradigm_checks`, until a stage of them finds something.

    Args:
        options: keyword arguments for the constructor.

    Returns:
        What is wrong, a sentence each; empty when it conforms.
    """
    problems: list[str] = []
    for stage in _STAGES:
        problems = [problem for check in stage.values() for problem in check(cls, **options)]
        if problems:
            break
    return problems


def paradigm_checks() -> Iterator[tuple[str, Check]]:
    """Name and function of every check, so that a test of a plugin can have an item for each.

    A check takes the class and its constructor's keyword arguments and returns what is wrong, a sentence each; an exception of
    the plugin is such a sentence.
    """
    for stage in _STAGES:
        yield from stage.items()


def _said(check: Check) -> Check:
    """The check with any exception as a sentence of one line."""

    @wraps(check)
    def run(cls: type[Paradigm], **options: object) -> list[str]:
        try:
            return check(cls, **options)
        except Exception as error:
            doing = (check.__doc__ or "").splitlines()[0].rstrip(".")
            return [f"it fails with {type(error).__name__}: {first_line(error)} (while this was checked: {doing})"]

    return run


_STAGES: tuple[dict[str, Check], ...] = tuple(
    {name: _said(check) for name, check in stage.items()}
    for stage in (
        {"declaration": check_declaration},
        {"loss-shape": check_shape},
        {
            "backbone": check_backbone,
            "loss-values": check_values,
            "loss-repetition": check_repetition,
            "loss-modes": check_modes,
            "loss-division": check_division,
            "loss-buffers": check_buffers,
            "loss-scalars": check_scalars,
            "likelihood": check_likelihood,
        },
        {
            "harness": check_harness,
            "training-cost": check_training_cost,
            "sampling-cost": check_sampling_cost,
            "samples": check_samples,
            "state": check_state,
            "parameters": check_parameters,
            "learning": check_learning,
            "memory": check_memory,
        },
    )
)
"""Checks by name; one stage needs what the stages before it found in order."""
