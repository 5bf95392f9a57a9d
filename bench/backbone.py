"""The one transformer that every paradigm uses: attention blocks and a key-value cache.

Letters: B images, T sequence positions, D width, H heads, E head width (D / H), L blocks.

No embedding, no head, no loss and no knowledge of any paradigm: a sequence goes in and a sequence of the same shape comes
out. Four hooks serve every paradigm: `causal` with `cache`; `mask`, for attention by groups; `groups` of positions with a vector
each, where they differ in time; and `blocks`, a slice of the stack. Position embeddings belong to the paradigms, because the
published methods differ in how many tables they add and where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.key_value_cache import KeyValueCache, activated


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of the shared stack."""

    width: int
    depth: int
    num_heads: int
    mlp_ratio: int = 4
    modulation: bool = True
    """adaLN-Zero by a vector per image (Peebles & Xie 2023, section 3.2); False gives plain pre-norm blocks."""
    qk_norm: bool = True
    """RMS normalization of queries and keys per head (Dehghani et al. 2023)."""
    residual_multiplier: float = 1.0
    """What every residual branch is multiplied by (bench/parametrization.py)."""
    attention_scale: float | None = None
    """Factor on query-key products; None is 1 / sqrt(E)."""

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}; change one of them")


def linear(num_inputs: int, num_outputs: int, *, std: float | None = None) -> nn.Linear:
    """A linear layer with zero bias and Xavier-uniform weights, or normal weights of the given std (0 gives zeros)."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.zeros_(layer.bias)
    if std is None:
        nn.init.xavier_uniform_(layer.weight)
    elif std == 0:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=std)
    return layer


def table(num_rows: int, width: int) -> nn.Parameter:
    """A learned (num_rows, width) table, N(0, 0.02): position, mask-token and null embeddings."""
    return nn.Parameter(torch.randn(num_rows, width) * 0.02)


class Hooks(NamedTuple):
    """What a pass through the stack gives every block."""

    vector: Tensor | None
    """Activated, (B, 1, D) for the image or (B, K, D) for groups of positions."""
    groups: Tensor | None
    causal: bool
    mask: Tensor | None

    def modulation(self, layer: nn.Linear, cache: KeyValueCache | None) -> Tensor:
        """What a layer makes of the vectors, (B, 1, ...) or for each position (B, T, ...)."""
        assert self.vector is not None
        made = layer(self.vector) if cache is None else cache.modulation(layer)
        return made if self.groups is None else made[:, self.groups]


MOST_POSITIONS = 1024
"""Keys for which a CPU holds the whole matrix of scores."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None = None) -> Tensor:
    """Attention (B, H, T, E) over S keys and values (B, H, S, E), through `scaled_dot_product_attention`, so that it is counted.

    On a CPU in bfloat16 it is two matrix products and a softmax, 2 to 6 times as fast there as the fused kernel, with the same
    FLOPs (measured at 23 to 263 positions, forward and backward; docs/log.md); beyond MOST_POSITIONS their memory would matter.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or key.shape[2] > MOST_POSITIONS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
    with torch.autocast("cpu", enabled=False):
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        return scores.softmax(-1) @ value


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.query_key_value = linear(config.width, 3 * config.width)
        self.out = linear(config.width, config.width)
        head = config.width // config.num_heads
        self.query_scale = nn.Parameter(torch.ones(head)) if config.qk_norm else None
        self.key_scale = nn.Parameter(torch.ones(head)) if config.qk_norm else None

    def forward(self, x: Tensor, how: Hooks, cache: KeyValueCache | None, block: int) -> Tensor:
        """Positions (B, T, D) to (B, T, D), also over the cached ones."""
        batch, length, width = x.shape
        made = self.query_key_value(x) if cache is None else cache.product(self.query_key_value, x)
        qkv = made.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B, H, T, E)
        if self.query_scale is not None and self.key_scale is not None:
            query, key = _rms_norm(query, self.query_scale), _rms_norm(key, self.key_scale)
        causal, mask = how.causal, how.mask
        if cache is not None:
            if causal and cache.length and length > 1:
                mask = torch.ones(length, cache.length + length, dtype=torch.bool, device=x.device).tril(cache.length)
            causal = causal and cache.length == 0  # one new position sees all earlier ones without a mask
            key, value = cache.extend(block, key, value)
        x = attend(query, key, value, mask, causal, self.scale)
        return self.out(x.transpose(1, 2).reshape(batch, length, width))


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """RMS norm over the last axis in x's own dtype, which keeps the fused kernel under autocast."""
    return F.rms_norm(x, (x.shape[-1],), scale.to(x.dtype), 1e-6)


