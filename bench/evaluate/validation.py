"""The validation loss of a trained network: its own loss on images that no run has seen, with fixed noise, masks and times.

Letters: B images of a batch, n images.

It is smooth long before the first picture is right and costs a few forward passes, so that the best size at a budget is read
from it. Images and draws are functions of the image's index alone: the same for every run of a method. Losses of two methods do
not compare; likelihoods of methods that read the same codes do, in bits per image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.conditioning import Condition
from bench.data.base import TokenizedData
from bench.data.latents import Encoded, posterior_draw
from bench.evaluate.even_draws import EvenDraws
from bench.flops.evaluation import VALIDATION_BATCH
from bench.paradigm import Paradigm
from bench.randomness import seed_draws, step_seed

NOISE_SEED = 0


class ValidationImages:
    """Images that no run trains on, as a tokenizer reads them; each batch is encoded at its first use and kept."""

    def __init__(self, dataset: TokenizedData, tokenizer: str, num_training_images: int) -> None:
        self.available, self._encode = dataset.validation_encoder(tokenizer, num_training_images)
        self._batches: dict[int, Encoded] = {}

    def batch(self, index: int) -> tuple[Tensor, Condition]:
        """Tokens (B, N, C) or (B, N), latents drawn from their posterior, and the images' conditions."""
        if index not in self._batches:
            self._batches[index] = self._encode(range(index * VALIDATION_BATCH, (index + 1) * VALIDATION_BATCH))
        found = self._batches[index]
        condition = found.condition
        kind = torch.float32 if condition.dtype.kind == "f" else torch.int64
        generator = torch.Generator().manual_seed(step_seed(NOISE_SEED, index, "posterior"))
        features = None if found.features is None else torch.from_numpy(found.features[:, 0]).float()
        return posterior_draw(found.tokens[:, 0], generator), Condition.of(torch.from_numpy(condition).to(kind), features)


@torch.no_grad()
def per_image(
    paradigm: Paradigm, images: ValidationImages, num: int, *, bits: bool, noise_seed: int = NOISE_SEED
) -> Tensor | None:
    """The loss of the first validation images (n,), or with `bits` their negative log-likelihood in bits; float64.

    Returns None for a paradigm without a likelihood, and where there are too few images for a batch.

    Args:
        num: images wanted; there may be fewer.
        noise_seed: of noise, masks and times; the table's are those of NOISE_SEED.

    Raises:
        ValueError: for a likelihood of another shape, or one that is negative or not finite.
    """
    device, parts = paradigm.device, []
    with torch.random.fork_rng(["cuda"] if device.type == "cuda" else []):
        for index in range(min(num, images.available) // VALIDATION_BATCH):
            tokens, condition = images.batch(index)
            tokens, condition = tokens.to(device), condition.to(device)
            seed_draws(step_seed(noise_seed, index, "loss"), device)
            with EvenDraws(len(tokens), index, noise_seed):
                values = checked_nats(paradigm, tokens, condition) if bits else paradigm.loss(tokens, condition)[0]
            if values is None:
                return None
            parts.append(values.double().cpu())
    if not parts:
        return None
    found = torch.cat(parts)
    return found / math.log(2) if bits else found


def checked_nats(paradigm: Paradigm, tokens: Tensor, condition: Condition) -> Tensor | None:
    """The paradigm's negative log-likelihood (B,) of codes (B, N), or None.

    Raises:
        ValueError: when it is no number of nats per image.
    """
    nats = paradigm.negative_log_likelihood(tokens, condition)
    if nats is None:
        return None
    what = f"negative_log_likelihood of {type(paradigm).__name__}"
    if paradigm.reads != "codes":
        raise ValueError(f"{what} must be None: densities of latents do not compare with anything")
    if nats.shape != (len(tokens),):
        raise ValueError(f"{what} has shape {tuple(nats.shape)}; one value per image is ({len(tokens)},)")
    if not (torch.isfinite(nats) & (nats >= 0)).all():
        raise ValueError(f"{what} must be finite and at least 0: codes have no probability above 1")
    return nats


def validation_columns(paradigm: Paradigm, images: ValidationImages, num: int, *, likelihood: bool) -> dict[str, Any]:
    """Columns of the table: mean loss with its standard error over images, and with `likelihood` bits per image where known.

    Empty where there are no images that training leaves out.
    """
    row: dict[str, Any] = {}
    for name, bits in (("validation_loss", False), ("validation_bits", True))[: 1 + likelihood]:
        found = per_image(paradigm, images, num, bits=bits)
        if found is not None:
            row |= {name: float(found.mean()), f"{name}_se": float(found.std() / math.sqrt(len(found)))}
            row["validation_images"] = len(found)
    return row
