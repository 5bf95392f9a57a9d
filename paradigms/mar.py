"""Masked autoregression (MAR, Li et al. 2024): random order, bidirectional attention, any number of tokens per step.

Letters: B images, N tokens, K kept tokens, C latent channels, D width, S slots before the tokens.

The encoder, the first half of the shared stack, sees the condition's slots and the kept tokens only; the decoder, the second
half, sees the slots and all N places with a mask token in the empty ones. A head then models each hidden token given the
decoder's output: Diffusion Loss by default. Sampling reveals tokens in random order, several per step by the cosine schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_choice, check_sampling
from paradigms.embedding import token_embedding
from paradigms.heads import CrossEntropy, make_head
from paradigms.orders import cosine_schedule, put, random_orders, take


class MaskedAutoregression(Paradigm):
    """Bidirectional prediction of hidden tokens with any head; the subclasses say which tokens they read."""

    default_steps = 16
    default_head: ClassVar[str]

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        mask_law: Literal["truncated-gaussian", "uniform"] = "truncated-gaussian",
        mask_ratio_minimum: float = 0.7,
        mask_ratio_std: float = 0.25,
        num_buffer_slots: int = 0,
        guidance_schedule: Literal["linear", "constant"] = "linear",
        head: str = "",
        head_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Options beside the three that every paradigm takes.

        mask_law: of the hidden share; the left half of a Gaussian around 1 with standard deviation mask_ratio_std, cut off at
            mask_ratio_minimum (the MAR code, LTH14/mar models/mar.py), or uniform from there to 1 (the paper, section 4).
        num_buffer_slots: repeat the condition's tokens to fill this many slots, each with its own position (64 as published
            for one class token); 0 takes the condition's tokens as they are.
        guidance_schedule: over the revealed share of the tokens, linear from 1 as published, or constant.
        head, head_options: the head's name, empty for the default, and keyword arguments of its class.
        """
        super().__init__(backbone, space, conditions)
        check_choice("guidance_schedule", guidance_schedule, ("linear", "constant"))
        check_choice("mask_law", mask_law, ("truncated-gaussian", "uniform"))
        if backbone.depth < 2:
            raise ValueError(f"an encoder and a decoder need a backbone of at least 2 blocks, not {backbone.depth}")
        if not 0 <= mask_ratio_minimum < 1:
            raise ValueError(f"mask_ratio_minimum must be at least 0 and below 1, not {mask_ratio_minimum}")
        self.mask_law, self.guidance_schedule = mask_law, guidance_schedule
        self.mask_ratio_minimum, self.mask_ratio_std = mask_ratio_minimum, mask_ratio_std
        width = backbone.width
        self.num_encoder_blocks = backbone.depth // 2
        self.num_slots = num_buffer_slots or conditions.num_tokens
        self.embed_tokens = token_embedding(space, width)
        self.encoder_positions = table(self.num_slots + space.num_tokens, width)
        self.input_norm = nn.LayerNorm(width, eps=1e-6)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.embed_encoded = linear(width, width)
        self.mask_token = table(1, width)
        self.decoder_positions = table(self.num_slots + space.num_tokens, width)
        self.head_positions = table(space.num_tokens, width)
        self.head = make_head(head or self.default_head, space, width, head_options or {})
        self.loss_unit = self.head.loss_unit

    def contexts(self, kept: Tensor, places: Tensor, condition: Condition) -> Tensor:
        """The decoder's output (B, N, D) for kept tokens (B, K) or (B, K, C) at places (B, K)."""
        prefix, vector = self.embed_condition(condition)
        slots, half = self.num_slots, self.num_encoder_blocks
        prefix = prefix.repeat(1, math.ceil(slots / prefix.shape[1]), 1)[:, :slots] + self.encoder_positions[:slots]
        x = torch.cat([prefix, self.embed_tokens(kept) + self.encoder_positions[slots:][places]], dim=1)
        x = self.backbone(self.input_norm(x), vector, blocks=slice(0, half))
        x = self.embed_encoded(self.encoder_norm(x))
        empty = self.mask_token.to(x.dtype).expand(len(x), self.space.num_tokens, -1)
        full = torch.cat([x[:, :slots], put(empty, places, x[:, slots:])], dim=1)
        x = self.backbone(full + self.decoder_positions, vector, blocks=slice(half, None))
        return x[:, slots:] + self.head_positions

    def draw_num_hidden(self) -> int:
        """Hidden tokens of this batch, ceil(N r): one draw of the mask law per batch."""
        uniform = torch.rand((), dtype=torch.float64)
        low = self.mask_ratio_minimum
        if self.mask_law == "uniform":
            ratio = low + (1 - low) * uniform
        else:
            below = 0.5 * (1 + math.erf((low - 1) / self.mask_ratio_std / math.sqrt(2)))
            quantile = below + (0.5 - below) * uniform
            ratio = 1 + self.mask_ratio_std * math.sqrt(2) * torch.erfinv(2 * quantile - 1)
        return max(1, min(self.space.num_tokens, math.ceil(self.space.num_tokens * float(ratio))))

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        num_hidden = self.draw_num_hidden()
        order = random_orders(len(tokens), self.space.num_tokens, tokens.device)
        hidden, places = order[:, :num_hidden], order[:, num_hidden:]
        out = take(self.contexts(take(tokens, places), places, condition), hidden)
        loss = self.head.loss(out.flatten(0, 1), take(tokens, hidden).flatten(0, 1))
        return loss.view(hidden.shape).mean(1), {}

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor | None:
        """Of codes, the bound of absorbing diffusion (see `MaskedToken`), with one number of hidden tokens per batch."""
        if not isinstance(self.head, CrossEntropy):
            return None
        length = self.space.num_tokens
        num_hidden = 1 + min(int(torch.rand(()) * length), length - 1)
        order = random_orders(len(tokens), length, tokens.device)
        hidden, places = order[:, :num_hidden], order[:, num_hidden:]
        out = take(self.contexts(take(tokens, places), places, condition), hidden)
        nats = self.head.negative_log_likelihood(out.flatten(0, 1), take(tokens, hidden).flatten())
        return nats.view(hidden.shape).sum(1) * length / num_hidden

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """What temperature and guidance act on is the head's matter."""
        length = self.space.num_tokens
        steps = min(self.default_steps, length) if steps is None else steps
        check_sampling(steps, temperature, length)
        guide = Guidance(condition, guidance)
        tokens = self.space.empty(len(condition), self.device)
        order = random_orders(len(condition), length, self.device, generator)
        revealed = 0
        for remaining in cosine_schedule(length, steps):
            places, now = order[:, :revealed], order[:, revealed : length - remaining]
            out = self.contexts(guide.double(take(tokens, places)), guide.double(places), guide.condition)
            revealed_share = (length - remaining) / length if self.guidance_schedule == "linear" else 1.0
            drawn = self.head.sample(
                take(out, guide.double(now)).flatten(0, 1),
                temperature=temperature,
                guidance=1 + (guidance - 1) * revealed_share,
                generator=generator,
            )
            tokens = put(tokens, now, drawn.unflatten(0, now.shape))
            revealed = length - remaining
        return tokens


class MAR(MaskedAutoregression):
    """Latents, by Diffusion Loss, the energy score, a Gaussian mixture or the squared error."""

    reads = "latents"
    loss_unit = "squared prediction error per latent value"
    default_head = "diffusion"


class MARDiscrete(MaskedAutoregression):
    """Codes, by cross-entropy: the same network with its head alone exchanged (Li et al. 2024, table 1)."""

    reads = "codes"
    grids = "any"
    loss_unit = "nats per hidden token"
    default_head = "cross-entropy"
