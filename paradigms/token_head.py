"""What every head offers: the distribution of a token, given the backbone's output at its place.

Letters: R rows (tokens), D width, C latent channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn


class TokenHead(nn.Module, ABC):
    """p(token | vector). Subclasses take the token space, D and their own keyword options."""

    reads: ClassVar[Literal["latents", "codes"]]
    loss_unit: ClassVar[str]

    @abstractmethod
    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        """Loss per row (R,) for vectors (R, D) and tokens (R, C) float32 or (R,) int64."""

    @abstractmethod
    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        """Draw R tokens for vectors (R, D), or (2R, D) with the hidden branch second when guidance is not 1."""
