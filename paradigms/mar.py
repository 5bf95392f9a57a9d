"""Masked autoregression with Diffusion Loss (MAR, Li et al. 2024).

Letters: B images, N tokens, K kept tokens, C latent channels, D width, M condition tokens.

The encoder, the first half of the shared stack, sees the condition's prefix and the kept tokens only; the decoder, the second
half, sees the prefix and all N places with a mask token in the empty ones. The small diffusion head then models each hidden
token given the decoder's output. Sampling reveals tokens in random order, several per step by the cosine schedule.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.orders import cosine_schedule


class MAR(Paradigm):
    """Random order, bidirectional attention, Diffusion Loss on hidden tokens."""

    reads = "latents"
    loss_unit = "squared prediction error per latent value"
    default_steps = 16

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        mask_ratio_minimum: float = 0.7,
        mask_ratio_std: float = 0.25,
        head_width: int = 1024,
        head_depth: int = 3,
        head_steps: int = 100,
        head_time_features: int = 256,
        head_clip: float | None = None,
        head_prediction: Literal["noise", "velocity"] = "noise",
        head_noise_shift: float = 1.0,
        multiplier: int = 4,
        condition_at_input: bool = False,
        guidance_schedule: Literal["linear", "constant"] = "linear",
    ) -> None:
        """Options beside the three that every paradigm takes.

        mask_ratio_*: of the hidden share, the left half of a Gaussian around 1 cut off at the minimum (the law of the MAR
            code, LTH14/mar models/mar.py).
        head_*: the diffusion MLP, its sampling steps, the limit on its predicted clean token (none as published), what it
            predicts (noise as published) and the shift of its schedule towards noise (1 as published).
        multiplier: noise draws per hidden token and training step.
        condition_at_input: the head reads the condition at its input too, not through adaLN alone as published.
        guidance_schedule: over the revealed share of the tokens, linear from 1 as published, or constant.
        """
        super().__init__(backbone, space, conditions)
        if guidance_schedule not in ("linear", "constant"):
            raise ValueError(f"guidance_schedule must be 'linear' or 'constant', not {guidance_schedule!r}")
        if head_prediction not in ("noise", "velocity"):
            raise ValueError(f"head_prediction must be 'noise' or 'velocity', not {head_prediction!r}")
        self.guidance_schedule = guidance_schedule
        width = backbone.width
        self.mask_ratio_minimum, self.mask_ratio_std = mask_ratio_minimum, mask_ratio_std
        self.head_steps, self.head_clip = head_steps, head_clip
        self.num_encoder_blocks = backbone.depth // 2
        self.embed_tokens = linear(space.channels, width)
        self.encoder_positions = table(space.num_tokens, width)
        self.decoder_positions = table(space.num_tokens, width)
        self.head_positions = table(space.num_tokens, width)
        self.mask_token = table(1, width)
        self.head = DiffusionLoss(
            space.channels,
            width,
            width=head_width,
            depth=head_depth,
            multiplier=multiplier,
            condition_at_input=condition_at_input,
            time_features=head_time_features,
            prediction=head_prediction,
            noise_shift=head_noise_shift,
        )

    def contexts(self, kept: Tensor, places: Tensor, condition: Condition) -> Tensor:
        """The decoder's output (B, N, D) for kept tokens (B, K, C) at places (B, K)."""
        prefix, vector = self.embed_condition(condition)
        start, half = prefix.shape[1], self.num_encoder_blocks
        x = torch.cat([prefix, self.embed_tokens(kept) + self.encoder_positions[places]], dim=1)
        x = self.backbone(x, vector, blocks=slice(0, half))
        index = places[..., None].expand(-1, -1, x.shape[2])
        full = self.mask_token.to(x.dtype).expand(len(x), self.space.num_tokens, -1).scatter(1, index, x[:, start:])
        x = torch.cat([x[:, :start], full + self.decoder_positions], dim=1)
        return self.backbone(x, vector, blocks=slice(half, None))[:, start:] + self.head_positions

    def draw_num_hidden(self) -> int:
        """Hidden tokens of this batch: ceil(N r), r from the left half of a truncated Gaussian, one draw per batch."""
        low = 0.5 * (1 + math.erf((self.mask_ratio_minimum - 1) / self.mask_ratio_std / math.sqrt(2)))
        uniform = low + (0.5 - low) * torch.rand((), dtype=torch.float64)
        ratio = 1 + self.mask_ratio_std * math.sqrt(2) * torch.erfinv(2 * uniform - 1)
        return max(1, min(self.space.num_tokens, math.ceil(self.space.num_tokens * float(ratio))))

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        num_hidden = self.draw_num_hidden()
        batch, length, channels = tokens.shape
        order = torch.rand(batch, length, device=tokens.device).argsort(1)
        hidden, places = order[:, :num_hidden], order[:, num_hidden:]
        kept = tokens.gather(1, places[..., None].expand(-1, -1, channels))
        target = tokens.gather(1, hidden[..., None].expand(-1, -1, channels))
        out = self.contexts(kept, places, condition)
        out = out.gather(1, hidden[..., None].expand(-1, -1, out.shape[2]))
        loss = self.head.loss(out.flatten(0, 1), target.flatten(0, 1))
        return loss.view(batch, num_hidden).mean(1), {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature multiplies the noise of the head's steps; guidance acts inside the head, on its predicted noise."""
        length, channels = self.space.num_tokens, self.space.channels
        steps = min(self.default_steps, length) if steps is None else steps
        check_sampling(steps, temperature, length)
        guide = Guidance(condition, guidance)
        tokens = torch.zeros(len(condition), length, channels, device=self.device)
        order = torch.rand(len(condition), length, generator=generator, device=self.device).argsort(1)
        revealed = 0
        for remaining in cosine_schedule(length, steps):
            places, now = order[:, :revealed], order[:, revealed : length - remaining]
            kept = tokens.gather(1, places[..., None].expand(-1, -1, channels))
            out = self.contexts(guide.double(kept), guide.double(places), guide.condition)
            index = guide.double(now)[..., None].expand(-1, -1, out.shape[2])
            revealed_share = (length - remaining) / length if self.guidance_schedule == "linear" else 1.0
            drawn = self.head.sample(
                out.gather(1, index).flatten(0, 1),
                steps=self.head_steps,
                temperature=temperature,
                guidance=1 + (guidance - 1) * revealed_share,
                generator=generator,
                clip=self.head_clip,
            )
            index = now[..., None].expand(-1, -1, channels)
            tokens = tokens.scatter(1, index, drawn.view(len(condition), -1, channels))
            revealed = length - remaining
        return tokens
