"""Whether the suite's own functions are those of its source files, or were replaced by a plugin."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType

WATCHED = ("bench.", "torch.utils.flop_counter")
"""Modules that count, train and judge."""


def replaced(package: str) -> list[str]:
    """Names in the suite's modules that hold what a package defines, and functions whose code is not that of their source."""
    found = []
    for name, module in sorted(sys.modules.items()):
        loader = getattr(module, "__loader__", None)
        if f"{name}.".startswith(WATCHED) and isinstance(loader, SourceFileLoader):
            held = (key for key, value in vars(module).items() if _package(value) == package)
            found += [f"{name}.{key}" for key in held]
            known = _defined(name, loader)
            found += [f"{name}.{path}" for path, codes in known.items() if _is_other(module, path, codes)]
    return found


@cache
def _defined(name: str, loader: SourceFileLoader) -> dict[str, list[CodeType]]:
    """Codes of the functions that a module's source defines, by path; read once per process."""
    code = loader.get_code(name)
    assert code is not None
    known: dict[str, list[CodeType]] = {}
    for path, function in _functions(code):
        known.setdefault(path, []).append(function)
    return known


def _package(value: object) -> str:
    """The package that defines a class or a function; empty for other values."""
    return value.__module__.partition(".")[0] if isinstance(value, type | FunctionType) and value.__module__ else ""


def _functions(code: CodeType, prefix: str = "") -> Iterator[tuple[str, CodeType]]:
    """Path and code of every function of a module, and of its classes."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and inner.co_name.isidentifier():
            if inner.co_flags & inspect.CO_OPTIMIZED:
                yield prefix + inner.co_name, inner
            else:  # the body of a class
                yield from _functions(inner, f"{prefix}{inner.co_name}.")


def _is_other(module: ModuleType, path: str, known: list[CodeType]) -> bool:
    """Whether a module's function has another code than those that its source has under the name."""
    value: object = module
    for name in path.split("."):
        try:
            value = inspect.getattr_static(value, name)
        except AttributeError:
            return False  # defined for type checkers only, or replaced by a later definition
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "func", value)  # a cached property
    value = getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return getattr(value, "__code__", None) not in known
