"""Diffusion Loss: a small per-token denoising MLP in place of a softmax (Li et al. 2024, section 3.2).

Letters: R rows (tokens), C token channels, D condition width, W MLP width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import linear, modulate
from bench.conditioning import mix_branches
from bench.graphs import Replayed, replays
from bench.paradigm import TokenSpace, check_choice
from paradigms.embedding import TimeEmbedding
from paradigms.gaussian_diffusion import SAMPLERS, GaussianDiffusion, Prediction, SamplerName
from paradigms.token_head import TokenHead

LEAST_REPLAYED = 8
"""Steps from which a graph of the network repays the two calls that capture it; not measured."""


class HeadBlock(nn.Module):
    """x + gate * (Linear, SiLU, Linear)(LN(x) (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(linear(width, width), nn.SiLU(), linear(width, width))
        self.modulation = linear(width, 3 * width, std=0)

    def forward(self, x: Tensor, condition: Tensor, shift_factor: float = 1.0) -> Tensor:
        """Rows (R, W) and their condition (R, W) to (R, W); the factor on the shift is the energy head's temperature."""
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        if shift_factor != 1.0:
            shift = shift_factor * shift
        return x + gate * self.mlp(modulate(self.norm(x), shift, scale))


class DiffusionLoss(TokenHead):
    """p(token | condition vector) as a conditional diffusion model with the cosine schedule."""

    reads = "latents"
    loss_unit = "squared prediction error per latent value"

    def __init__(
        self,
        space: TokenSpace,
        condition_width: int,
        *,
        width: int = 1024,
        relative_width: float | None = None,
        depth: int = 3,
        multiplier: int = 4,
        steps: int = 100,
        sampler: SamplerName = "ancestral",
        condition_at_input: bool = False,
        time_features: int = 256,
        prediction: Prediction = "noise",
        learned_variance: bool = False,
        noise_shift: float = 1.0,
        clip: float | None = None,
    ) -> None:
        """Options of the head; the defaults are those of the paper.

        width, depth: of the MLP.
        relative_width: the MLP's width as a multiple of the condition's, in place of `width`: a head that grows with the model
            (1.0 to 1.33 in the published sizes, Li et al. 2024, appendix B).
        multiplier: noise draws per token and training step.
        steps: evaluations of the MLP per token.
        sampler: "ancestral" as published, or "probability-flow", which draws the learned spread with few steps; see
            `GaussianDiffusion.sample`.
        condition_at_input: add the condition to the MLP's input too (published: through adaLN alone).
        prediction, learned_variance, noise_shift: see `GaussianDiffusion`.
        clip: limit on the estimated clean token while sampling, none as published.
        """
        super().__init__()
        check_choice("sampler", sampler, SAMPLERS)
        if relative_width is not None:
            width = round(relative_width * condition_width)
        self.channels, self.multiplier, self.condition_at_input = space.channels, multiplier, condition_at_input
        self.steps, self.sampler, self.clip = steps, sampler, clip
        self.diffusion = GaussianDiffusion(prediction=prediction, learned_variance=learned_variance, noise_shift=noise_shift)
        self.diffusion.evaluated_steps(sampler, steps)
        self.embed_token = linear(space.channels, width)
        self.embed_condition = linear(condition_width, width)
        self.embed_time = TimeEmbedding(time_features, width)
        self.blocks = nn.ModuleList(HeadBlock(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.final_modulation = linear(width, 2 * width, std=0)
        self.out = linear(width, self.diffusion.num_outputs(space.channels), std=0)
        self._replayed = Replayed(self.predict, self)

    def predict(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The network's output (R, C), or (R, 2C) with variances, for noisy tokens x (R, C) at steps t (R,) or (1,), given
        embedded conditions (R, W)."""
        vector = F.silu(condition + self.embed_time(t))
        x = self.embed_token(x)
        if self.condition_at_input:
            x = x + condition
        for block in self.blocks:
            x = block(x, vector)
        shift, scale = self.final_modulation(vector).chunk(2, dim=-1)
        return self.out(modulate(self.final_norm(x), shift, scale))

    def loss(self, condition: Tensor, target: Tensor) -> Tensor:
        """Averaged over `multiplier` draws of noise and time."""
        embedded = self.embed_condition(condition).repeat(self.multiplier, 1)
        return self.diffusion.loss(lambda x, t: self.predict(x, t, embedded), target, self.multiplier)

    def sample(self, condition: Tensor, *, temperature: float, guidance: float, generator: torch.Generator) -> Tensor:
        """Guidance acts on the prediction, which is the same for noise and velocity; a learned variance is the conditioned
        branch's."""
        embedded = self.embed_condition(condition)
        guided = guidance != 1.0
        network = self._replayed if self.steps >= LEAST_REPLAYED and replays(condition.device) else self.predict

        def predict(x: Tensor, t: Tensor) -> Tensor:
            if not guided:
                return network(x, t, embedded)
            out = network(torch.cat([x, x]), t, embedded)
            mean = mix_branches(out[:, : self.channels], guidance)
            return torch.cat([mean, out[: len(mean), self.channels :].float()], dim=1)

        rows = len(embedded) // 2 if guided else len(embedded)
        return self.diffusion.sample(
            predict,
            (rows, self.channels),
            steps=self.steps,
            temperature=temperature,
            generator=generator,
            sampler=self.sampler,
            clip=self.clip,
        )
