"""Whether the suite's own functions and the data of its FLOP rule are those of its source, or were changed by a plugin."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType

import torch
from torch import Tensor, nn

from bench.flops import step

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


RULE = ("FREE", "INDEXING", "DEAR_KERNELS", "DEAR_PRIMITIVES", "VALUES_PER_FLOP")
"""What decides a bill beside functions and formulas."""


class _Known(nn.Module):
    """A few products, whose cost is known in closed form: a layer with a bias, one without, and a product of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.biased, self.plain = nn.Linear(4, 6), nn.Linear(4, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 4) to (B,)."""
        y = self.biased(x)
        return (y @ y.transpose(1, 2)).sum((1, 2)) + self.plain(x.flatten(0, 1)).sum()


def altered_rule() -> list[str]:
    """What of the FLOP rule's data is not that of its source, or bills a known step otherwise than in closed form."""
    loader = step.__loader__
    assert isinstance(loader, SourceFileLoader)
    code, fresh = loader.get_code(step.__name__), ModuleType("step_as_written")
    assert code is not None
    exec(code, fresh.__dict__)
    found = [name for name in RULE if getattr(step, name) != getattr(fresh, name)]
    batch = 2
    with torch.device("meta"):
        counted = step.count_step(_Known(), (torch.empty(batch, 3, 4),), width=1)
    layers, products = 2 * 3 * 4 * (6 + 5) * batch, 2 * 3 * 6 * 3 * batch  # the layers' input needs no gradient
    if counted != 2 * layers + 3 * products or step.FORMULAS.keys() != fresh.FORMULAS.keys():
        found.append("FORMULAS")
    return [f"{step.__name__}.{name}" for name in found]


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
