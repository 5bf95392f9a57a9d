"""What operators give on the meta device, remembered by what they are given.

Most operators' meta kernels are written in Python inside torch: a product with a bias takes 1 ms, a layer norm 2 ms, a sum .3 ms,
where allocating their results takes .02 ms. A training step repeats the same calls for every layer and every seed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

MOST_REMEMBERED = 50_000
"""Calls, after which all are forgotten: some 50 MB."""
Outputs = tuple[tuple[torch.Size, tuple[int, ...], torch.dtype] | None, ...]
_known: dict[Any, tuple[bool, Outputs]] = {}


class Remembered(TorchDispatchMode):
    """While active, operators run by `run`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operator."""
        return run(func, args, kwargs or {})


class _CannotSay(Exception):
    """An argument does not say by its description alone what an operator gives."""


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator gives; on the meta device by what it gave before for tensors of these shapes, strides and types.

    Operators that write into their arguments or return views of them are always run, and so is what has complex, sparse or
    quantized arguments or draws from a generator that it is given.
    """
    if not _gives_new_tensors(func):
        return func(*args, **kwargs)
    try:
        key = (func, _described(args), _described(tuple(kwargs.items())))
        known = _known.get(key)
    except (_CannotSay, TypeError):
        return func(*args, **kwargs)
    if known is None:
        out = func(*args, **kwargs)
        outputs = out if isinstance(out, tuple) else (out,)
        if all(each is None or _is_plain(each) for each in outputs):
            if len(_known) >= MOST_REMEMBERED:
                _known.clear()
            _known[key] = (
                isinstance(out, tuple),
                tuple(None if each is None else (each.shape, each.stride(), each.dtype) for each in outputs),
            )
        return out
    several, outputs = known
    made = tuple(
        None if each is None else torch.empty_strided(each[0], each[1], dtype=each[2], device="meta") for each in outputs
    )
    return made if several else made[0]


@cache
def _gives_new_tensors(func: Any) -> bool:
    """Whether an operator neither writes into its arguments nor returns views of them."""
    schema = func._schema if isinstance(func, OpOverload) else None
    return schema is not None and not schema.is_mutable and not any(each.alias_info for each in schema.returns)


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_meta
        and value.layout is torch.strided
        and not value.dtype.is_complex
        and not value.is_quantized
    )


def _described(value: Any) -> Any:
    """A hashable description.

    Raises:
        _CannotSay: of a tensor that is not plain, and of generators.
    """
    if isinstance(value, Tensor):
        if not _is_plain(value):
            raise _CannotSay
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    if isinstance(value, torch.Generator):
        raise _CannotSay
    return type(value), value
