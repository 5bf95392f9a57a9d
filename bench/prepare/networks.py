"""`paradigm-bench prepare`: train the suite's own networks for a data set: the twin autoencoders, and what judges its images.

That is the small CLIP and the probe of a procedural world, or the classifier of a data set of images. Everything is seeded and
step-indexed, so the recipe below and the seed name the weights. Those of the procedural worlds and of the digits ship with the
package, so that numbers compare between machines; training them again elsewhere gives another hash and another protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.tokenizers import AutoencoderConfig
from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render, render_split
from bench.data.shapes_world import ShapesWorld
from bench.evaluate.classifier import Classifier
from bench.evaluate.image_judge import CLASSIFIER
from bench.evaluate.open import judge_class
from bench.evaluate.probe import CaptionProbe
from bench.evaluate.shapes_clip import ShapesCLIP, canonical_tokens
from bench.evaluate.shapes_judge import CLIP, PROBE
from bench.files import write_file
from bench.progress import Display
from bench.tokenizers.autoencoder import Autoencoder

WHITENING_BATCHES = 256
EVALUATED_IMAGES = 5000


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How the networks are trained; written into the card."""

    seed: int = 0
    autoencoder_steps: int = 14_000
    autoencoder_batch_images: int = 32
    autoencoder_learning_rate: float = 2e-3
    kl_weight: float = 1e-2
    """Times the KL divergence per pixel (nats), beside the squared error of pixels in [-1, 1]."""
    absolute_error_weight: float = 0.1
    clip_steps: int = 4_000
    clip_batch_pairs: int = 128
    clip_learning_rate: float = 1e-3
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


def _train(model: nn.Module, loss: Callable[[int], Tensor], rate: float, steps: int, progress: Progress) -> None:
    """The one optimization loop of this page: Adam on `loss(step)`."""
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
    config: AutoencoderConfig, images: Images, whitening: Iterable[Tensor], recipe: NetworkRecipe, progress: Progress
) -> Autoencoder:
    """Train one twin; mean and standard deviation of its latents are measured on the batches (B, 3, H, H) of `whitening`."""
    torch.manual_seed(recipe.seed)
    model = Autoencoder(config)
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

    _train(model, loss, recipe.autoencoder_learning_rate, recipe.autoencoder_steps, progress)
    model.eval().requires_grad_(False)
    model.measure_whitening(whitening)
    return model


