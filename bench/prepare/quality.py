"""How good the suite's own networks are: measured, and written beside their weights as card.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import TokenizedShapes
from bench.data.shapes_render import render, render_captions, render_split
from bench.data.shapes_world import SPLITS, ShapesWorld
from bench.data.sprites_data import TokenizedSprites
from bench.evaluate.fidelity import frechet_distance
from bench.evaluate.image_networks import CLASSIFIER, load_classifier
from bench.evaluate.shapes_clip import canonical_tokens
from bench.evaluate.shapes_judge import load_probe
from bench.evaluate.verifier import verify
from bench.evaluate.world_judge import clip_features, load_clip
from bench.files import write_text
from bench.prepare.broken_shapes import BREAKERS, one_word_changed
from bench.prepare.networks import own_autoencoders, own_networks
from bench.prepare.sprites_quality import NUM_AUTOENCODER_IMAGES, NUM_IMAGES, measure_sprites
from bench.prepare.training import NetworkRecipe
from bench.progress import Display


def write_card(dataset: TokenizedData, recipe: NetworkRecipe, display: Display) -> Path:
    """Measure everything and write card.json; returns its path."""
    if isinstance(dataset, TokenizedImages):
        return write_image_card(dataset, recipe, display)
    assert isinstance(dataset, TokenizedShapes | TokenizedSprites)
    display.say("measuring the verifier, the autoencoders and CLIP")
    card = {
        "world": asdict(dataset.world.config),
        "recipe": asdict(recipe),
        "sha256_12": {network: dataset.hash(network) for network in own_networks(dataset)},
        **(measure_sprites(dataset) if isinstance(dataset, TokenizedSprites) else measure_shapes(dataset)),
        "torch": torch.__version__,
    }
    path = dataset.folder / "card.json"
    write_text(path, json.dumps(card, indent=1) + "\n")
    return path


def measure_shapes(dataset: TokenizedShapes) -> dict[str, Any]:
    """What the card of a shapes world says of its verifier and networks."""
    return {
        "verifier": measure_verifier(dataset.world, NUM_IMAGES),
        "autoencoders": {name: measure_autoencoder(dataset, name) for name in own_autoencoders(dataset)},
        "clip": measure_clip(dataset),
        "probe": measure_probe(dataset, NUM_IMAGES),
    }


def measure_verifier(world: ShapesWorld, num: int) -> dict[str, Any]:
    """False rejects on clean renders; false accepts on wrong captions and on broken shapes; each rate over `num` images."""
    indices = np.arange(num)
    rejects = {}
    for split in SPLITS:
        images, ids = render_split(world, split, indices)
        rejects[split] = float(1 - verify(world, images, ids).exact.mean())
    ids = world.caption_ids("test", indices)
    scenes = world.scenes(ids, indices, "test")
    wrong = one_word_changed(world, ids, np.random.default_rng(0))
    accepts = {"one word of the caption changed": float(verify(world, render(world, scenes), wrong).exact.mean())}
    for name, breaker in BREAKERS.items():
        accepts[name] = float(verify(world, breaker(world, scenes), ids).exact.mean())
    return {"num_images_each": num, "false_rejects": rejects, "accepted": accepts}


@torch.inference_mode()
def measure_probe(dataset: TokenizedShapes, num: int) -> dict[str, Any]:
    """How often probe and verifier agree: on clean renders with their caption and with one wrong word, on broken shapes."""
    world, probe = dataset.world, load_probe(dataset)

    def agreement(images: np.ndarray, ids: np.ndarray) -> float:
        canonical = canonical_tokens(world, torch.from_numpy(world.caption_tokens[ids]))
        read = probe.reads(torch.from_numpy(images), canonical).numpy()
        return float((read == verify(world, images, ids).exact).mean())

    found: dict[str, Any] = {"num_images_each": num, "agreement_with_the_verifier": {}}
    for split in ("test", "held_out"):
        images, ids = render_split(world, split, np.arange(num))
        found["agreement_with_the_verifier"][split] = agreement(images, ids)
    ids = world.caption_ids("test", np.arange(num))
    scenes = world.scenes(ids, np.arange(num), "test")
    wrong = one_word_changed(world, ids, np.random.default_rng(0))
    found["agreement_with_the_verifier"]["one word of the caption changed"] = agreement(render(world, scenes), wrong)
    for name, breaker in BREAKERS.items():
        found["agreement_with_the_verifier"][name] = agreement(breaker(world, scenes), ids)
    return found


@torch.inference_mode()
def measure_autoencoder(dataset: TokenizedShapes, name: str) -> dict[str, Any]:
    """Verifier accuracy, error and FID of reconstructions of test and held-out renders."""
    world, model, network = dataset.world, dataset.tokenizer(name), clip_features(dataset, load_clip(dataset))
    found: dict[str, Any] = {"num_images_each": NUM_AUTOENCODER_IMAGES, "num_params": sum(p.numel() for p in model.parameters())}
    for split in ("test", "held_out"):
        images, ids = render_split(world, split, np.arange(NUM_AUTOENCODER_IMAGES))
        real = torch.from_numpy(images)
        rebuilt = torch.cat([model.reconstruct(chunk) for chunk in real.split(500)])
        found[f"exact_{split}"] = float(verify(world, rebuilt.numpy(), ids).exact.mean())
        if split == "test":
            error = (rebuilt.float() - real.float()).square().mean()
            found["psnr_db"] = float(10 * torch.log10(255**2 / error))
            other = torch.from_numpy(
                render_captions(world, world.caption_ids("test", np.arange(NUM_AUTOENCODER_IMAGES)), "test", 10**6)
            )
            seen = network.features(other)
            found["fid_reconstructions"] = frechet_distance(network.features(rebuilt), seen)
            found["fid_floor"] = frechet_distance(network.features(real), seen)
            if model.discrete:
                found["codes_used"] = len(torch.unique(torch.cat([model.encode(chunk) for chunk in real.split(500)])))
                found["codes"] = model.space.vocabulary
    return found


@torch.inference_mode()
def measure_clip(dataset: TokenizedShapes) -> dict[str, Any]:
    """How often the true caption beats one with a single wrong word, by word kind; retrieval among 100 captions."""
    world, clip = dataset.world, load_clip(dataset)
    tokens = torch.from_numpy(world.caption_tokens)

    def embed(ids: np.ndarray) -> Tensor:
        return torch.cat(
            [clip.encode_captions(canonical_tokens(world, tokens[part])) for part in torch.from_numpy(ids).split(500)]
        )

    found: dict[str, Any] = {"num_images_each": 2000}
    lookup = {tuple(row): index for index, row in enumerate(world.caption_tokens)}
    kinds = {"size": (0, 4), "color": (1, 5), "shape": (2, 6), "relation": (3,)}
    for split in ("test", "held_out"):
        images, ids = render_split(world, split, np.arange(2000))
        seen = torch.cat([clip.encode_images(part)[1] for part in torch.from_numpy(images).split(500)])
        truth = (seen * embed(ids)).sum(1)
        generator = np.random.default_rng(0)
        for kind, columns in kinds.items():
            wrong = one_word_changed(world, ids, generator, columns)
            found[f"{split}_beats_wrong_{kind}"] = float((truth > (seen * embed(wrong)).sum(1)).float().mean())
        swapped = world.caption_tokens[ids][:, [4, 5, 6, 3, 0, 1, 2]]
        other = np.array([lookup[tuple(row)] for row in swapped])
        found[f"{split}_beats_swapped_objects"] = float((truth > (seen * embed(other)).sum(1)).float().mean())
        found[f"{split}_mean_cosine"] = float(truth.mean())
        distinct = np.unique(ids, return_index=True)[1][:100]
        scores = seen[distinct] @ embed(ids[distinct]).T
        found[f"{split}_retrieval_at_1_of_{len(distinct)}"] = float(
            (scores.argmax(1) == torch.arange(len(distinct))).float().mean()
        )
    return found


def write_image_card(dataset: TokenizedImages, recipe: NetworkRecipe, display: Display) -> Path:
    """Measure what the suite trained for a data set of images, on its evaluation split; write card.json."""
    images, networks, found = dataset.evaluation_set, own_networks(dataset), {}
    with display.stage("measuring", len(networks), "networks") as update, dataset.pool() as pool:
        real, _, _ = images.read(dataset.spread(images, 0, NUM_AUTOENCODER_IMAGES), pool.map)
        for number, network in enumerate(networks, start=1):
            if network == CLASSIFIER:
                found[network] = {"accuracy_evaluation_split": load_classifier(dataset).accuracy, "num_images": len(real)}
            else:
                found[network] = measure_reconstructions(dataset, network, torch.from_numpy(real))
            update(number)
    content = {
        "data": dataset.data_id,
        "content": {"training": dataset.training_set.fingerprint(), "evaluation": images.fingerprint()},
        "recipe": asdict(recipe),
        "sha256_12": {network: dataset.hash(network) for network in networks},
        "parts": found,
        "torch": torch.__version__,
    }
    path = dataset.folder / "card.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


@torch.inference_mode()
def measure_reconstructions(dataset: TokenizedImages, name: str, real: Tensor) -> dict[str, Any]:
    """Error of reconstructions of real images (n, 3, H, H), and the codes they use."""
    model = dataset.tokenizer(name)
    chunks = real.split(500)
    error = torch.stack([(model.reconstruct(chunk).float() - chunk.float()).square().mean() for chunk in chunks]).mean()
    found = {"num_images": len(real), "psnr_db": float(10 * torch.log10(255**2 / error))}
    if model.discrete:
        found["codes_used"] = len(torch.unique(torch.cat([model.encode(chunk) for chunk in real.split(500)])))
        found["codes"] = model.space.vocabulary
    return found
