"""Next-token prediction: causal attention, one token at a time, key-value cache; raster or random order.

Letters: B images, N tokens, D width, M condition tokens.

The condition's prefix plays the part of the start token: the output at its last position predicts the first token (LlamaGen,
Sun et al. 2024). The last token is never an input. In random order every input also names the place of the token to be
predicted, since causal attention cannot know it otherwise (sigma-GPT, Pannatier et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, table
from bench.graphs import Replayed, replays
from bench.key_value_cache import KeyValueCache
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_choice, check_sampling
from paradigms.embedding import token_embedding
from paradigms.heads import CrossEntropy, make_head
from paradigms.orders import put, random_orders, take


class CausalPrediction(Paradigm):
    """One token at a time with any head; the subclasses say which tokens they read."""

    grids = "any"
    default_steps = None
    default_head: ClassVar[str]

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        order: Literal["raster", "random"] = "raster",
        head: str = "",
        head_options: Mapping[str, Any] | None = None,
    ) -> None:
        """order: of the tokens, random ones drawn anew for every image; head: its name, empty for the default; head_options:
        keyword arguments of the head's class."""
        super().__init__(backbone, space, conditions)
        check_choice("order", order, ("raster", "random"))
        self.order = order
        self.embed_tokens = token_embedding(space, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.target_positions = table(space.num_tokens, backbone.width) if order == "random" else None
        self.head = make_head(head or self.default_head, space, backbone.width, head_options or {})
        self.loss_unit = self.head.loss_unit

    def draw_orders(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """The places in the order of prediction (B, N)."""
        if self.order == "random":
            return random_orders(batch, self.space.num_tokens, self.device, generator)
        return torch.arange(self.space.num_tokens, device=self.device).expand(batch, -1)

    def name_targets(self, sequence: Tensor, targets: Tensor) -> Tensor:
        """Add the places to be predicted (B, K) to the last K of the embedded inputs (B, T, D)."""
        if self.target_positions is None:
            return sequence
        start = sequence.shape[1] - targets.shape[1]
        return torch.cat([sequence[:, :start], sequence[:, start:] + self.target_positions[targets]], dim=1)

    def contexts(self, tokens: Tensor, orders: Tensor, condition: Condition) -> Tensor:
        """(B, N, D): row i predicts the token at place orders[:, i] from the condition and the tokens at orders[:, :i]."""
        prefix, vector = self.embed_condition(condition)
        seen = orders[:, :-1]
        inputs = self.embed_tokens(take(tokens, seen)) + self.positions[seen]
        sequence = self.name_targets(torch.cat([prefix, inputs], dim=1), orders)
        return self.backbone(sequence, vector, causal=True)[:, prefix.shape[1] - 1 :]

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        orders = self.draw_orders(len(tokens))
        out = self.contexts(tokens, orders, condition)
        loss = self.head.loss(out.flatten(0, 1), take(tokens, orders).flatten(0, 1))
        return loss.view(orders.shape).mean(1), {}

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor | None:
        """Exact in raster order; in random order the mean over orders, which bounds it."""
        if not isinstance(self.head, CrossEntropy):
            return None
        orders = self.draw_orders(len(tokens))
        out = self.contexts(tokens, orders, condition)
        nats = self.head.negative_log_likelihood(out.flatten(0, 1), take(tokens, orders).flatten())
        return nats.view(orders.shape).sum(1)

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """steps must be None or the number of tokens; both branches of guidance run in one batch."""
        length = self.space.num_tokens
        if steps not in (None, length):
            raise ValueError(f"causal attention predicts one token per step: it takes exactly {length} steps, not {steps}")
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        orders = self.draw_orders(len(condition), generator)
        sequence, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, sequence.shape[1] + length - 1)
        tokens = self.space.empty(len(condition), self.device)

        def advance(sequence: Tensor, cached: Tensor) -> Tensor:
            """One position (B, 1, D) further, at a place (1,) of the cache."""
            cache.place = cached
            return self.backbone(sequence, vector, causal=True, cache=cache)[:, -1]

        replayed, rest = Replayed(advance, self.backbone), torch.arange(sequence.shape[1], cache.max_length, device=self.device)
        for index in range(length):
            place = orders[:, index : index + 1]
            sequence = self.name_targets(sequence, guide.double(place))
            if index and replays(self.device):
                out = replayed(sequence, rest[index - 1 : index])
            else:
                out = self.backbone(sequence, vector, causal=True, cache=cache)[:, -1]
            drawn = self.head.sample(out, temperature=temperature, guidance=guidance, generator=generator)[:, None]
            tokens = put(tokens, place, drawn)
            sequence = guide.double(self.embed_tokens(drawn) + self.positions[place])
        return tokens


class NextToken(CausalPrediction):
    """Codes, by cross-entropy."""

    reads = "codes"
    loss_unit = "nats per token"
    default_head = "cross-entropy"


class NextTokenContinuous(CausalPrediction):
    """Latents, by Diffusion Loss, a Gaussian mixture (GIVT), the energy score or the squared error (Li et al. 2024, table 1)."""

    reads = "latents"
    loss_unit = "squared prediction error per latent value"
    default_head = "diffusion"


class NextTokenEnergy(CausalPrediction):
    """Latents, by the energy score of a one-step generator (EAR, Shao et al. 2025)."""

    reads = "latents"
    loss_unit = "energy score per token"
    default_head = "energy"
