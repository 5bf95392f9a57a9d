"""What a method is: in which order it reveals tokens, how it attends, how many tokens a step has, what its loss is.

Claims find their methods by these and not by labels, so that every experiment is judged. They follow from what a results folder
keeps of its experiment: the paradigm's name, its options, and the sampler's steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Traits = Mapping[str, str]
"""paradigm, order, attention, tokens_per_step, loss, tokens, autoencoder; a paradigm of somebody else's has its name and its
autoencoder alone."""

BUILT_INS: Mapping[str, Traits] = {
    "diffusion": {
        "order": "none",
        "attention": "bidirectional",
        "tokens_per_step": "all",
        "loss": "image diffusion",
        "tokens": "latents",
    },
    "next-token": {
        "order": "raster",
        "attention": "causal",
        "tokens_per_step": "one",
        "loss": "cross-entropy",
        "tokens": "codes",
    },
    "next-token-continuous": {
        "order": "raster",
        "attention": "causal",
        "tokens_per_step": "one",
        "loss": "diffusion",
        "tokens": "latents",
    },
    "masked-token": {"order": "random", "attention": "bidirectional", "loss": "cross-entropy", "tokens": "codes"},
    "mar": {"order": "random", "attention": "bidirectional", "loss": "diffusion", "tokens": "latents"},
    "mar-discrete": {"order": "random", "attention": "bidirectional", "loss": "cross-entropy", "tokens": "codes"},
    "pixel-diffusion": {
        "order": "none",
        "attention": "bidirectional",
        "tokens_per_step": "all",
        "loss": "image diffusion",
        "tokens": "latents",
    },
    "aligned-diffusion": {
        "order": "none",
        "attention": "bidirectional",
        "tokens_per_step": "all",
        "loss": "diffusion with alignment",
        "tokens": "latents",
    },
    "mean-flow": {
        "order": "none",
        "attention": "bidirectional",
        "tokens_per_step": "all",
        "loss": "mean flow",
        "tokens": "latents",
    },
    "next-cell": {
        "order": "raster of cells",
        "attention": "by cells",
        "tokens_per_step": "a cell",
        "loss": "image diffusion",
        "tokens": "latents",
    },
    "normalizing-flow": {
        "order": "alternating",
        "attention": "causal",
        "tokens_per_step": "one",
        "loss": "likelihood",
        "tokens": "latents",
    },
    "next-token-energy": {
        "order": "raster",
        "attention": "causal",
        "tokens_per_step": "one",
        "loss": "energy",
        "tokens": "latents",
    },
    "uniform-diffusion": {
        "order": "none",
        "attention": "bidirectional",
        "tokens_per_step": "all",
        "loss": "uniform diffusion",
        "tokens": "codes",
    },
    "block-diffusion": {
        "order": "random in blocks",
        "attention": "block-causal",
        "loss": "cross-entropy",
        "tokens": "codes",
    },
    "next-scale": {
        "order": "coarse to fine",
        "attention": "by scales",
        "tokens_per_step": "a scale",
        "loss": "cross-entropy",
        "tokens": "codes",
    },
}
"""At their default options; where tokens_per_step is missing the sampler's steps decide it."""
DEFAULT_STEPS = 16
"""Of masked-token and mar, and of a block of block-diffusion."""
WORLD_PATCHES = {"shapes": 8, "sprites": 10}
"""Pixels per token and side of the procedural worlds' autoencoders."""


def method_traits(identity: Mapping[str, Any]) -> dict[str, Traits]:
    """Traits of each method of an experiment, from what experiment.json holds: its `methods` and its `data`."""
    found: dict[str, Traits] = {}
    for name, method in identity.get("methods", {}).items():
        tokenizer = str(method.get("tokenizer", ""))
        own = traits(
            str(method.get("paradigm", "")),
            method.get("options") or {},
            [setting.get("steps") for setting in method.get("settings") or ()],
            num_tokens(identity.get("data"), tokenizer),
        )
        found[name] = {**own, "autoencoder": autoencoder(identity.get("data"), tokenizer)}
    return found


def traits(paradigm: str, options: Mapping[str, Any], steps: list[int | None], tokens: int | None) -> Traits:
    """Traits of one method with its constructor options, the steps of its sampler settings, and its tokens per image."""
    found = {"paradigm": paradigm, **BUILT_INS.get(paradigm, {})}
    if len(found) == 1:
        return found
    if found["attention"] == "causal":
        found["order"] = str(options.get("order") or found["order"])
    if options.get("head"):
        found["loss"] = str(options["head"])
    if options.get("weight") == "elbo":
        found["loss"] = "likelihood bound"
    if paradigm == "block-diffusion" and tokens is not None:  # whose steps are those of a block, by default a row
        tokens = int(options.get("block") or math.isqrt(tokens))
    if "tokens_per_step" not in found:
        found["tokens_per_step"] = _tokens_per_step({DEFAULT_STEPS if s is None else s for s in steps}, tokens)
    return found


def _tokens_per_step(steps: set[int], tokens: int | None) -> str:
    """Of samplers that reveal several tokens at once unless they take as many steps as there are tokens."""
    if tokens is None or not steps:
        return "unknown"
    if min(steps) < tokens <= max(steps):
        return "varied"
    return "one" if min(steps) >= tokens else "several"


def autoencoder(data: Any, tokenizer: str) -> str:
    """Name of the autoencoder whose latents or codes a tokenizer gives, before quantization or grouped as they may be."""
    tokenizer = tokenizer.partition("+")[0]
    if isinstance(data, Mapping):
        return str(_described(data, tokenizer)["part"])
    return tokenizer.removesuffix("-grouped").removesuffix("-latents")


def num_tokens(data: Any, tokenizer: str) -> int | None:
    """Tokens of an image: of a procedural world, which ends with its pixels per side, or of described image data."""
    tokenizer = tokenizer.partition("+")[0]  # behind which features are named
    if isinstance(data, str):
        world, group = re.fullmatch(r"([a-z]+)(\d+)", data), 2 if tokenizer.endswith("-grouped") else 1
        patch = WORLD_PATCHES.get(world[1]) if world else None
        side = int(world[2]) // (patch * group) if world and patch else 0
        sides = [2**power for power in range(side.bit_length())] if tokenizer.endswith("-scales") else [side]
        return sum(each**2 for each in sides) or None
    if not isinstance(data, Mapping):
        return None
    config = _described(data, tokenizer)
    sizes = (data.get("autoencoders") or {}).get(config["part"])
    if not sizes:
        return None
    if sizes.get("scales") and not config.get("before_quantization"):
        return sum(int(side) ** 2 for side in sizes["scales"])
    pixels_per_token = int(sizes.get("stride") or sizes["patch"]) * int(config.get("group", 1))
    return (int(data.get("resolution") or sizes["resolution"]) // pixels_per_token) ** 2


def _described(data: Mapping[str, Any], tokenizer: str) -> Mapping[str, Any]:
    """What image data says of a tokenizer; one that it does not describe is an autoencoder by its name."""
    return (data.get("tokenizers") or {}).get(tokenizer) or {"part": tokenizer}
