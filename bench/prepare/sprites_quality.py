"""How good the verifier and the networks of a sprites world are: what its card says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.sprites_alphabet import MIN_CELLS
from bench.data.sprites_config import Captions
from bench.data.sprites_data import TokenizedSprites
from bench.data.sprites_render import render_captions, render_split
from bench.data.sprites_world import SPRITE_SPLITS, SpritesWorld
from bench.evaluate.fidelity import frechet_distance
from bench.evaluate.sprites_judge import load_field_probe
from bench.evaluate.sprites_verifier import compare, read_fields, verify
from bench.evaluate.world_judge import REFERENCE_OFFSET, clip_features, load_clip
from bench.prepare.broken_sprites import BREAKERS, WORDS, broken, one_word_changed, swapped
from bench.prepare.networks import own_autoencoders

NUM_IMAGES = 10_000
NUM_AUTOENCODER_IMAGES = 5_000
NUM_CLIP_IMAGES = 2_000
CHUNK_IMAGES = 500
"""Images that are rendered, rebuilt and verified at once."""


def measure_sprites(dataset: TokenizedSprites) -> dict[str, Any]:
    """What the card says of the verifier, the twins, the CLIP and the probe."""
    return {
        "verifier": measure_sprites_verifier(dataset.world, NUM_IMAGES),
        "autoencoders": {name: measure_rebuilt(dataset, name, NUM_AUTOENCODER_IMAGES) for name in own_autoencoders(dataset)},
        "clip": measure_retrieval(dataset, NUM_CLIP_IMAGES),
        "probe": measure_field_probe(dataset, NUM_IMAGES),
    }


def _chunks(num: int) -> Iterator[np.ndarray]:
    """Image indices 0 .. num - 1 in order."""
    for start in range(0, num, CHUNK_IMAGES):
        yield np.arange(start, min(start + CHUNK_IMAGES, num))


def measure_sprites_verifier(world: SpritesWorld, num: int) -> dict[str, Any]:
    """False rejects on clean renders; false accepts on wrong captions and on broken sprites; each rate over `num` images."""
    rejects = {}
    for split in SPRITE_SPLITS:
        found = [verify(world, *render_split(world, split, part)).exact for part in _chunks(num)]
        rejects[split] = float(1 - np.concatenate(found).mean())
    wrong = {word: [] for word in WORDS} | {"order": []} | {name: [] for name in BREAKERS}  # type: ignore[var-annotated]
    generator = np.random.default_rng(0)
    for part in _chunks(num):
        captions = world.draw("test", part)
        seen = read_fields(world.config, render_captions(world, captions, part, "test"))
        for word in WORDS:
            wrong[word].append(compare(world, seen, one_word_changed(world, captions, generator, word)).exact)
        wrong["order"].append(compare(world, seen, swapped(captions)).exact[captions.named[:, 1]])
        for name, change in BREAKERS.items():
            wrong[name].append(verify(world, broken(world, captions, part, "test", change), captions).exact)
    accepted = {name: float(np.concatenate(found).mean()) for name, found in wrong.items()}
    names = {word: f"{word} of the caption changed" for word in WORDS} | {"order": "first two phrases exchanged"}
    return {
        "num_images_each": num,
        "least_cells_between_kinds": MIN_CELLS,
        "false_rejects": rejects,
        "accepted": {names.get(name, name): rate for name, rate in accepted.items()},
    }


@torch.inference_mode()
def measure_rebuilt(dataset: TokenizedSprites, name: str, num: int) -> dict[str, Any]:
    """Verifier accuracy of reconstructions of test, held-out and uniform renders; error and FID of the test ones."""
    world, model, network = dataset.world, dataset.tokenizer(name), clip_features(dataset, load_clip(dataset))
    found: dict[str, Any] = {"num_images_each": num, "num_params": sum(p.numel() for p in model.parameters())}
    for split in ("test", "held_out", "uniform"):
        exact, error, features, codes = [], [], [], []
        for part in _chunks(num):
            images, captions = render_split(world, split, part)
            real = torch.from_numpy(images)
            rebuilt = model.reconstruct(real)
            exact.append(verify(world, rebuilt.numpy(), captions).exact)
            error.append((rebuilt.float() - real.float()).square().mean())
            if split == "test":
                other = torch.from_numpy(render_split(world, split, part + REFERENCE_OFFSET)[0])
                features.append([network.features(each) for each in (rebuilt, real, other)])
                codes.append(torch.unique(model.encode(real)) if model.discrete else torch.empty(0))
        found[f"exact_{split}"] = float(np.concatenate(exact).mean())
        if split == "test":
            found["psnr_db"] = float(10 * torch.log10(255**2 / torch.stack(error).mean()))
            again, clean, reference = (np.concatenate(each) for each in zip(*features, strict=True))
            found["fid_reconstructions"] = frechet_distance(again, reference)
            found["fid_floor"] = frechet_distance(clean, reference)
            if model.discrete:
                found["codes_used"] = len(torch.unique(torch.cat(codes)))
                found["codes"] = model.space.vocabulary
    return found


@torch.inference_mode()
def measure_retrieval(dataset: TokenizedSprites, num: int) -> dict[str, Any]:
    """How often the true caption beats one with a single wrong word, by sort of word; retrieval among 100 captions."""
    world, clip = dataset.world, load_clip(dataset)

    def embed(captions: Captions) -> Tensor:
        return torch.cat([clip.encode_captions(part) for part in torch.from_numpy(world.tokens(captions)).split(CHUNK_IMAGES)])

    found: dict[str, Any] = {"num_images_each": num}
    for split in ("test", "held_out", "uniform"):
        images, captions = render_split(world, split, np.arange(num))
        seen = torch.cat([clip.encode_images(part)[1] for part in torch.from_numpy(images).split(CHUNK_IMAGES)])
        truth = (seen * embed(captions)).sum(1)
        generator = np.random.default_rng(0)
        for word in WORDS:
            wrong = one_word_changed(world, captions, generator, word)
            found[f"{split}_beats_wrong_{word}"] = float((truth > (seen * embed(wrong)).sum(1)).float().mean())
        two = torch.from_numpy(captions.named[:, 1])
        found[f"{split}_beats_exchanged_phrases"] = float((truth > (seen * embed(swapped(captions))).sum(1))[two].float().mean())
        found[f"{split}_mean_cosine"] = float(truth.mean())
        distinct = np.sort(np.unique(world.tokens(captions), axis=0, return_index=True)[1])[:100]
        nearest = (seen[distinct] @ embed(captions[distinct]).T).argmax(1)
        found[f"{split}_retrieval_at_1_of_{len(distinct)}"] = float((nearest == torch.arange(len(distinct))).float().mean())
    return found


def measure_field_probe(dataset: TokenizedSprites, num: int) -> dict[str, Any]:
    """How often probe and verifier agree: on clean renders with their caption and with a wrong word, on broken sprites."""
    world, probe = dataset.world, load_field_probe(dataset)
    generator = np.random.default_rng(0)
    agree: dict[str, list[np.ndarray]] = {}

    def add(name: str, images: np.ndarray, captions: Captions) -> None:
        read = compare(world, probe.reads(world.config, torch.from_numpy(images)), captions)
        agree.setdefault(name, []).append(read.exact == verify(world, images, captions).exact)

    for part in _chunks(num):
        for split in ("test", "held_out", "uniform"):
            images, captions = render_split(world, split, part)
            add(split, images, captions)
            if split == "test":
                add("one word of the caption changed", images, one_word_changed(world, captions, generator))
                for name, change in BREAKERS.items():
                    add(name, broken(world, captions, part, "test", change), captions)
    found = {name: float(np.concatenate(each).mean()) for name, each in agree.items()}
    return {"num_images_each": num, "agreement_with_the_verifier": found}
