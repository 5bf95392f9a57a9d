"""MeanFlow: images in one step, by the mean velocity over an interval of time (Geng et al. 2025).

Letters: B images, N tokens, C latent channels, D width.

With x_t = (1 - t) x + t noise and the velocity v = noise - x, the network predicts u(x_t, r, t), the mean of the velocity from r
to t along the path. It obeys u = v - (t - r) du/dt, where du/dt is its derivative along the path (equation 6), which forward mode
gives beside u itself: the right side, stopped, is the target (equations 9 and 10). One step is x = noise - u(noise, 0, 1).

Left out of the paper: targets with guidance built in (section 4.2); guidance here mixes the mean velocities of both branches when
sampling, at twice the cost.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.embedding import TimeEmbedding, token_embedding

TIME_MEAN, TIME_STD = -0.4, 1.0
"""Of the logit-normal law of both times (Geng et al. 2025, table 1d; P_mean and P_std of Gsunshine/meanflow)."""
WEIGHT_FLOOR = 0.01
"""c of the adaptive weight 1 / (squared error of an image + c), with p = 1 (section 4.3; norm_eps and norm_p there)."""


class MeanFlow(Paradigm):
    """Mean velocities, learnt by the MeanFlow identity; one step unless told otherwise."""

    reads = "latents"
    loss_unit = "squared error of the mean velocity per latent value"
    default_steps = 1

    def __init__(
        self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace, *, instant_share: float = 0.75
    ) -> None:
        """instant_share: of the images, those that learn the velocity at one time (r = t), which is flow matching (table 1a)."""
        super().__init__(backbone, space, conditions)
        if not 0 <= instant_share <= 1:
            raise ValueError(f"instant_share must be between 0 and 1, not {instant_share}")
        self.instant_share = instant_share
        self.embed_tokens = token_embedding(space, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.embed_time = TimeEmbedding(256, backbone.width)
        self.embed_duration = TimeEmbedding(256, backbone.width)
        self.head = linear(backbone.width, space.channels, std=0)

    def predict(self, x: Tensor, r: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Mean velocity (B, N, C) from r to t, (B,) each in 0..1, at x (B, N, C); the network is told t and t - r (table 1c), in
        0..1 as published, where a scale of 1000 would make du/dt large."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(x) + self.positions], dim=1)
        out = self.backbone(sequence, vector + self.embed_time(t) + self.embed_duration(t - r))
        return self.head(out[:, prefix.shape[1] :])

    def draw_times(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """r <= t (B,): two draws in their order, and r = t for an `instant_share` of the images.

        The published code gives r = t to the first images of a batch; here every image draws, so that none depends on its place.
        """
        first, second = (torch.sigmoid(TIME_MEAN + TIME_STD * torch.randn(batch, device=device)) for _ in range(2))
        instant = torch.rand(batch, device=device) < self.instant_share
        t = torch.maximum(first, second)
        return torch.where(instant, t, torch.minimum(first, second)), t

    def residual(self, tokens: Tensor, noise: Tensor, r: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """u less its target v - (t - r) du/dt (B, N, C), which is stopped, at times r and t (B,).

        The derivative runs for the whole batch, where r = t without effect, so that a step costs the same in every draw.
        """
        velocity = noise - tokens
        mixed = tokens + t[:, None, None] * velocity
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels of attention have no forward-mode derivative
            derived: Any = torch.func.jvp(
                lambda x, r, t: self.predict(x, r, t, condition).float(),
                (mixed, r, t),
                (velocity, torch.zeros_like(r), torch.ones_like(t)),
            )
        mean, slope = derived
        return mean - (velocity - (t - r)[:, None, None] * slope).detach()

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error, with the gradient of the adaptively weighted one: that one divides itself by itself, so that its
        value, about 1, would say nothing of how far the training is."""
        r, t = self.draw_times(len(tokens), tokens.device)
        error = self.residual(tokens, torch.randn_like(tokens), r, t, condition).square().mean((1, 2))
        known = error.detach()
        return known + (error - known) / (known + WEIGHT_FLOOR / tokens[0].numel()), {}

    def guided(self, x: Tensor, r: float, t: float, condition: Condition, guide: Guidance) -> Tensor:
        """The mean velocity (B, N, C) from r to t in 0..1, guided."""
        rows = 2 * len(x) if guide.active else len(x)
        start, end = (torch.full((rows,), time, device=x.device) for time in (r, t))
        return guide.mix(self.predict(guide.double(x), start, end, guide.condition).float())

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Several steps divide the time evenly; temperature scales the initial noise."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        shape = (len(condition), self.space.num_tokens, self.space.channels)
        x = torch.randn(shape, generator=generator, device=self.device) * temperature
        for now, then in itertools.pairwise([1 - step / steps for step in range(steps + 1)]):
            x = x - (now - then) * self.guided(x, then, now, condition, guide)
        return x
