"""Gaussian diffusion over 1,000 training steps: noise schedules, the loss, the ancestral sampler (DDPM) and the probability flow.

Letters: R rows, each a token or an image's tokens; C channels, the last axis.

Ho et al. 2020; cosine schedule and learned variance of Nichol & Dhariwal 2021; velocity prediction of Salimans & Ho 2022,
appendix D. It knows no network: `predict(x, t)` takes noisy rows (R, ..., C) and steps t (R,) int64 and returns
(R, ..., C), or (R, ..., 2C) with the variance's interpolation beside the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from bench.paradigm import check_choice
from paradigms.probability_flow import flow_steps, follow

NUM_TRAIN_STEPS = 1000
"""Ho et al. 2020, section 4; Li et al. 2024, section 4."""
Schedule = Literal["cosine", "linear"]
Prediction = Literal["noise", "velocity"]
SamplerName = Literal["ancestral", "probability-flow"]
SAMPLERS = ("ancestral", "probability-flow")
FLOW_BEGINS = 30.0
"""Noise over signal where the flow of a network that predicts noise begins: the clean estimate multiplies an error of the noise
by it, and nothing later takes that back. Measured on a mixture with 15 steps: Wasserstein distance .333 from the last step on,
.105 from 80, .063 from 30, .049 from 10 (docs/log.md); means are off by a thirtieth of themselves at most."""
Predict = Callable[[Tensor, Tensor], Tensor]
"""Noisy rows (R, ...) and steps, (R,) or one for all (1,), to the network's output."""


def signal_share(schedule: Schedule, noise_shift: float = 1.0) -> Tensor:
    """Cumulative signal share abar after each training step, (1000,) float64.

    "cosine" with beta at most 0.999 (Nichol & Dhariwal 2021, equation 17); "linear" with beta from 1e-4 to 0.02 (Ho et al.
    2020, section 4). noise_shift s divides every signal-to-noise ratio by s^2 (Hoogeboom et al. 2023, section 3.1): a token
    of many redundant channels is recognizable through more noise than one channel is.
    """
    if schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, NUM_TRAIN_STEPS, dtype=torch.float64)
    else:
        edges = torch.linspace(0, 1, NUM_TRAIN_STEPS + 1, dtype=torch.float64)
        law = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - law[1:] / law[:-1]).clamp(max=0.999)
    abar = (1 - beta).cumprod(0)
    return abar / (abar + noise_shift**2 * (1 - abar))


@cache
def sampling_schedule(schedule: Schedule, noise_shift: float) -> tuple[float, ...]:
    """`signal_share` as Python numbers: on a GPU, reading them from a buffer would wait for it."""
    with torch.device("cpu"):  # a plan builds the network on meta tensors, which hold no numbers
        return tuple(signal_share(schedule, noise_shift).tolist())


def respaced_steps(steps: int) -> list[int]:
    """Evenly spaced training steps from 0 to the last, ascending.

    Raises:
        ValueError: when steps is not in 2..1000.
    """
    if not 2 <= steps <= NUM_TRAIN_STEPS:
        raise ValueError(f"diffusion steps must be 2 to {NUM_TRAIN_STEPS}, not {steps}")
    return [round(i * (NUM_TRAIN_STEPS - 1) / (steps - 1)) for i in range(steps)]


