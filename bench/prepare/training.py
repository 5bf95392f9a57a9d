"""The one optimization loop of the suite's own networks, and the networks that every kind of world needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.tokenizers import AutoencoderConfig
from bench.evaluate.shapes_clip import ShapesCLIP
from bench.tokenizers.autoencoder import Autoencoder


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How the networks are trained; written into the card."""

    seed: int = 0
    autoencoder_steps: int = 14_000
    discrete_steps: int | None = None
    """Of a discrete twin where it begins with the continuous one's trunk; None: both are trained alike, from the start."""
    autoencoder_batch_images: int = 32
    autoencoder_learning_rate: float = 2e-3
    kl_weight: float = 1e-2
    """Times the KL divergence per pixel (nats), beside the squared error of pixels in [-1, 1]."""
    absolute_error_weight: float = 0.1
    clip_steps: int = 4_000
    clip_batch_pairs: int = 128
    clip_learning_rate: float = 1e-3
    clip_precision: Literal["bf16", "fp32"] = "bf16"
    """fp32 is 7 times as fast on a processor without units for bf16 (measured, one core of an EPYC)."""
    probe_steps: int = 3_000
    probe_batch_images: int = 64
    probe_learning_rate: float = 1e-3
    classifier_steps: int = 3_000
    classifier_batch_images: int = 64
    classifier_learning_rate: float = 2e-3


Progress = Callable[[int], None]


def _schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: int = 100) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))),
    )


def train(model: nn.Module, loss: Callable[[int], Tensor], rate: float, steps: int, progress: Progress) -> None:
    """The one optimization loop of the suite's own networks: Adam on `loss(step)`.

    Raises:
        FloatingPointError: when the loss is no finite number.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    schedule = _schedule(optimizer, steps)
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99 or step == steps - 1:
            if not torch.isfinite(value):
                raise FloatingPointError(f"loss is {float(value.detach())} at step {step}; lower the learning rate of the recipe")
            progress(step + 1)


Images = Callable[[int], Tensor]
"""Training images (B, 3, H, H) uint8 of a step."""


def train_autoencoder(
    config: AutoencoderConfig,
    images: Images,
    whitening: Iterable[Tensor],
    recipe: NetworkRecipe,
    progress: Progress,
    trunk: Autoencoder | None = None,
) -> Autoencoder:
    """Train one twin; mean and standard deviation of its latents are measured on the batches (B, 3, H, H) of `whitening`.

    With a trunk, all weights but those next to the bottleneck begin with the other twin's.
    """
    torch.manual_seed(recipe.seed)
    model = Autoencoder(config)
    if trunk is not None:
        own = model.state_dict()
        model.load_state_dict({**own, **{k: v for k, v in trunk.state_dict().items() if k in own and v.shape == own[k].shape}})
    steps = recipe.autoencoder_steps if trunk is None else recipe.discrete_steps or recipe.autoencoder_steps
    num_pixels = 3 * config.resolution**2

    def loss(step: int) -> Tensor:
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        pixels = images(step)
        raw = model.encode_raw(pixels)
        penalty = torch.zeros(())
        if model.quantizer is None:
            mean, log_variance = raw.chunk(2, dim=2)
            log_variance = log_variance.clamp(-20.0, 10.0)
            latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean()
            penalty = recipe.kl_weight * divergence / num_pixels
        else:
            latents = model.quantizer(raw)[0]
        difference = model.decode_raw(latents) - (pixels.float() / 127.5 - 1.0)
        return difference.square().mean() + recipe.absolute_error_weight * difference.abs().mean() + penalty

    train(model, loss, recipe.autoencoder_learning_rate, steps, progress)
    model.eval().requires_grad_(False)
    model.measure_whitening(whitening)
    return model


Pairs = Callable[[int], tuple[Tensor, Tensor]]
"""Images (B, 3, H, H) uint8 and their canonical caption tokens (B, W) of a step, all different."""


def train_clip(model: ShapesCLIP, pairs: Pairs, recipe: NetworkRecipe, progress: Progress) -> ShapesCLIP:
    """Train the small CLIP with the symmetric contrastive loss on batches of distinct captions.

    It is a measuring device, so it sees held-out combinations too: otherwise it could not score them.
    """

    def loss(step: int) -> Tensor:
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        images, tokens = pairs(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.clip_precision == "bf16"):
            seen = model.encode_images(images)[1]
            read = model.encode_captions(tokens)
        logits = model.model.logit_scale.exp().clamp(max=100.0) * (seen.float() @ read.float().T)
        labels = torch.arange(len(tokens))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    train(model, loss, recipe.clip_learning_rate, recipe.clip_steps, progress)
    return model.eval().requires_grad_(False)