def train_classifier(dataset: TokenizedImages, recipe: NetworkRecipe, progress: Progress) -> Classifier:
    """Train the classifier on the training split, images shifted by up to an eighth of their side; measure it on the evaluation
    split."""
    torch.manual_seed(recipe.seed + 3)
    model = Classifier(dataset.resolution, dataset.data.num_classes)
    shift = max(1, dataset.resolution // 8)
    read = image_batches(dataset, recipe, recipe.classifier_batch_images)

    def loss(step: int) -> Tensor:
        images, labels = read(step)
        generator = np.random.default_rng([recipe.seed, 3, step])
        padded = F.pad(images.float(), (shift,) * 4, mode="replicate").to(torch.uint8)
        down, right = generator.integers(0, 2 * shift + 1, 2)
        moved = padded[:, :, down : down + dataset.resolution, right : right + dataset.resolution]
        return F.cross_entropy(model(moved), torch.tensor(labels))

    _train(model, loss, recipe.classifier_learning_rate, recipe.classifier_steps, progress)
    model.eval().requires_grad_(False)
    training, evaluation = dataset.training_set, dataset.evaluation_set
    with dataset.pool() as pool:
        model.measure_features(torch.from_numpy(training.read(dataset.spread(training, 0, EVALUATED_IMAGES), pool.map)[0]))
        images, labels, _ = evaluation.read(dataset.spread(evaluation, 0, EVALUATED_IMAGES), pool.map)
    model.accuracy = float((model.classify(torch.from_numpy(images)).numpy() == np.array(labels)).mean())
    return model


def image_batches(dataset: TokenizedImages, recipe: NetworkRecipe, batch: int) -> Callable[[int], tuple[Tensor, list[int | str]]]:
    """Random training images (B, 3, H, H) of a step, mirrored at random where the data allows it, with their conditions."""
    pool = dataset.pool()

    def read(step: int) -> tuple[Tensor, list[int | str]]:
        generator = np.random.default_rng([recipe.seed, 4, step])
        rows = generator.choice(len(dataset.training_set), batch, replace=False)
        found, conditions, _ = dataset.training_set.read(rows, pool.map)
        images = torch.from_numpy(found)
        if dataset.data.flip:
            mirrored = torch.from_numpy(generator.random(len(images)) < 0.5)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images, conditions

    return read


def train_clip(world: ShapesWorld, recipe: NetworkRecipe, progress: Progress) -> ShapesCLIP:
    """Train the small CLIP with the symmetric contrastive loss on batches of distinct captions of every split.

    It is a measuring device, so it sees held-out combinations too: otherwise it could not score them.
    """
    torch.manual_seed(recipe.seed + 1)
    model = ShapesCLIP(world.config.resolution, world.vocabulary)
    tokens = torch.from_numpy(world.caption_tokens)
    two_objects = np.flatnonzero(world.caption_tokens[:, 3] != 0)
    batch = recipe.clip_batch_pairs

    def loss(step: int) -> Tensor:
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        generator = np.random.default_rng([recipe.seed, step])
        ids = generator.choice(two_objects, batch, replace=False)
        ids[batch // 2 :] = _hard_negatives(world, ids[: batch // 2], generator)
        ids = np.unique(ids)
        indices = np.arange(step * batch, step * batch + len(ids)) + 10_000_000
        images = torch.from_numpy(render(world, world.scenes(ids, indices, "train")))
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.encode_images(images)[1]
            read = model.encode_captions(canonical_tokens(world, tokens[ids]))
        logits = model.model.logit_scale.exp().clamp(max=100.0) * (seen.float() @ read.float().T)
        labels = torch.arange(len(ids))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    _train(model, loss, recipe.clip_learning_rate, recipe.clip_steps, progress)
    return model.eval().requires_grad_(False)


def train_probe(world: ShapesWorld, recipe: NetworkRecipe, progress: Progress) -> CaptionProbe:
    """Train the probe by cross-entropy on the words of the canonical captions, on renders of every two-object caption."""
    torch.manual_seed(recipe.seed + 2)
    tokens = canonical_tokens(world, torch.from_numpy(world.caption_tokens))
    two_objects = np.flatnonzero(world.caption_tokens[:, 3] != 0)
    model = CaptionProbe(world.config.resolution, tokens.shape[1], len(world.vocabulary))
    batch = recipe.probe_batch_images

    def loss(step: int) -> Tensor:
        ids = np.random.default_rng([recipe.seed, 2, step]).choice(two_objects, batch, replace=False)
        indices = np.arange(step * batch, (step + 1) * batch) + 20_000_000
        images = torch.from_numpy(render(world, world.scenes(ids, indices, "train")))
        return F.cross_entropy(model(images).flatten(0, 1), tokens[ids].flatten())

    _train(model, loss, recipe.probe_learning_rate, recipe.probe_steps, progress)
    return model.eval().requires_grad_(False)


def _hard_negatives(world: ShapesWorld, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each caption one that differs in one word, or in the order of its objects."""
    tokens = world.caption_tokens[ids].copy()
    lookup = {tuple(row): index for index, row in enumerate(world.caption_tokens)}
    groups = [world.config.sizes, world.config.colors, world.config.shapes]
    relations = [r.removesuffix(" of") for r in world.config.relations]
    for row in tokens:
        column = int(generator.integers(0, 8))
        if column == 7:
            row[:] = np.concatenate([row[4:], row[3:4], row[:3]])
            continue
        words = relations if column == 3 else groups[(column - (column > 3)) % 3]
        row[column] = world.vocabulary.index(str(generator.choice(list(words))))
    return np.array([lookup.get(tuple(row), ids[i]) for i, row in enumerate(tokens)])


def own_autoencoders(dataset: TokenizedData) -> tuple[str, ...]:
    """The autoencoders of a data set that the suite trains itself."""
    return tuple(name for name, config in dataset.autoencoder_configs.items() if isinstance(config, AutoencoderConfig))


def own_networks(dataset: TokenizedData) -> tuple[str, ...]:
    """All networks that the suite trains for a data set: its own autoencoders, and those of its judge."""
    return own_autoencoders(dataset) + judge_class(dataset).own_networks(dataset)


def train_networks(dataset: TokenizedData, recipe: NetworkRecipe, networks: tuple[str, ...], display: Display) -> None:
    """Train the named networks and write their weights into the dataset's folder, each file whole or not at all."""
    dataset.folder.mkdir(parents=True, exist_ok=True)
    other = {CLIP: recipe.clip_steps, PROBE: recipe.probe_steps, CLASSIFIER: recipe.classifier_steps}
    for network in networks:
        target = dataset.folder / f"{network}.safetensors"
        with display.stage(f"training {network}", other.get(network, recipe.autoencoder_steps), "steps") as update:
            write_file(target, _train_network(dataset, network, recipe, update).save)
        target.chmod(0o644)


def _train_network(dataset: TokenizedData, network: str, recipe: NetworkRecipe, update: Progress) -> Any:
    config, batch = dataset.autoencoder_configs.get(network), recipe.autoencoder_batch_images
    assert config is None or isinstance(config, AutoencoderConfig)
    if isinstance(dataset, TokenizedImages):
        if config is None:
            return train_classifier(dataset, recipe, update)
        read = image_batches(dataset, recipe, batch)
        whitening = (read(step)[0] for step in range(recipe.autoencoder_steps, recipe.autoencoder_steps + WHITENING_BATCHES))
        return train_autoencoder(config, lambda step: read(step)[0], whitening, recipe, update)
    assert isinstance(dataset, TokenizedShapes)
    world = dataset.world
    if config is None:
        return train_clip(world, recipe, update) if network == CLIP else train_probe(world, recipe, update)

    def images(step: int) -> Tensor:
        return torch.from_numpy(render_split(world, "train", np.arange(step * batch, (step + 1) * batch))[0])

    return train_autoencoder(config, images, map(images, range(WHITENING_BATCHES)), recipe, update)
