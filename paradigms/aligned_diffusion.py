"""Diffusion whose blocks learn what a frozen network sees: representation alignment (REPA, Yu et al. 2025).

Letters: B images, N tokens, M condition tokens, D width, P vectors with F feature channels.

The hidden state of an early block is projected by a small network and pulled towards the features of the clean image by their
cosine (loss.py of the published code), beside the loss of flow matching. The features come with the tokenizer ("a+b" has those
of b), one vector per token; the frozen network is billed with every image. The sampler is that of `Diffusion`, at its cost.

Left out of the paper: DINOv2 as the network, which is a matter of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear
from bench.paradigm import Condition, ConditionSpace, TokenSpace
from paradigms.diffusion import Diffusion

DEPTH_SHARE = 1 / 3
"""Of the blocks, those up to and with the one that is aligned (8 of 24 in SiT-L/2: the published code)."""
HIDDEN_WIDTH = 2
"""Of the projection's hidden layers, times the backbone's width (2,048 at width 1,024: the published code)."""


class AlignedDiffusion(Diffusion):
    """Flow matching, and the cosine between an early block and a frozen network's features."""

    reads_features = True
    loss_unit = "squared velocity error per latent value less weighted alignment"
    training_only = ("project",)

    def __init__(
        self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace, *, weight: float = 0.5, **options: Any
    ) -> None:
        """Options beside those of `Diffusion`.

        weight: of the alignment (.5 in the published code); at 0 the loss is that of `Diffusion`.
        """
        super().__init__(backbone, space, conditions, **options)
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, not {weight}")
        assert space.features is not None  # the contract has made sure
        if space.features.grid != space.grid:
            raise ValueError(
                f"features must be one vector per token, a grid of {space.grid}, not of {space.features.grid}; put another "
                "tokenizer behind the +"
            )
        self.weight, self.aligned, self.num_prefix = weight, max(1, round(DEPTH_SHARE * backbone.depth)), conditions.num_tokens
        hidden = HIDDEN_WIDTH * backbone.width
        self.project = nn.Sequential(
            linear(backbone.width, hidden), nn.SiLU(), linear(hidden, hidden), nn.SiLU(), linear(hidden, space.features.channels)
        )

    @contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        """While active, notes what the aligned block gives, (B, M + N, D)."""
        seen: list[Tensor] = []
        handle = self.backbone.blocks[self.aligned - 1].register_forward_hook(lambda _, __, out: seen.append(out))
        try:
            yield seen
        finally:
            handle.remove()

    def alignment(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Mean cosine (B,) between projected hidden states (B, N, D) and features (B, N, F)."""
        return F.cosine_similarity(self.project(hidden).float(), features, dim=2).mean(1)

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        assert condition.features is not None
        with self._watched() as seen:
            loss, scalars = super().loss(tokens, condition)
        cosine = self.alignment(seen[0][:, self.num_prefix :], condition.features)
        return loss - self.weight * cosine, {**scalars, "alignment": cosine.mean().detach()}
