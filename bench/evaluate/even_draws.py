"""Times and masks that are spread evenly, so that a loss is known well from few images.

Letters: B images of a batch.

A loss draws one time, or one share of hidden tokens, per image or per batch, and differs more between these than between images.
Independent draws would need thousands of images for a mean that is good to a percent; evenly spaced ones with a random offset
have the same mean (the low-discrepancy sampler of Kingma et al. 2021, appendix I.1) and need hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.randomness import step_seed

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, are evenly spaced however many there are."""
DRAWN = {torch.rand, torch.randn, torch.randint}


class EvenDraws(TorchFunctionMode):
    """While active, `torch.rand`, `randn` and `randint` of one number for the batch, per image or per row of images give numbers
    of the same distribution that are evenly spaced over the batches (one number) or within each of them; other draws stay."""

    def __init__(self, num_images: int, index: int, seed: int) -> None:
        """num_images: of the batch, B; index: of the batch; seed: of all batches."""
        super().__init__()
        self.num_images, self.index = num_images, index
        self.offsets = torch.Generator().manual_seed(seed)
        self.orders = torch.Generator().manual_seed(step_seed(seed, index, "order"))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw evenly what has one number per image; call anything else as it is."""
        kwargs = kwargs or {}
        if func not in DRAWN:
            return func(*args, **kwargs)
        limits, shape = _limits_and_shape(func, args, kwargs)
        rows = math.prod(shape)
        if rows != 1 and (rows != shape[0] or rows % self.num_images):
            return func(*args, **kwargs)
        uniform = self._uniform(rows)
        if func is torch.randn:
            uniform = torch.special.ndtri(uniform)
        if func is torch.randint:
            low, high = (0, *limits)[-2:]
            uniform = (low + uniform * (high - low)).floor().clamp(max=high - 1)
        kind = kwargs.get("dtype") or (torch.int64 if func is torch.randint else torch.get_default_dtype())
        return uniform.view(shape).to(device=kwargs.get("device") or torch.get_default_device(), dtype=kind)

    def _uniform(self, rows: int) -> Tensor:
        """(rows,) float64 numbers inside 0..1, in a random order: one in each of `rows` equal intervals, all at one place."""
        offset = torch.rand((), generator=self.offsets, dtype=torch.float64)
        place = (offset + self.index * GOLDEN) % 1
        order = torch.randperm(rows, generator=self.orders)
        return ((order + place) / rows).clamp(1e-12, 1 - 2**-24)  # in float32 too it stays below 1


def _limits_and_shape(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The limits of randint, and the shape of a draw."""
    if func is torch.randint:
        limits = [kwargs[name] for name in ("low", "high") if name in kwargs]
        limits += [number for number in args if isinstance(number, int)]
        given = kwargs.get("size", next((entry for entry in args if not isinstance(entry, int)), ()))
        return tuple(limits), tuple(given)
    given = kwargs.get("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
    return (), tuple(given)
