"""Conditions: captions or classes as tokens, their embedding, dropout for guidance, and classifier-free guidance.

Letters: B images, M condition tokens, F feature channels, D width.

A condition is a short sequence per image, either ids of a learned vocabulary (B, M) int64 or features of a frozen text encoder
(B, M, F) float32. Every paradigm gets it in the same two forms: a prefix of M embedded tokens, and one pooled vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.backbone import linear, table


@dataclass(frozen=True, kw_only=True)
class ConditionSpace:
    """What condition tokens are: ids below `vocabulary`, or features with `feature_dim` channels."""

    num_tokens: int
    vocabulary: int = 0
    feature_dim: int = 0

    def example(self, batch: int) -> Tensor:
        """Condition tokens (B, M) or (B, M, F) of a batch, on the current default device."""
        if self.feature_dim:
            return torch.ones(batch, self.num_tokens, self.feature_dim)
        return torch.zeros(batch, self.num_tokens, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition tokens and, per image, whether they are hidden (the null condition of guidance)."""

    tokens: Tensor  # (B, M) int64 | (B, M, F) float32
    null: Tensor  # (B,) bool
    features: Tensor | None = None  # (B, P, F) float32
    """What a frozen network says of the images, for losses that read it (`Paradigm.reads_features`); a sampler gets none."""

    @classmethod
    def of(cls, tokens: Tensor, features: Tensor | None = None) -> Condition:
        """Every image conditioned on its tokens (B, M) or (B, M, F), perhaps with its features (B, P, F)."""
        return cls(tokens, torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device), features)

    def __len__(self) -> int:
        return len(self.null)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(self.tokens[rows], self.null[rows], None if self.features is None else self.features[rows])

    def dropped(self, drop: Tensor) -> Condition:
        """The same with the condition of the images where drop (B,) is True hidden."""
        return replace(self, null=self.null | drop)

    def to(self, device: torch.device) -> Condition:
        """The same on a device."""
        features = None if self.features is None else self.features.to(device)
        return Condition(self.tokens.to(device), self.null.to(device), features)


class ConditionEmbedding(nn.Module):
    """Condition to prefix (B, M, D) and pooled vector (B, D); hidden conditions become a learned null prefix."""

    def __init__(self, space: ConditionSpace, width: int) -> None:
        super().__init__()
        self.words: nn.Module
        if space.vocabulary:
            self.words = nn.Embedding(space.vocabulary, width)
            nn.init.normal_(self.words.weight, std=0.02)
        else:
            self.words = linear(space.feature_dim, width)
        self.positions = table(space.num_tokens, width)
        self.null = table(space.num_tokens, width)
        self.pool = linear(width, width)

    def forward(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """B conditions to prefix (B, M, D) and pooled vector (B, D)."""
        prefix = torch.where(condition.null[:, None, None], self.null, self.words(condition.tokens))
        prefix = prefix + self.positions
        return prefix, self.pool(prefix.sum(1))


class Guidance:
    """Classifier-free guidance with both branches in one batch (Ho & Salimans 2022).

    At scale 1 nothing is doubled, so that it equals no guidance bit for bit.
    """

    def __init__(self, condition: Condition, scale: float) -> None:
        self.scale = scale
        self.active = scale != 1.0
        hidden = torch.ones_like(condition.null)
        self.condition = (
            Condition(torch.cat([condition.tokens, condition.tokens]), torch.cat([condition.null, hidden]))
            if self.active
            else condition
        )

    def double(self, x: Tensor) -> Tensor:
        """(B, ...) to (2B, ...) when two branches run."""
        return torch.cat([x, x]) if self.active else x

    def mix(self, out: Tensor) -> Tensor:
        """(2B, ...) to (B, ...): see `mix_branches`."""
        return mix_branches(out, self.scale)


def mix_branches(out: Tensor, scale: float) -> Tensor:
    """(2B, ...) to (B, ...): hidden + scale * (conditioned - hidden); at scale 1 there is one branch, which is returned."""
    if scale == 1.0:
        return out
    conditioned, hidden = out.chunk(2)
    return hidden + scale * (conditioned - hidden)
