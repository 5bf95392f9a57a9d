"""Discrete diffusion whose noise is any code: uniform-state diffusion (UDLM, Schiff et al. 2024; Duo, Sahoo et al. 2025).

Letters: B images, N tokens, V codes, D width, M condition tokens.

At time t a token keeps its code with probability 1 - t and otherwise becomes any of the V codes, its own included, so that the
sampler may change a token more than once. The loss is the negative evidence lower bound in continuous time (Schiff et al. 2024,
section 4; the same as the form in s-sahoo/duo algo.py). Left out are Duo's curriculum of relaxed Gaussian
codes, its distillation and its greedy last step.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.embedding import TimeEmbedding, token_embedding
from paradigms.gaussian_diffusion import NUM_TRAIN_STEPS
from paradigms.sampling import draw

LEAST_TIME = 1e-6
"""Times are kept this far from both ends, where ratios of probabilities have no bound. The bound loses about this many nats per
token by it."""


class UniformDiffusion(Paradigm):
    """Reads codes; any number of steps, each of which draws every token anew."""

    reads = "codes"
    grids = "any"
    loss_unit = "nats per token, upper bound"
    default_steps = 16

    def __init__(self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace) -> None:
        super().__init__(backbone, space, conditions)
        self.embed_tokens = token_embedding(space, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.embed_time = TimeEmbedding(256, backbone.width)
        self.head = linear(backbone.width, space.vocabulary, std=0.02)

    def logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Logits of the clean codes (B, N, V), for noisy codes (B, N) at times t (B,) in 0..1."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(tokens) + self.positions], dim=1)
        out = self.backbone(sequence, vector + self.embed_time(t * NUM_TRAIN_STEPS))
        return self.head(out[:, prefix.shape[1] :]).float()

    def density(self, tokens: Tensor, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The bound's integrand over time (B, N), at least 0, for clean and noisy codes (B, N) at times t (B,).

        With the ratios r_j = q_t(j) / q_t(i) of the marginals at a noisy code i, and s_j those of the predicted ones, it is
        sum_j (s_j - r_j - r_j log(s_j / r_j)) / (V (1 - t)): the rate of every jump backwards against the true one. Its terms
        are written with expm1, since near t = 1 they are small differences of large numbers.
        """
        vocabulary, times = self.space.vocabulary, t[:, None, None]

        def log_ratios(probabilities: Tensor) -> Tensor:
            marginals = (times + (1 - times) * vocabulary * probabilities).log()  # V q_t
            return marginals - marginals.gather(2, noisy[..., None])

        predicted = log_ratios(self.logits(noisy, t, condition).softmax(2))
        true = log_ratios(F.one_hot(tokens, vocabulary).to(predicted))
        excess = predicted - true
        return (true.exp() * (excess.expm1() - excess)).sum(2) / (vocabulary * (1 - t[:, None]))

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The bound in nats per image, at one time for each; at t = 1 nothing is known, so that it has no other term.

        Times are t = u^2 for uniform u, weighted by dt / du = 2 u: the mean is that over uniform t, and its variance stays finite
        down to t = 0, where a token is seldom moved and then costs log(V / t) / t.
        """
        t = torch.rand(len(tokens), device=tokens.device).square().clamp(LEAST_TIME, 1 - LEAST_TIME)
        moved = torch.rand(tokens.shape, device=tokens.device) < t[:, None]
        anything = torch.randint(self.space.vocabulary, tokens.shape, device=tokens.device)
        return 2 * t.sqrt() * self.density(tokens, torch.where(moved, anything, tokens), t, condition).sum(1)

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        return self.negative_log_likelihood(tokens, condition) / self.space.num_tokens, {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Ancestral, at equally spaced times: q(x_s | x_t, x) with the predicted probabilities in place of x (Schiff et al. 2024,
        section 4). guidance mixes logits; temperature is that of their softmax."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature)
        guide, vocabulary = Guidance(condition, guidance), self.space.vocabulary
        shape = (len(condition), self.space.num_tokens)
        tokens = torch.randint(vocabulary, shape, generator=generator, device=self.device)
        for now, then in itertools.pairwise(1 - step / steps for step in range(steps + 1)):
            t = torch.full((len(guide.condition),), now, device=self.device)
            logits = guide.mix(self.logits(guide.double(tokens), t, guide.condition))
            marginals = then / vocabulary + (1 - then) * (logits / temperature).softmax(2)  # q_s
            kept = (1 - now) / (1 - then)  # probability that nothing happens between s and t
            here = F.one_hot(tokens, vocabulary)
            tokens = draw((marginals * ((1 - kept) / vocabulary + kept * here)).log(), 1.0, generator)
        return tokens
