"""Latent diffusion with a transformer (DiT), by flow matching or by DDPM noise prediction.

Letters: B images, N tokens, C latent channels, D width, M condition tokens.

Flow matching: x_t = (1 - t) x + t noise, and the network predicts the velocity noise - x (Lipman et al. 2023; SiT, Ma et al.
2024), or the image x, from which the velocity follows (JiT, Li & He 2025). DDPM: the network predicts the noise of 1,000 discrete
steps, and perhaps the variance, as in DiT (Peebles & Xie 2023). Time and condition modulate every block by adaLN-Zero as in DiT;
the condition is also a prefix.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_choice, check_sampling
from paradigms.embedding import TimeEmbedding, token_embedding
from paradigms.gaussian_diffusion import NUM_TRAIN_STEPS, GaussianDiffusion, SamplerName, Schedule

LEAST_TIME = 0.05
"""Of the divisor that turns a predicted image into a velocity (t_eps of Li & He 2025)."""
SAMPLERS = {"flow": ("euler", "heun"), "ddpm": ("ancestral", "probability-flow")}


class Diffusion(Paradigm):
    """Flow matching with logit-normal times and Euler sampling, unless told otherwise."""

    reads = "latents"
    loss_unit = "squared velocity error per latent value"
    default_steps = 16

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        objective: Literal["flow", "ddpm"] = "flow",
        prediction: Literal["velocity", "image"] = "velocity",
        sampler: Literal["euler", "heun", "ancestral", "probability-flow"] | None = None,
        time_shift: float = 1.0,
        schedule: Schedule = "cosine",
        learned_variance: bool = False,
        guidance_interval: Sequence[float] = (0.0, 1.0),
    ) -> None:
        """Options beside the three that every paradigm takes.

        prediction: of flow, what the network's output is; the loss is on the velocity either way. From an image it is made with a
            divisor of at least LEAST_TIME, so that the loss is (predicted - x)^2 / max(t, .05)^2.
        sampler: "euler" (default) or "heun" for flow; "ancestral" (default) or "probability-flow" for ddpm. Heun's second-order
            step costs two evaluations, the last step one (Karras et al. 2022, algorithm 1).
        time_shift: of flow, s in t -> s t / (1 + (s - 1) t); above 1 spends more time near noise (Esser et al. 2024, 5.3.2).
        schedule, learned_variance: of ddpm, see `GaussianDiffusion`.
        guidance_interval: times in 0 (data) .. 1 (noise) at which guidance acts; elsewhere the hidden branch does not run
            (Kynkäänniemi et al. 2024).
        """
        super().__init__(backbone, space, conditions)
        check_choice("objective", objective, tuple(SAMPLERS))
        check_choice("prediction", prediction, ("velocity", "image"))
        if prediction == "image" and objective != "flow":
            raise ValueError(f"prediction='image' needs objective='flow', not {objective!r}, which predicts the noise")
        sampler = sampler or ("euler" if objective == "flow" else "ancestral")
        check_choice(f"sampler of objective {objective!r}", sampler, SAMPLERS[objective])
        low, high = guidance_interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance_interval must be two ascending times in 0..1, not {tuple(guidance_interval)}")
        self.sampler, self.time_shift, self.guidance_interval = sampler, time_shift, (low, high)
        self.prediction = prediction
        self.gaussian: GaussianDiffusion | None = None
        if objective == "ddpm":
            self.gaussian = GaussianDiffusion(schedule=schedule, learned_variance=learned_variance)
            self.loss_unit = "squared noise error per latent value"
        num_outputs = self.gaussian.num_outputs(space.channels) if self.gaussian else space.channels
        self.embed_tokens = token_embedding(space, backbone.width)
        self.positions = table(space.num_tokens, backbone.width)
        self.embed_time = TimeEmbedding(256, backbone.width)
        self.head = linear(backbone.width, num_outputs, std=0)

    def predict(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicted velocity or noise (B, N, C), or (B, N, 2C) with variances, at x (B, N, C) and times t (B,) in 0..1."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(x) + self.positions], dim=1)
        out = self.backbone(sequence, vector + self.embed_time(t * NUM_TRAIN_STEPS))
        out = self.head(out[:, prefix.shape[1] :])
        return self.velocity(x, t, out.float()) if self.prediction == "image" else out

    def velocity(self, x: Tensor, t: Tensor, image: Tensor) -> Tensor:
        """The velocity (B, N, C) that leads from an image (B, N, C) through x (B, N, C) at times t (B,)."""
        return (x - image) / t.clamp_min(LEAST_TIME)[:, None, None]

    def shift_time(self, t: Tensor) -> Tensor:
        """Map uniform progress (B,) to shifted times (B,); 0 and 1 stay."""
        return self.time_shift * t / (1 + (self.time_shift - 1) * t)

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        if self.gaussian is not None:
            return self.gaussian.loss(lambda x, t: self.predict(x, t / NUM_TRAIN_STEPS, condition), tokens), {}
        t = self.shift_time(torch.sigmoid(torch.randn(len(tokens), device=tokens.device)))
        noise = torch.randn_like(tokens)
        mixed = tokens + t[:, None, None] * (noise - tokens)
        velocity = self.velocity(mixed, t, tokens) if self.prediction == "image" else noise - tokens
        error = self.predict(mixed, t, condition).float() - velocity
        return error.square().mean((1, 2)), {}

    def guided(self, x: Tensor, t: float, condition: Condition, guide: Guidance) -> Tensor:
        """The prediction (B, N, C) at time t in 0..1, guided inside the interval; variances are the conditioned branch's."""
        low, high = self.guidance_interval
        if not (guide.active and low <= t <= high):
            return self.predict(x, torch.full((len(x),), t, device=x.device), condition).float()
        out = self.predict(guide.double(x), torch.full((2 * len(x),), t, device=x.device), guide.condition).float()
        channels = self.space.channels
        return torch.cat([guide.mix(out[..., :channels]), out[: len(x), :, channels:]], dim=2)

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature scales the noise of every step (ancestral), or the initial noise."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature, None if self.gaussian is None else NUM_TRAIN_STEPS)
        guide = Guidance(condition, guidance)
        shape = (len(condition), self.space.num_tokens, self.space.channels)
        if self.gaussian is not None:
            name: SamplerName = "probability-flow" if self.sampler == "probability-flow" else "ancestral"
            times = iter([step / NUM_TRAIN_STEPS for step in reversed(self.gaussian.evaluated_steps(name, steps))])
            return self.gaussian.sample(
                lambda x, _: self.guided(x, next(times), condition, guide),
                shape,
                steps=steps,
                temperature=temperature,
                generator=generator,
                sampler=name,
            )
        x = torch.randn(shape, generator=generator, device=self.device) * temperature
        progress = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu")
        for now, then in itertools.pairwise(self.shift_time(progress).tolist()):
            slope = self.guided(x, now, condition, guide)
            if self.sampler == "heun" and then > 0:
                slope = (slope + self.guided(x + (then - now) * slope, then, condition, guide)) / 2
            x = x + (then - now) * slope
        return x


class PixelDiffusion(Diffusion):
    """The image from noisy pixels (JiT, Li & He 2025), for the tokenizer "pixels".

    A patch has more values than the network is wide, so that no layer could carry the noise that a velocity holds; images are
    simpler. The times are logit-normal around .8 with a standard deviation of 1 (theirs .8), and the sampler's steps are shifted
    alike, where theirs are even. Left out of the paper: the bottleneck embedding of patches, since a backbone that is narrower
    than a patch is one itself, and the larger noise of 512 pixels.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        space: TokenSpace,
        conditions: ConditionSpace,
        *,
        prediction: Literal["velocity", "image"] = "image",
        sampler: Literal["euler", "heun"] = "euler",
        time_shift: float = 2.2255,
        guidance_interval: Sequence[float] = (0.0, 0.9),
    ) -> None:
        """Options as of `Diffusion`, with the paper's defaults: a shift of e^.8, no guidance near pure noise."""
        super().__init__(
            backbone,
            space,
            conditions,
            prediction=prediction,
            sampler=sampler,
            time_shift=time_shift,
            guidance_interval=guidance_interval,
        )