class Block(nn.Module):
    """x + m gate attention(norm(x)), then x + m gate MLP(norm(x)), with the residual multiplier m."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.width
        self.attention_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not config.modulation)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not config.modulation)
        self.mlp = nn.Sequential(
            linear(width, config.mlp_ratio * width), nn.GELU(approximate="tanh"), linear(config.mlp_ratio * width, width)
        )
        self.modulation = linear(width, 6 * width, std=0) if config.modulation else None
        self.multiplier = config.residual_multiplier

    def forward(self, x: Tensor, how: Hooks, cache: KeyValueCache | None, block: int) -> Tensor:
        """Positions (B, T, D) to (B, T, D)."""
        return self.run_whole(x, how) if cache is None else self.run(x, how, cache, block)

    def run_whole(self, x: Tensor, how: Hooks) -> Tensor:
        """The same without a cache (B, T, D), which may be compiled."""
        return self.run(x, how, None, 0)

    def run(self, x: Tensor, how: Hooks, cache: KeyValueCache | None, block: int) -> Tensor:
        """The block itself, (B, T, D)."""
        if self.modulation is None:
            x = torch.add(x, self.attention(self.attention_norm(x), how, cache, block), alpha=self.multiplier)
            return torch.add(x, self._mlp(self.mlp_norm(x), cache), alpha=self.multiplier)
        shift1, scale1, gate1, shift2, scale2, gate2 = how.modulation(self.modulation, cache).chunk(6, dim=2)
        if self.multiplier != 1:
            gate1, gate2 = self.multiplier * gate1, self.multiplier * gate2
        x = x + gate1 * self.attention(modulate(self.attention_norm(x), shift1, scale1), how, cache, block)
        return x + gate2 * self._mlp(modulate(self.mlp_norm(x), shift2, scale2), cache)

    def _mlp(self, x: Tensor, cache: KeyValueCache | None) -> Tensor:
        if cache is None:
            return self.mlp(x)
        first, activation, last = self.mlp
        assert isinstance(first, nn.Linear)
        return last(activation(cache.product(first, x)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift


class Backbone(nn.Module):
    """The stack and its final norm."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=not config.modulation)
        self.final_modulation = linear(config.width, 2 * config.width, std=0) if config.modulation else None

    def compile_blocks(self) -> None:
        """Compile each block for whole sequences; blocks share the code, so that depth costs no further compilation."""
        for block in self.blocks:
            assert isinstance(block, Block)
            setattr(block, "run_whole", torch.compile(block.run_whole))  # noqa: B010 (mypy: a method)

    def forward(
        self,
        x: Tensor,
        vector: Tensor | None = None,
        *,
        groups: Tensor | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        blocks: slice = slice(None),
    ) -> Tensor:
        """Run a slice of the blocks; the final norm follows the last block.

        Args:
            x: (B, T, D) embedded sequence.
            vector: conditions the blocks by adaLN, (B, D) for whole images or (B, K, D) for groups of positions; needed when the
                configuration has `modulation`.
            groups: (T,) which of the K vectors is a position's; needed with several.
            causal: position i sees positions <= i only.
            mask: (T, S) or (B, 1, T, S) bool, True where a position sees another, S counting cached ones too; not with causal.
                Its attention is billed over all pairs.
            cache: holds earlier positions; x then continues them, and the cache grows by T. Without causal and mask the new
                positions see all earlier ones and each other, which is how a group of positions is decoded.
            blocks: which blocks to run, for paradigms that split the stack.

        Returns:
            (B, T, D).
        """
        if vector is not None:
            vector = activated(vector) if cache is None else cache.activated(vector)
        if cache is not None and cache.place is not None:
            mask = (torch.arange(cache.max_length, device=x.device) <= cache.place)[None]
        how = Hooks(vector, groups, causal, mask)
        for index in range(self.config.depth)[blocks]:
            x = self.blocks[index](x, how, cache, index)
        if cache is not None:
            cache.length += x.shape[1]
        if blocks.stop is not None and blocks.stop != self.config.depth:
            return x
        x = self.final_norm(x)
        if self.final_modulation is None:
            return x
        shift, scale = how.modulation(self.final_modulation, cache).chunk(2, dim=2)
        return modulate(x, shift, scale)
