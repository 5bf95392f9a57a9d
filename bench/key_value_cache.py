"""What decoding keeps of the positions before: their keys and values, and what does not change from one to the next.

Letters: B images, T sequence positions, D width, H heads, E head width, F outputs of a layer, L blocks, K vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activated(vector: Tensor) -> Tensor:
    """SiLU of a vector (B, D) or (B, K, D), as (B, 1, D) or (B, K, D)."""
    return F.silu(vector if vector.ndim == 3 else vector[:, None])


LARGE = 2**18
"""Weights of a layer, 1 MB in float32, that no longer lie in a core's own cache beside those of the other layers."""


class KeyValueCache:
    """Keys and values of the positions seen so far, allocated once, at the first use, for `max_length` positions; and what the
    blocks make of a vector, as long as it is the same tensor."""

    def __init__(self, depth: int, max_length: int) -> None:
        self.depth, self.max_length = depth, max_length
        self.length = 0
        self.place: Tensor | None = None
        """(1,) int64 on the device: where the next single position goes. With it shapes stay the same from one position to the
        next, which a graph of kernels needs; attention then runs over `max_length` places and hides those behind it."""
        self._store: Tensor | None = None  # (2, L, B, H, max_length, E)
        self._vector, self._activated = torch.empty(0), torch.empty(0)
        self._modulations: dict[nn.Module, Tensor] = {}
        self._transposed: dict[nn.Module, Tensor] = {}

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, E) after `length` for one block and return all of its keys and values so far; or put (B, H, 1, E) at
        `place` and return those of all places."""
        if self._store is None:
            batch, num_heads, _, width = keys.shape
            self._store = keys.new_zeros(2, self.depth, batch, num_heads, self.max_length, width)
        if self.place is not None:
            self._store[0, block].index_copy_(2, self.place, keys)
            self._store[1, block].index_copy_(2, self.place, values)
            return self._store[0, block], self._store[1, block]
        end = self.length + keys.shape[2]
        self._store[0, block, :, :, self.length : end] = keys
        self._store[1, block, :, :, self.length : end] = values
        return self._store[0, block, :, :, :end], self._store[1, block, :, :, :end]

    def activated(self, vector: Tensor) -> Tensor:
        """SiLU of a vector (B, D) or (B, K, D), as (B, 1, D) or (B, K, D); what layers made of another tensor is forgotten."""
        if self._vector is not vector:
            self._vector, self._activated, self._modulations = vector, activated(vector), {}
        return self._activated

    def modulation(self, layer: nn.Linear) -> Tensor:
        """What a layer makes of the activated vector, (B, 1, ...) or (B, K, ...), computed once: a quarter of the FLOPs of
        decoding token by token."""
        if layer not in self._modulations:
            self._modulations[layer] = layer(self._activated)
        return self._modulations[layer]

    def product(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """layer(x), (B, T, F).

        For one or two rows on a CPU a large layer with more outputs than inputs reads a transposed copy of its weights, made
        once: 1.5 to 2.5 times as fast there (docs/log.md).
        """
        few = x.device.type == "cpu" and x.shape[0] * x.shape[1] <= 2
        plain = not few or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        if plain or layer.weight.numel() < LARGE or layer.out_features < 2 * layer.in_features:
            return layer(x)
        if layer not in self._transposed:
            self._transposed[layer] = layer.weight.t().contiguous()
        return torch.addmm(layer.bias, x.flatten(0, 1), self._transposed[layer]).unflatten(0, x.shape[:2])
