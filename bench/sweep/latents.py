"""The latent caches that a plan's runs train on, filled before the first of them."""

from __future__ import annotations

from pathlib import Path

from bench.data.base import TokenizedData
from bench.data.latents import fill_cache, is_complete
from bench.data.stream import about_stream, cached_images
from bench.plan.plan import Plan
from bench.progress import Display, format_bytes
from bench.results.folder import Results


def missing_latents(plan: Plan, results: Results, dataset: TokenizedData) -> dict[str, Path]:
    """Tokenizers that the plan uses whose latent cache is not complete, and where it lies."""
    num = plan.experiment.recipe.num_training_images
    folders = {name: dataset.latent_folder(results.cache, name, num) for name in plan.experiment.tokenizers}
    return {name: folder for name, folder in folders.items() if not is_complete(folder)}


def encode_latents(plan: Plan, results: Results, dataset: TokenizedData, display: Display) -> None:
    """Fill the latent cache of every tokenizer that the plan uses; of an endless world, as far as the disk allows."""
    wanted = plan.experiment.recipe.num_training_images
    rows = {name: dataset.row_bytes(name) for name in plan.experiment.tokenizers}
    for tokenizer, folder in missing_latents(plan, results, dataset).items():
        num, about = wanted, dataset.about()
        if plan.endless:
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
