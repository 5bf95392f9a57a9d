"""`paradigm-bench prepare`: train the suite's own networks for a data set: the twin autoencoders, and what judges its images.

That is the small CLIP and the probe of a procedural world, or the classifier of a data set of images. Everything is seeded and
step-indexed, so the recipe below and the seed name the weights. Those of the procedural worlds and of the digits ship with the
package, so that numbers compare between machines; training them again elsewhere gives another hash and another protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.tokenizers import AutoencoderConfig
from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import TokenizedShapes
from bench.data.sprites_data import SHARED_NETWORKS, TokenizedSprites
from bench.evaluate.classifier import Classifier
from bench.evaluate.image_networks import CLASSIFIER
from bench.evaluate.open import judge_class
from bench.evaluate.world_judge import CLIP, PROBE
from bench.files import write_file
from bench.prepare import shapes_networks, sprites_networks
from bench.prepare.training import NetworkRecipe, Progress, train, train_autoencoder
from bench.progress import Display

WHITENING_BATCHES = 256
EVALUATED_IMAGES = 5000


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

    train(model, loss, recipe.classifier_learning_rate, recipe.classifier_steps, progress)
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


def own_autoencoders(dataset: TokenizedData) -> tuple[str, ...]:
    """The autoencoders of a data set that the suite trains itself."""
    return tuple(name for name, config in dataset.autoencoder_configs.items() if isinstance(config, AutoencoderConfig))


def own_networks(dataset: TokenizedData) -> tuple[str, ...]:
    """All networks that the suite trains for a data set: its own autoencoders, and those of its judge."""
    return own_autoencoders(dataset) + judge_class(dataset).own_networks(dataset)


def recipe_of(dataset: TokenizedData) -> NetworkRecipe:
    """How the networks of a data set are trained."""
    return sprites_networks.RECIPE if isinstance(dataset, TokenizedSprites) else NetworkRecipe()


def missing_networks(dataset: TokenizedData) -> tuple[str, ...]:
    """What `paradigm-bench prepare` trains unless told otherwise: all networks but those that another level has brought."""
    shared = SHARED_NETWORKS if isinstance(dataset, TokenizedSprites) else ()
    return tuple(name for name in own_networks(dataset) if name not in shared or not dataset.hash(name))


def train_networks(dataset: TokenizedData, recipe: NetworkRecipe, networks: tuple[str, ...], display: Display) -> None:
    """Train the named networks and write their weights where the dataset looks for them, each file whole or not at all."""
    discrete = recipe.discrete_steps or recipe.autoencoder_steps
    other = {CLIP: recipe.clip_steps, PROBE: recipe.probe_steps, CLASSIFIER: recipe.classifier_steps}
    other |= dict.fromkeys(("autoencoder-fsq", "autoencoder-scales"), discrete)
    for network in networks:
        target = dataset.weights_file(network)
        target.parent.mkdir(parents=True, exist_ok=True)
        with display.stage(f"training {network}", other.get(network, recipe.autoencoder_steps), "steps") as update:
            write_file(target, _train_network(dataset, network, recipe, update).save)
        target.chmod(0o644)


def _train_network(dataset: TokenizedData, network: str, recipe: NetworkRecipe, update: Progress) -> Any:
    if isinstance(dataset, TokenizedSprites):
        return sprites_networks.train_network(dataset, network, recipe, update, WHITENING_BATCHES)
    config, batch = dataset.autoencoder_configs.get(network), recipe.autoencoder_batch_images
    assert config is None or isinstance(config, AutoencoderConfig)
    if isinstance(dataset, TokenizedImages):
        if config is None:
            return train_classifier(dataset, recipe, update)
        read = image_batches(dataset, recipe, batch)
        whitening = (read(step)[0] for step in range(recipe.autoencoder_steps, recipe.autoencoder_steps + WHITENING_BATCHES))
        return train_autoencoder(config, lambda step: read(step)[0], whitening, recipe, update)
    assert isinstance(dataset, TokenizedShapes)
    if config is None:
        make = shapes_networks.shapes_clip if network == CLIP else shapes_networks.train_probe
        return make(dataset.world, recipe, update)
    images = shapes_networks.renders(dataset.world, batch)
    return train_autoencoder(config, images, map(images, range(WHITENING_BATCHES)), recipe, update)
