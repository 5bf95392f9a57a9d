"""Which paradigms and tokenizers exist: the built-ins and those that other packages register.

A third party adds one by an entry point and nothing else:

    [project.entry-points."paradigm_bench.paradigms"]
    my-paradigm = "my_package:MyParadigm"

    [project.entry-points."paradigm_bench.tokenizers"]
    my-tokens = "my_package:MyAutoencoder"

Names are listed without importing anything; a plugin that cannot be imported does not disturb the others.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.errors import nearest

if TYPE_CHECKING:
    from bench.paradigm import Paradigm

Base = TypeVar("Base")
GROUP = "paradigm_bench.paradigms"
TOKENIZER_GROUP = "paradigm_bench.tokenizers"
SUITE = {"bench", "paradigms"}
FOREIGN = {"torch", "numpy", "lightning", "transformers", "diffusers"} | set(sys.stdlib_module_names)
"""Packages that a plugin may inherit from and whose source is not its own."""
CODE = (".py", ".so", ".pyd", ".cu", ".cpp")
BUILT_INS = {
    "diffusion": "paradigms.diffusion:Diffusion",
    "masked-token": "paradigms.masked_token:MaskedToken",
    "next-token": "paradigms.next_token:NextToken",
    "next-token-continuous": "paradigms.next_token:NextTokenContinuous",
    "mar": "paradigms.mar:MAR",
    "mar-discrete": "paradigms.mar:MARDiscrete",
    "pixel-diffusion": "paradigms.diffusion:PixelDiffusion",
    "aligned-diffusion": "paradigms.aligned_diffusion:AlignedDiffusion",
    "mean-flow": "paradigms.mean_flow:MeanFlow",
    "next-cell": "paradigms.next_cell:NextCell",
    "normalizing-flow": "paradigms.normalizing_flow:NormalizingFlow",
    "next-token-energy": "paradigms.next_token:NextTokenEnergy",
    "uniform-diffusion": "paradigms.uniform_diffusion:UniformDiffusion",
    "block-diffusion": "paradigms.block_diffusion:BlockDiffusion",
    "next-scale": "paradigms.next_scale:NextScale",
}


@cache
def installed(group: str) -> tuple[EntryPoint, ...]:
    """What the packages of this environment register, read once per process: 12 ms where 140 packages are installed, measured,
    and a plan asks 270 times."""
    return tuple(entry_points(group=group))


def registered(group: str, what: str, built_ins: Mapping[str, str]) -> dict[str, str]:
    """Every known name of a kind with its "module:Class"; what: the kind's name in an error.

    Raises:
        ValueError: when two packages claim one name; both origins are shown.
    """
    known = dict(built_ins)
    for point in installed(group):
        if point.name in known and known[point.name] != point.value:
            raise ValueError(
                f"{what} {point.name!r} is registered twice: {known[point.name]} and {point.value}"
                f"{_origin(point)}; uninstall one of them or rename its entry point"
            )
        known[point.name] = point.value
    return known


def targets() -> dict[str, str]:
    """Every known paradigm with its "module:Class".

    Raises:
        ValueError: when two packages claim one name; both origins are shown.
    """
    return registered(GROUP, "paradigm", BUILT_INS)


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
    return import_class("paradigm", name, targets()[name], Paradigm)  # type: ignore[type-abstract]


def import_class(what: str, name: str, target: str, base: type[Base]) -> type[Base]:
    """Import a "module:Class" that a package registers under a name.

    Raises:
        ValueError: for one that fails on import, or that is no subclass of the base.
    """
    module_name, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{what} {name!r} ({target}) cannot be imported: {reason}; fix or uninstall it") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{what} {name!r} ({target}) is not a subclass of {base.__module__}.{base.__name__}")
    return found


def distribution(name: str, group: str = GROUP) -> Distribution | None:
    """The installed package that registers a plugin."""
    return next((point.dist for point in installed(group) if point.name == name), None)


def source_identity(cls: type, package: Distribution | None) -> str:
    """Package, version and first 12 digits of the SHA-256 of a class's source (see `source_files`)."""
    digest = hashlib.sha256()
    for path, inside in source_files(cls):
        digest.update(f"{inside}\0".encode() + path.read_bytes() + b"\0")
    named = f"{package.name} {package.version}" if package else "unpackaged"
    return f"{named} {digest.hexdigest()[:12]}"


def source_files(cls: type) -> list[tuple[Path, str]]:
    """Every file of code of the packages that a class and its parents come from, with its path inside its package, sorted by
    these; what these import from elsewhere is not among them."""
    found: dict[str, Path] = {}
    for parent in cls.__mro__:
        top = parent.__module__.partition(".")[0]
        if top in SUITE | FOREIGN:
            continue
        package = sys.modules[top]
        folders = [Path(folder) for folder in getattr(package, "__path__", ())]  # several of a package without __init__.py
        for folder in folders:
            for inside in folder.rglob("*"):
                if inside.suffix in CODE:
                    found[f"{top}/{inside.relative_to(folder).as_posix()}"] = inside
        if not folders:
            assert package.__file__ is not None, f"{parent} has no source"
            found[Path(package.__file__).name] = Path(package.__file__)
    return sorted(((path, inside) for inside, path in found.items()), key=lambda each: each[1])
