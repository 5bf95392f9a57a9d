"""How the networks that judge a shapes world are trained."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.shapes_render import render, render_split
from bench.data.shapes_world import ShapesWorld
from bench.evaluate.probe import CaptionProbe
from bench.evaluate.shapes_clip import ShapesCLIP, canonical_tokens
from bench.prepare.training import Images, NetworkRecipe, Progress, train, train_clip


def renders(world: ShapesWorld, batch: int) -> Images:
    """Training images of a step."""
    return lambda step: torch.from_numpy(render_split(world, "train", np.arange(step * batch, (step + 1) * batch))[0])


def shapes_clip(world: ShapesWorld, recipe: NetworkRecipe, progress: Progress) -> ShapesCLIP:
    """The CLIP of a shapes world: half of a batch are captions that differ from the other half's in one word."""
    torch.manual_seed(recipe.seed + 1)
    model = ShapesCLIP(world.config.resolution, world.vocabulary)
    tokens = torch.from_numpy(world.caption_tokens)
    two_objects = np.flatnonzero(world.caption_tokens[:, 3] != 0)
    batch = recipe.clip_batch_pairs

    def pairs(step: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng([recipe.seed, step])
        ids = generator.choice(two_objects, batch, replace=False)
        ids[batch // 2 :] = _hard_negatives(world, ids[: batch // 2], generator)
        ids = np.unique(ids)
        indices = np.arange(step * batch, step * batch + len(ids)) + 10_000_000
        images = torch.from_numpy(render(world, world.scenes(ids, indices, "train")))
        return images, canonical_tokens(world, tokens[ids])

    return train_clip(model, pairs, recipe, progress)


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

    train(model, loss, recipe.probe_learning_rate, recipe.probe_steps, progress)
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