class GaussianDiffusion(nn.Module):
    """A noise schedule and what the network predicts."""

    abar: Tensor

    def __init__(
        self,
        *,
        schedule: Schedule = "cosine",
        prediction: Prediction = "noise",
        learned_variance: bool = False,
        noise_shift: float = 1.0,
    ) -> None:
        """learned_variance: the network interpolates the variance between its two bounds and the loss adds the variational
        bound in bits, with the mean detached (Nichol & Dhariwal 2021, sections 3.1 and 3.2; always on in the MAR code)."""
        super().__init__()
        check_choice("schedule", schedule, ("cosine", "linear"))
        check_choice("prediction", prediction, ("noise", "velocity"))
        self.schedule: Schedule = schedule
        self.prediction: Prediction = prediction
        self.learned_variance, self.noise_shift = learned_variance, noise_shift
        self.register_buffer("abar", signal_share(schedule, noise_shift).float(), persistent=False)

    def num_outputs(self, channels: int) -> int:
        """Values that the network gives per row."""
        return 2 * channels if self.learned_variance else channels

    def loss(self, predict: Predict, clean: Tensor, draws: int = 1) -> Tensor:
        """Squared error of the prediction per row (R,) for clean rows (R, ..., C), plus the bound when variance is learned.

        Averaged over `draws` of noise and time, which `predict` gets in one batch, draw after draw.
        """
        rows, axes = len(clean), tuple(range(1, clean.ndim))
        t = torch.cat([torch.randint(NUM_TRAIN_STEPS, (rows,), device=clean.device) for _ in range(draws)])
        noise = torch.cat([torch.randn_like(clean) for _ in range(draws)])
        clean = torch.cat([clean] * draws)
        abar = self.abar[t].view(-1, *[1] * len(axes))
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        truth = noise if self.prediction == "noise" else abar.sqrt() * noise - (1 - abar).sqrt() * clean
        out = predict(noisy, t).float()
        mean, rest = out[..., : clean.shape[-1]], out[..., clean.shape[-1] :]
        error = (mean - truth).square().mean(axes)
        if not self.learned_variance:
            return error.view(draws, rows).mean(0)
        previous = torch.where(t > 0, self.abar[(t - 1).clamp(min=0)], 1.0).view_as(abar)
        bound = self._bound(clean, noisy, mean.detach(), rest, abar, previous, first=(t == 0)).mean(axes)
        return (error + bound).view(draws, rows).mean(0)

    def clean_estimate(self, x: Tensor, out: Tensor, abar: Tensor | float) -> Tensor:
        """The clean rows (R, C) that a prediction (R, C) means."""
        abar = torch.as_tensor(abar, dtype=x.dtype, device=x.device)
        if self.prediction == "noise":
            return (x - (1 - abar).sqrt() * out) / abar.sqrt()
        return abar.sqrt() * x - (1 - abar).sqrt() * out

    def _bound(
        self, clean: Tensor, noisy: Tensor, mean: Tensor, rest: Tensor, abar: Tensor, previous: Tensor, first: Tensor
    ) -> Tensor:
        """The variational bound's term of each value, in bits: KL of the posterior, or the decoder's likelihood at the first
        step, which discretizes [-1, 1] into 255 bins as the DiT and MAR code do, although latents are no pixels."""
        beta = 1 - abar / previous
        shrink = (1 - previous) / (1 - abar)
        least = torch.where(previous < 1, beta * shrink, self._first_variance).log()
        log_variance = _interpolate(rest, beta.log(), least)
        from_clean, from_noisy = previous.sqrt() * beta / (1 - abar), (1 - beta).sqrt() * shrink
        true = from_clean * clean + from_noisy * noisy
        model = from_clean * self.clean_estimate(noisy, mean, abar) + from_noisy * noisy
        distance = 0.5 * (log_variance - least - 1 + (least - log_variance).exp() + (true - model) ** 2 * (-log_variance).exp())
        likelihood = _discretized_log_likelihood(clean, model, 0.5 * log_variance)
        return torch.where(first.view_as(abar), -likelihood, distance) / math.log(2)

    @property
    def _first_variance(self) -> float:
        """The posterior variance of step 1, which stands in for that of step 0, zero."""
        zero, one = sampling_schedule(self.schedule, self.noise_shift)[:2]
        return (1 - one / zero) * (1 - zero) / (1 - one)

    def evaluated_steps(self, sampler: SamplerName, steps: int) -> list[int]:
        """The training steps at which a sampler evaluates the network, ascending.

        Raises:
            ValueError: when there are not so many, or fewer than 2 are asked for.
        """
        kept = respaced_steps(steps)
        if sampler == "ancestral":
            return kept
        law = sampling_schedule(self.schedule, self.noise_shift)
        if self.prediction == "noise":
            law = tuple(abar for abar in law if 1 - abar <= FLOW_BEGINS**2 * abar)
        if steps > len(law):
            raise ValueError(f"the probability flow of noise has at most {len(law)} steps here, not {steps}")
        return flow_steps(law, steps)

    def sample(
        self,
        predict: Predict,
        shape: tuple[int, ...],
        *,
        steps: int,
        temperature: float,
        generator: torch.Generator,
        sampler: SamplerName = "ancestral",
        clip: float | None = None,
    ) -> Tensor:
        """Draw rows of `shape` in `steps` evaluations of the network.

        sampler: "ancestral", on respaced steps. Temperature multiplies the noise of every step but not the initial one, and the
            last step adds none (as in the MAR code). Without a learned variance few steps draw too little of it, since the
            posterior's lower bound leaves out what the network cannot know of the clean row: a hidden temperature.
            "probability-flow" draws what the network learned, with few steps too. Temperature multiplies the initial noise, the
            only one, so that a Gaussian's deviation is multiplied by it.
        clip: limits the estimated clean row to [-clip, clip]: near pure noise an error of the predicted noise is multiplied by
            1 / sqrt(abar), up to 20,000.

        Raises:
            ValueError: for a number of steps that `evaluated_steps` refuses.
        """
        kept, law = self.evaluated_steps(sampler, steps), sampling_schedule(self.schedule, self.noise_shift)
        device = self.abar.device
        x = torch.randn(shape, generator=generator, device=device)

        def evaluate(x: Tensor, index: int) -> tuple[Tensor, Tensor]:
            """The estimated clean rows, and what the network says of the variance."""
            out = predict(x, torch.full((1,), kept[index], device=device)).float()  # one time for all rows
            clean = self.clean_estimate(x, out[..., : shape[-1]], law[kept[index]])
            return clean if clip is None else clean.clamp(-clip, clip), out[..., shape[-1] :]

        if sampler == "probability-flow":
            return follow(lambda x, index: evaluate(x, index)[0], temperature * x, [law[step] for step in kept])
        for index in reversed(range(steps)):
            abar, previous = law[kept[index]], law[kept[index - 1]] if index else 1.0
            estimate, rest = evaluate(x, index)
            beta = 1 - abar / previous
            x = (math.sqrt(previous) * beta * estimate + math.sqrt(1 - beta) * (1 - previous) * x) / (1 - abar)
            if index:
                least = beta * (1 - previous) / (1 - abar)
                spread: Tensor | float = math.sqrt(least)
                if self.learned_variance:
                    spread = (0.5 * _interpolate(rest, math.log(beta), math.log(least))).exp()
                x = x + temperature * spread * torch.randn(shape, generator=generator, device=device)
        return x


def _interpolate(rest: Tensor, most: Tensor | float, least: Tensor | float) -> Tensor:
    """Log-variance between its bounds for outputs -1..1 (Nichol & Dhariwal 2021, equation 15)."""
    share = (rest + 1) / 2
    return share * most + (1 - share) * least


def _discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-probability of x's bin of width 2/255 in [-1, 1] under a Gaussian (Ho et al. 2020, section 3.3)."""

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(z / math.sqrt(2)))

    inverse, centered = (-log_std).exp(), x - mean
    upper, lower = cdf(inverse * (centered + 1 / 255)), cdf(inverse * (centered - 1 / 255))
    inside = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return inside.clamp(min=1e-12).log()
