"""How the networks of the sprites world are trained: twins and probe on sheets that serve all levels, a CLIP for each level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.config.tokenizers import AutoencoderConfig
from bench.data.sprites_config import SPRITES80, Captions
from bench.data.sprites_data import TokenizedSprites, autoencoder_config
from bench.data.sprites_render import render, render_captions, sheets
from bench.data.sprites_world import SpriteSplit, SpritesWorld
from bench.evaluate.shapes_clip import ShapesCLIP
from bench.evaluate.sprites_probe import FieldProbe
from bench.evaluate.world_judge import CLIP
from bench.prepare.broken_sprites import one_word_changed, swapped
from bench.prepare.training import Images, NetworkRecipe, Progress, train, train_autoencoder, train_clip
from bench.tokenizers.autoencoder import Autoencoder

SHEET = SpritesWorld(SPRITES80)
"""Sheets of 4 x 4 fields: each position of a field, at a corner, an edge or inside, occurs."""
OCCUPIED_SHARE = 0.75
"""Of the fields of the sheets that the twins and the probe learn from."""
WHITENING_SHARE = 0.3
"""Of the fields of the sheets on which the latents' mean and deviation are measured: between levels 1 (.44) and 2 (.16)."""
CONTINUOUS = "autoencoder-kl"
"""The twin that is trained first; the discrete ones begin with its trunk."""
CLIP_HIDDEN = 128
CLIP_SPLITS: tuple[SpriteSplit, ...] = ("train", "held_out", "uniform")
RECIPE = NetworkRecipe(
    autoencoder_steps=7_000,
    discrete_steps=12_000,
    autoencoder_batch_images=8,
    autoencoder_learning_rate=3e-3,
    clip_steps=6_000,
    clip_batch_pairs=64,
    clip_precision="fp32",
    probe_steps=1_200,
    probe_batch_images=16,
)


class HalfPrecision:
    """A network that is written with its weights in float16: half of the room in the repository."""

    def __init__(self, model: Autoencoder | ShapesCLIP | FieldProbe) -> None:
        self.model = model

    def save(self, path: Path) -> None:
        """Write the network's own file again with every weight rounded."""
        self.model.save(path)
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        weights = {name: w.half() if w.is_floating_point() else w for name, w in load_file(path).items()}
        save_file(weights, path, metadata=about)


def train_network(
    dataset: TokenizedSprites, network: str, recipe: NetworkRecipe, progress: Progress, whitening_batches: int
) -> HalfPrecision:
    """One of the networks that a level needs."""
    if network == CLIP:
        return HalfPrecision(_train_clip(dataset.world, recipe, progress))
    if network not in dataset.autoencoder_configs:
        return HalfPrecision(_train_probe(recipe, progress))
    config: AutoencoderConfig = autoencoder_config(SHEET.config, network.removeprefix("autoencoder-"))
    images = sheet_images(recipe.autoencoder_batch_images, OCCUPIED_SHARE)
    seen = map(sheet_images(recipe.autoencoder_batch_images, WHITENING_SHARE), range(whitening_batches))
    trunk = Autoencoder.load(dataset.weights(CONTINUOUS)) if network != CONTINUOUS and recipe.discrete_steps else None
    return HalfPrecision(train_autoencoder(config, images, seen, recipe, progress, trunk))


def sheet_images(batch: int, share: float) -> Images:
    """Sheets of a step."""
    return lambda step: torch.from_numpy(render(SHEET, sheets(SHEET, np.arange(step * batch, (step + 1) * batch), share)))


def _train_probe(recipe: NetworkRecipe, progress: Progress) -> FieldProbe:
    """Train the probe by cross-entropy on every field of a sheet: kind or none, and size and color where there is one."""
    torch.manual_seed(recipe.seed + 2)
    c, batch = SHEET.config, recipe.probe_batch_images
    model = FieldProbe(c.field_pixels, c.num_kinds, len(c.sizes), len(c.colors))

    def loss(step: int) -> Tensor:
        scene = sheets(SHEET, np.arange(step * batch, (step + 1) * batch) + 20_000_000, OCCUPIED_SHARE)
        kind, size, color = model(torch.from_numpy(render(SHEET, scene)))
        where = (scene.image, scene.row, scene.column)
        wanted = np.full(tuple(kind.shape[:3]), c.num_kinds)
        wanted[where] = scene.kind
        return (
            F.cross_entropy(kind.flatten(0, 2), torch.from_numpy(wanted).flatten())
            + F.cross_entropy(size[where], torch.from_numpy(scene.size))
            + F.cross_entropy(color[where], torch.from_numpy(scene.color))
        )

    train(model, loss, recipe.probe_learning_rate, recipe.probe_steps, progress)
    return model.eval().requires_grad_(False)


def _train_clip(world: SpritesWorld, recipe: NetworkRecipe, progress: Progress) -> ShapesCLIP:
    """The CLIP of a level: captions by the law, of held-out pairs and of equally likely kinds in turn.

    Half of a batch differ from the other half's in one word or in the order of their phrases.
    """
    torch.manual_seed(recipe.seed + 1)
    model = ShapesCLIP(world.config.resolution, world.vocabulary, world.num_words, CLIP_HIDDEN, world.config.field_pixels // 2)
    batch = recipe.clip_batch_pairs

    def pairs(step: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng([recipe.seed, step])
        split = CLIP_SPLITS[step % len(CLIP_SPLITS)]
        indices = np.arange(step * batch, step * batch + batch // 2) + 10_000_000
        true = world.draw(split, indices)
        order = generator.random(len(true)) < 1 / 3
        changed, turned = one_word_changed(world, true, generator), swapped(true)
        parts = {}
        for name in Captions.__dataclass_fields__:
            wrong = np.where(order[:, None], getattr(turned, name), getattr(changed, name))
            parts[name] = np.concatenate([getattr(true, name), wrong])
        every = Captions(**parts)
        tokens, first = np.unique(world.tokens(every), axis=0, return_index=True)
        numbers = np.concatenate([indices, indices + batch // 2])[first]
        return torch.from_numpy(render_captions(world, every[first], numbers, split)), torch.from_numpy(tokens)

    return train_clip(model, pairs, recipe, progress)
