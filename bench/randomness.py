"""One step's batch, divided among devices and micro-batches without changing what is trained; and every draw as a function of
(seed, step).

Letters: B images of the global batch, b images of a part.

A loss draws its noise from torch's global generator, and a part of a batch must draw what its images would get in the whole
batch. `PartRandomness` sees to that: a draw whose leading axis is a multiple of b is made for the whole batch and cut. A
paradigm therefore draws noise of images with the image as the leading axis (or image-major rows), and what the batch shares with
another leading size, as a scalar; `check_paradigm` tests it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LEAST_ROWS = 2
"""Images of a part; with one, every draw would look like one of the images."""


def micro_batches(batch: int, num_processes: int, largest: int | None) -> int:
    """Into how many micro-batches a process divides its share of a step, each of at most `largest` images.

    Raises:
        ValueError: when the batch cannot be divided equally.
    """
    if batch % num_processes or batch // num_processes < LEAST_ROWS:
        allowed = [n for n in range(1, batch // LEAST_ROWS + 1) if batch % n == 0]
        raise ValueError(
            f"a batch of {batch} images cannot be divided among {num_processes} devices; DEVICES times NODES may be "
            f"{', '.join(map(str, allowed))}"
        )
    share = batch // num_processes
    if largest is None or share <= largest:
        return 1
    for count in range(2, share // LEAST_ROWS + 1):
        if share % count == 0 and share // count <= largest:
            return count
    raise ValueError(f"MICRO_BATCH={largest} is too small for {share} images per device; use {LEAST_ROWS} or more")


@dataclass(frozen=True, slots=True)
class Part:
    """Part `index` of `count` equal parts of a batch."""

    index: int = 0
    count: int = 1

    def rows(self, batch: int) -> slice:
        """Its images among B."""
        size = batch // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE = Part()

BY_LIKE = {torch.rand_like, torch.randn_like, torch.randint_like}
BY_ROWS = {torch.bernoulli, torch.multinomial, Tensor.bernoulli, Tensor.multinomial}
IN_PLACE = {
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.exponential_,
    Tensor.random_,
    Tensor.geometric_,
    Tensor.cauchy_,
    Tensor.log_normal_,
    Tensor.bernoulli_,
}
REFUSED = {torch.normal, torch.poisson}


class PartRandomness(TorchFunctionMode):
    """While active, random functions give a part of a batch what its images get in the whole batch under the same seed."""

    def __init__(self, part: Part, rows: int) -> None:
        """rows: images of the part, b."""
        super().__init__()
        self.part, self.rows = part, rows

    def _of_images(self, length: int) -> bool:
        return self.part.count > 1 and length > 0 and length % self.rows == 0

    def _cut(self, whole: Tensor) -> Tensor:
        return whole[self.part.rows(len(whole))]

    def _place(self, x: Tensor, fill: float) -> Tensor:
        """x (k b, ...) in its place among (k B, ...) entries of which the others do not matter."""
        whole = torch.full((len(x) * self.part.count, *x.shape[1:]), fill, dtype=x.dtype, device=x.device)
        whole[self.part.rows(len(whole))] = x.detach()
        return whole

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Make a random draw for the whole batch (k B, ...) and cut the part's (k b, ...); anything else is called as it is.

        Raises:
            ValueError: for a random function that cannot be divided.
        """
        kwargs = kwargs or {}
        if func in REFUSED:
            raise ValueError(f"torch.{func.__name__} cannot be divided among devices; draw with torch.rand or torch.randn")
        if func in (torch.rand, torch.randn):
            return self._draw(func, (), args, kwargs)
        if func is torch.randint:
            limits = [a for a in args if isinstance(a, int)]
            return self._draw(func, tuple(limits), tuple(a for a in args if not isinstance(a, int)), kwargs)
        if func in BY_LIKE and self._of_images(len(args[0])):
            x = args[0]
            whole = torch.empty((len(x) * self.part.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
            return self._cut(func(whole, *args[1:], **kwargs))
        if func in IN_PLACE and args[0].ndim and self._of_images(len(args[0])):
            return args[0].copy_(self._cut(func(self._place(args[0], 0.0), *args[1:], **kwargs)))
        if func in BY_ROWS and self._of_images(len(args[0])):
            return self._cut(func(self._place(args[0], 1.0), *args[1:], **kwargs))
        return func(*args, **kwargs)

    def _draw(
        self, func: Callable[..., Tensor], limits: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        rest = {name: value for name, value in kwargs.items() if name != "size"}
        given = kwargs.get("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
        size = tuple(given)
        if not size or not self._of_images(size[0]):
            return func(*limits, size, **rest)
        return self._cut(func(*limits, (size[0] * self.part.count, *size[1:]), **rest))


def step_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose of one training step: all randomness of training is a function of (seed, step)."""
    purposes = ("posterior", "dropout", "loss", "view", "order")
    state = np.random.SeedSequence([seed, step, purposes.index(purpose)]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def seed_draws(seed: int, device: torch.device) -> None:
    """What `torch.manual_seed` does for the CPU and one GPU; that also formats the stack for each kind of device that is not
    there, at every call (3 % of a small model's step)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
