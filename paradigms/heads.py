"""Heads: what a token is modelled with, given the backbone's output at its place.

Letters: R rows (tokens), D width, C latent channels, V codes, K mixture components.

Cross-entropy for codes; for latents Diffusion Loss (`diffusion_loss.py`), the energy score (`energy_head.py`), a Gaussian mixture
(GIVT, Tschannen et al. 2023) and the squared error that Li et al. 2024 name as the naive baseline. A head knows nothing of
sequences, orders or images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone import linear
from bench.conditioning import mix_branches
from bench.paradigm import TokenSpace
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.energy_head import EnergyHead
from paradigms.sampling import draw
from paradigms.token_head import TokenHead


class CrossEntropy(TokenHead):
    """A softmax over codes."""

    reads = "codes"
    loss_unit = "nats per token"

    def __init__(
        self, space: TokenSpace, width: int, *, label_smoothing: float = 0.0, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        """label_smoothing: share of the target spread over all codes; top_k, top_p: the codes that may be drawn, the k
        likeliest, or the fewest that hold the probability p (Holtzman et al. 2020)."""
        super().__init__()
        if top_k is not None and not 1 <= top_k <= space.vocabulary:
            raise ValueError(f"top_k must be 1 to {space.vocabulary} (the number of codes), not {top_k}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, not {label_smoothing}")
        self.label_smoothing, self.top_k, self.top_p = label_smoothing, top_k, top_p
        self.logits = linear(width, space.vocabulary, std=0.02)

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(condition).float(), target, reduction="none", label_smoothing=self.label_smoothing)

    def negative_log_likelihood(self, condition: Tensor, target: Tensor) -> Tensor:
        """-log p per row (R,), in nats, for vectors (R, D) and codes (R,): the loss without label smoothing."""
        return F.cross_entropy(self.logits(condition).float(), target, reduction="none")

    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        return self.draw(mix_branches(self.logits(condition).float(), guidance), temperature, generator)

    def draw(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """One code per row of guided logits (..., V)."""
        return draw(logits, temperature, generator, top_k=self.top_k, top_p=self.top_p)


class SquaredError(TokenHead):
    """The mean alone: no diversity beyond that of the order, and expected to fail (Li et al. 2024 report FID above 100)."""

    reads = "latents"
    loss_unit = "squared error per latent value"

    def __init__(self, space: TokenSpace, width: int) -> None:
        super().__init__()
        self.mean = linear(width, space.channels, std=0)

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        return (self.mean(condition).float() - target).square().mean(1)

    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        """Temperature and generator change nothing."""
        return mix_branches(self.mean(condition).float(), guidance)


class GaussianMixture(TokenHead):
    """A mixture of K Gaussians with diagonal covariance per token (GIVT, Tschannen et al. 2023, section 3.2)."""

    reads = "latents"
    loss_unit = "nats per latent value"

    def __init__(
        self, space: TokenSpace, width: int, *, components: int = 16, std_minimum: float = 1e-2, candidates: int = 64
    ) -> None:
        """Options of the mixture.

        components: K; 16 is the paper's.
        std_minimum: least standard deviation of a component, in units of the whitened latents.
        candidates: with guidance s, tokens are resampled from this many draws of the conditioned mixture by the weight
            (p_conditioned / p_hidden)^(s - 1): importance sampling of the density that the paper's rejection sampler targets.
        """
        super().__init__()
        self.channels, self.components = space.channels, components
        self.std_minimum, self.candidates = std_minimum, candidates
        self.out = linear(width, components * (1 + 2 * space.channels), std=0.02)
        with torch.no_grad():  # components that begin apart can specialize
            self.out.bias[components : components * (1 + space.channels)].normal_()

    def mixture(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (R, K), means and standard deviations (R, K, C)."""
        k, c = self.components, self.channels
        logits, means, raw = self.out(condition).float().split([k, k * c, k * c], dim=1)
        std = F.softplus(raw + math.log(math.e - 1)) + self.std_minimum  # 1 where raw is 0
        return logits.log_softmax(1), means.unflatten(1, (k, c)), std.unflatten(1, (k, c))

    @staticmethod
    def log_density(mixture: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        """Log-density (..., R) of tokens (..., R, C)."""
        weights, means, std = mixture
        z = (x[..., None, :] - means) / std
        parts = weights - (0.5 * z.square() + std.log()).sum(-1) - 0.5 * means.shape[-1] * math.log(2 * math.pi)
        largest = parts.max(-1, keepdim=True)[0].detach()
        return (parts - largest).exp().sum(-1).log() + largest[..., 0]

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood per latent value; it is below 0 where the density is above 1."""
        return -self.log_density(self.mixture(condition), target) / self.channels

    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        """Temperature multiplies the standard deviation of the drawn component."""
        weights, means, std = self.mixture(condition)
        rows = len(weights) if guidance == 1.0 else len(weights) // 2
        conditioned = (weights[:rows], means[:rows], std[:rows] * temperature)
        if guidance == 1.0:
            return self._draw(conditioned, generator)
        drawn = torch.stack([self._draw(conditioned, generator) for _ in range(self.candidates)])
        hidden = (weights[rows:], means[rows:], std[rows:] * temperature)
        gain = (guidance - 1) * (self.log_density(conditioned, drawn) - self.log_density(hidden, drawn))
        choice = draw(gain.T, 1.0, generator)
        return drawn[choice, torch.arange(rows, device=drawn.device)]

    def _draw(self, mixture: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> Tensor:
        weights, means, std = mixture
        component = draw(weights, 1.0, generator)[:, None, None].expand(-1, 1, self.channels)
        mean, spread = means.gather(1, component)[:, 0], std.gather(1, component)[:, 0]
        return mean + spread * torch.randn(mean.shape, generator=generator, device=mean.device)


def make_head(name: str, space: TokenSpace, width: int, options: Mapping[str, Any]) -> TokenHead:
    """Build the named head.

    Raises:
        ValueError: for an unknown head, or one that reads the other kind of tokens.
        TypeError: for options that it does not take.
    """
    heads: dict[str, type[TokenHead]] = {
        "cross-entropy": CrossEntropy,
        "diffusion": DiffusionLoss,
        "squared-error": SquaredError,
        "mixture": GaussianMixture,
        "energy": EnergyHead,
    }
    fitting = [key for key, head in heads.items() if head.reads == space.kind]
    if name not in fitting:
        wrong = f"reads {heads[name].reads}, not {space.kind}" if name in heads else "is unknown"
        raise ValueError(f"head {name!r} {wrong}; for {space.kind} use {', '.join(fitting)}")
    return heads[name](space, width, **options)
