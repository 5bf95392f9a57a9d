"""Masked-token prediction with cross-entropy (MaskGIT, Chang et al. 2022), or absorbing diffusion (MDLM, Sahoo et al. 2024).

Letters: B images, N tokens, V codes, D width, M condition tokens.

All N tokens run through a bidirectional stack, hidden ones as a learned mask token; the loss is on hidden tokens only.
MDLM is weight="elbo", order="random" and schedule="linear". Of it are left out: independent masks in sampling (as many tokens are
revealed in a step as that reveals in the mean), the caching of steps that reveal nothing, and semi-autoregressive decoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_choice, check_sampling
from paradigms.embedding import token_embedding
from paradigms.heads import CrossEntropy
from paradigms.orders import cosine_schedule, linear_schedule
from paradigms.sampling import gumbel

MASK_LAWS = ("cosine", "arccos", "uniform")
WEIGHTS = ("image", "token", "elbo")
SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}


class MaskedToken(Paradigm):
    """Cosine mask law; parallel decoding by confidence or in random order."""

    reads = "codes"
    grids = "any"
    loss_unit = "nats per hidden token"
    default_steps = 16

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        mask_law: Literal["cosine", "arccos", "uniform"] = "cosine",
        order: Literal["confidence", "random"] = "confidence",
        choice_temperature: float = 4.5,
        label_smoothing: float = 0.0,
        weight: Literal["image", "token", "elbo"] = "image",
        schedule: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        """Options beside the three that every paradigm takes.

        mask_law: the hidden share for uniform u: cos(pi/2 u) (MaskGIT), 2/pi arccos(u) (Halton-MaskGIT, Besnier et al. 2025),
            or u.
        order: which tokens are kept at each step, the most confident ones or any.
        choice_temperature: of the Gumbel noise on log-confidence, annealed to 0 (4.5 in the MaskGIT code).
        label_smoothing: share of the target spread over all codes (0.1 in MaskGIT).
        weight: what counts equally in the loss. "image": the mean over each image's hidden tokens, so that a lone hidden token
            counts as much as all tokens of an image that is hidden whole. "token": each hidden token, as in MaskGIT, whose
            mean is over the batch; here the sum is divided by the law's mean number, so that no image sees another. "elbo": the
            bound of `negative_log_likelihood` per token of the image, whose own law, a uniform number of hidden tokens, takes the
            place of mask_law.
        schedule: how many tokens are hidden after each step of the sampler: "cosine" (MaskGIT) or "linear" (MDLM).
        """
        super().__init__(backbone, space, conditions)
        check_choice("mask_law", mask_law, MASK_LAWS)
        check_choice("order", order, ("confidence", "random"))
        check_choice("weight", weight, WEIGHTS)
        check_choice("schedule", schedule, tuple(SCHEDULES))
        if weight == "elbo" and mask_law == "arccos":
            raise ValueError("weight 'elbo' hides a uniform number of tokens; leave out mask_law 'arccos'")
        self.weight, self.schedule = weight, SCHEDULES[schedule]
        if weight == "elbo":
            self.loss_unit = "nats per token, upper bound"
        self.mask_law, self.order, self.choice_temperature = mask_law, order, choice_temperature
        self.embed_tokens = token_embedding(space, backbone.width, num_extra=1)
        self.positions = table(space.num_tokens, backbone.width)
        self.head = CrossEntropy(space, backbone.width, label_smoothing=label_smoothing)

    @property
    def mask_id(self) -> int:
        """The embedding's extra entry, which stands for a hidden token."""
        return self.space.vocabulary

    def contexts(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The backbone's output (B, N, D) for tokens (B, N) in which hidden ones are mask_id."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(tokens) + self.positions], dim=1)
        return self.backbone(sequence, vector)[:, prefix.shape[1] :]

    def hidden_share(self, uniform: Tensor) -> Tensor:
        """The mask law (B,) at uniform numbers (B,) in 0..1."""
        if self.mask_law == "cosine":
            return torch.cos(math.pi / 2 * uniform)
        return 2 / math.pi * torch.acos(uniform) if self.mask_law == "arccos" else uniform

    @cached_property
    def mean_hidden(self) -> float:
        """The mean number of hidden tokens per image, over 10,000 evenly spaced uniform numbers."""
        shares = self.hidden_share((torch.arange(10_000, dtype=torch.float64, device="cpu") + 0.5) / 10_000)
        return float((shares * self.space.num_tokens).ceil().clamp(min=1).mean())

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        batch, length = tokens.shape
        if self.weight == "elbo":
            return self.bound(tokens, condition, self.head.loss) / length, {}
        share = self.hidden_share(torch.rand(batch, 1, device=tokens.device))
        rank = torch.rand(batch, length, device=tokens.device).argsort(1).argsort(1)
        hidden = rank < (share * length).ceil().clamp(min=1)
        out = self.contexts(torch.where(hidden, self.mask_id, tokens), condition)
        entropy = self.head.loss(out.flatten(0, 1), tokens.flatten()).view(batch, length)
        return (entropy * hidden).sum(1) / (hidden.sum(1) if self.weight == "image" else self.mean_hidden), {}

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The evidence lower bound of absorbing diffusion, whatever law and weights the loss is trained with."""
        return self.bound(tokens, condition, self.head.negative_log_likelihood)

    def bound(self, tokens: Tensor, condition: Condition, cross_entropy: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The bound in nats per image (B,), of codes (B, N) and a cross-entropy per row of vectors (R, D) and codes (R,).

        Sahoo et al. 2024, equation 10: hide each token with probability t and weigh the cross-entropy of the hidden ones by
        1 / t. The mean over uniform t is that over a uniform number of hidden tokens k with the weight N / k, which is at most N
        (Hoogeboom et al. 2022, equation 4).
        """
        batch, length = tokens.shape
        num_hidden = (torch.rand(batch, 1, device=tokens.device) * length).floor().clamp(max=length - 1) + 1
        hidden = torch.rand(batch, length, device=tokens.device).argsort(1).argsort(1) < num_hidden
        out = self.contexts(torch.where(hidden, self.mask_id, tokens), condition)
        nats = cross_entropy(out.flatten(0, 1), tokens.flatten()).view(batch, length)
        return (nats * hidden).sum(1) * length / num_hidden[:, 0]

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature is that of the softmax from which codes are drawn."""
        steps = min(self.default_steps, self.space.num_tokens) if steps is None else steps
        check_sampling(steps, temperature, self.space.num_tokens)
        guide = Guidance(condition, guidance)
        shape = (len(condition), self.space.num_tokens)
        tokens = torch.full(shape, self.mask_id, device=self.device)
        for step, remaining in enumerate(self.schedule(self.space.num_tokens, steps), start=1):
            logits = guide.mix(self.head.logits(self.contexts(guide.double(tokens), guide.condition)).float())
            drawn = self.head.draw(logits, temperature, generator)
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
