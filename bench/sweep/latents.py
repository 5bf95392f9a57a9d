"""The latent caches that a plan's runs train on, filled before the first of them."""

from __future__ import annotations

from pathlib import Path

from bench.data.base import TokenizedData
from bench.data.latents import fill_cache, is_complete
from bench.data.stream import about_stream, cached_images
from bench.plan.plan import Plan
from bench.progress import Display, format_bytes
from bench.results.folder import Results


def missing_latents(plan: Plan, results: Results, dataset: TokenizedData) -> list[Path]:
    """Where the latent caches lie that the plan's runs read and that are not complete."""
    return [
        folder for num, tokenizers in plan.cached.items() for folder in _incomplete(tokenizers, num, results, dataset).values()
    ]


def _incomplete(tokenizers: list[str], num: int, results: Results, dataset: TokenizedData) -> dict[str, Path]:
    folders = {name: dataset.latent_folder(results.cache, name, num) for name in tokenizers}
    return {name: folder for name, folder in folders.items() if not is_complete(folder)}


def encode_latents(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> None:
    """Fill the latent cache of every tokenizer that the plan uses; of an endless world, as far as the disk allows."""
    for num, tokenizers in plan.cached.items():
        fill_latents(tokenizers, num, results, dataset, display)


def fill_latents(tokenizers: list[str], wanted: int, results: Results, dataset: TokenizedData, display: Display) -> None:
    """Fill the latent caches of tokenizers with so many training images; of an endless world, as far as the disk allows."""
    rows = {name: dataset.row_bytes(name) for name in tokenizers}
    for tokenizer, folder in _incomplete(tokenizers, wanted, results, dataset).items():
        num, about = wanted, dataset.about()
        if dataset.endless:
            num = cached_images(folder, wanted, rows[tokenizer], rows[tokenizer] / sum(rows.values()))
        if num < wanted:
            about |= about_stream(dataset, tokenizer, wanted)
            display.say(
                f"{tokenizer}: {num:,} of {wanted:,} training images are cached, the others are rendered as they are needed"
            )
        needed = num * rows[tokenizer]
        with display.stage(f"encoding training images with {tokenizer} into {format_bytes(needed)}", num, "images") as update:
            skipped = fill_cache(
                folder,
                num,
                rows[tokenizer],
                dataset.encoder(tokenizer),
                update,
                chunk=dataset.chunk,
                max_skipped=dataset.max_skipped(num),
                about=about,
            )
        for name in skipped:
            display.say(f"skipped, cannot be read: {name}")
