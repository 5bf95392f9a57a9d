"""Which paradigms exist: the built-ins and those that other packages register.

A third party adds one by an entry point and nothing else:

    [project.entry-points."paradigm_bench.paradigms"]
    my-paradigm = "my_package:MyParadigm"

Names are listed without importing anything; a plugin that cannot be imported does not disturb the others.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from bench.errors import nearest

if TYPE_CHECKING:
    from bench.paradigm import Paradigm


GROUP = "paradigm_bench.paradigms"
BUILT_INS = {
    "diffusion": "paradigms.diffusion:Diffusion",
    "masked-token": "paradigms.masked_token:MaskedToken",
    "next-token": "paradigms.next_token:NextToken",
    "next-token-continuous": "paradigms.next_token:NextTokenContinuous",
    "mar": "paradigms.mar:MAR",
    "mar-discrete": "paradigms.mar:MARDiscrete",
    "pixel-diffusion": "paradigms.diffusion:PixelDiffusion",
    "mean-flow": "paradigms.mean_flow:MeanFlow",
    "next-cell": "paradigms.next_cell:NextCell",
    "normalizing-flow": "paradigms.normalizing_flow:NormalizingFlow",
    "next-token-energy": "paradigms.next_token:NextTokenEnergy",
    "uniform-diffusion": "paradigms.uniform_diffusion:UniformDiffusion",
    "block-diffusion": "paradigms.block_diffusion:BlockDiffusion",
    "next-scale": "paradigms.next_scale:NextScale",
}


def targets() -> dict[str, str]:
    """Every known name with its "module:Class".

    Raises:
        ValueError: when two packages claim one name; both origins are shown.
    """
    known = dict(BUILT_INS)
    for point in entry_points(group=GROUP):
        if point.name in known and known[point.name] != point.value:
            raise ValueError(
                f"paradigm {point.name!r} is registered twice: {known[point.name]} and {point.value}"
                f"{_origin(point)}; uninstall one of them or rename its entry point"
            )
        known[point.name] = point.value
    return known


def _origin(point: EntryPoint) -> str:
    return f" (from {point.dist.name} {point.dist.version})" if point.dist else ""


def check_name(name: str) -> None:
    """Refuse an unknown paradigm without importing any.

    Raises:
        ValueError: naming the nearest known one.
    """
    known = targets()
    if name not in known:
        raise ValueError(f"unknown paradigm {name!r}; {nearest(name, list(known))}")


def load(name: str) -> type[Paradigm]:
    """Import a paradigm's class.

    Raises:
        ValueError: for an unknown name, a plugin that fails on import, or a target that is no Paradigm.
    """
    from bench.paradigm import Paradigm

    check_name(name)
    target = targets()[name]
    module_name, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"paradigm {name!r} ({target}) cannot be imported: {reason}; fix or uninstall it") from error
    if not (isinstance(found, type) and issubclass(found, Paradigm)):
        raise ValueError(f"paradigm {name!r} ({target}) is not a subclass of bench.paradigm.Paradigm")
    return found
