"""Masked-token prediction with cross-entropy (MaskGIT, Chang et al. 2022).

Letters: B images, N tokens, V codes, D width, M condition tokens.

All N tokens run through a bidirectional stack, hidden ones as a learned mask token; the loss is on hidden tokens only.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.orders import cosine_schedule
from paradigms.sampling import draw, gumbel


class MaskedToken(Paradigm):
    """Cosine mask law; parallel decoding by confidence or in random order."""

    reads = "codes"
    loss_unit = "nats per hidden token"
    default_steps = 16

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        order: Literal["confidence", "random"] = "confidence",
        choice_temperature: float = 4.5,
    ) -> None:
        """order: which tokens are kept at each step; choice_temperature: of the annealed Gumbel noise on log-confidence
        (4.5 in the MaskGIT code)."""
        super().__init__(backbone, space, conditions)
        if order not in ("confidence", "random"):
            raise ValueError(f"order must be 'confidence' or 'random', not {order!r}")
        self.order, self.choice_temperature = order, choice_temperature
        self.embed_tokens = nn.Embedding(space.vocabulary + 1, backbone.width)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.positions = table(space.num_tokens, backbone.width)
        self.head = linear(backbone.width, space.vocabulary, std=0.02)

    @property
    def mask_id(self) -> int:
        return self.space.vocabulary

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Logits (B, N, V) for tokens (B, N) in which hidden ones are mask_id."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(tokens) + self.positions], dim=1)
        return self.head(self.backbone(sequence, vector)[:, prefix.shape[1] :])

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        batch, length = tokens.shape
        ratio = torch.cos(math.pi / 2 * torch.rand(batch, 1, device=tokens.device))
        num_hidden = (ratio * length).ceil().clamp(min=1)
        rank = torch.rand(batch, length, device=tokens.device).argsort(1).argsort(1)
        hidden = rank < num_hidden
        logits = self.logits(torch.where(hidden, self.mask_id, tokens), condition).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        return (entropy * hidden).sum(1) / hidden.sum(1), {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature divides the logits' weight against Gumbel noise when a code is drawn."""
        steps = min(self.default_steps, self.space.num_tokens) if steps is None else steps
        check_sampling(steps, temperature, self.space.num_tokens)
        guide = Guidance(condition, guidance)
        shape = (len(condition), self.space.num_tokens)
        tokens = torch.full(shape, self.mask_id, device=self.device)
        for step, remaining in enumerate(cosine_schedule(self.space.num_tokens, steps), start=1):
            logits = guide.mix(self.logits(guide.double(tokens), guide.condition).float())
            drawn = draw(logits, temperature, generator)
            noise = gumbel(shape, generator, self.device)
            if self.order == "random":
                score = noise
            else:
                confidence = logits.log_softmax(-1).gather(2, drawn[..., None])[..., 0]
                score = confidence + self.choice_temperature * (1 - step / steps) * noise
            hidden = tokens == self.mask_id
            score = torch.where(hidden, score, math.inf)  # what is revealed stays
            keep = score.argsort(1, descending=True).argsort(1) < shape[1] - remaining
            tokens = torch.where(hidden & keep, drawn, tokens)
        return tokens
