"""A trained run as a sampler: condition tokens to images.

Letters: n images, B images of a batch, M condition tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from bench.conditioning import Condition
from bench.config.experiment import Method, Setting, merged
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.data.open import open_data
from bench.model import build_paradigm, compile_on_gpu, device_type, load_weights
from bench.paradigm import Paradigm
from bench.results.folder import Results, RunFolder
from bench.results.identity import read_identity

SAMPLE_BATCH = 64
"""Images sampled at once on CPU: larger batches leave its caches (measured at width 64: 64 is 1.4 x faster than 512)."""
GRID_COLUMNS, GRID_IMAGES = 8, 32
GRID_SIDE = 32
"""Pixels of an image in a grid, at least; smaller ones are enlarged by a whole factor."""


class Sampler:
    """Condition tokens to images with one trained run, at any setting."""

    def __init__(self, dataset: TokenizedData, run: Run, method: Method, weights: Path, *, ema: bool = True) -> None:
        self.dataset, self.run, self.method, self.weights, self.ema = dataset, run, method, weights, ema
        self.device = device_type()
        self.decoder = dataset.tokenizer(run.tokenizer).to(self.device)
        self._paradigms: dict[str, Paradigm] = {}

    def trained(self) -> Paradigm:
        """The trained network with the options that it was trained with."""
        return self.paradigm(Setting())

    def paradigm(self, setting: Setting) -> Paradigm:
        """The trained network with a setting's options."""
        options = merged(self.run.options, setting.options)
        key = json.dumps(options, sort_keys=True)
        if key not in self._paradigms:
            space, conditions = self.dataset.space(self.run.tokenizer), self.dataset.conditions
            built = compile_on_gpu(build_paradigm(replace(self.run, options=options), space, conditions))
            self._paradigms[key] = load_weights(built, self.weights, self.ema).to(self.device)
        return self._paradigms[key]

    def columns(self, setting: Setting) -> dict[str, Any]:
        """The columns that name weights and setting."""
        return {
            "ema": self.ema,
            "sampler_steps": setting.steps or self.paradigm(setting).default_steps,
            "guidance": setting.guidance,
            "temperature": setting.temperature,
            "sampler_options": json.dumps(setting.options, sort_keys=True) if setting.options else None,
        }

    def images(self, condition_tokens: Tensor, setting: Setting, seed: int, batch: int = SAMPLE_BATCH) -> Tensor:
        """One image per row of condition tokens (n, M): (n, 3, H, H) uint8; the noise depends on the seed alone."""
        return torch.cat(list(self.batches(condition_tokens, setting, seed, batch)))

    @torch.inference_mode()
    def batches(self, condition_tokens: Tensor, setting: Setting, seed: int, batch: int = SAMPLE_BATCH) -> Iterator[Tensor]:
        """The same images a batch (B, 3, H, H) at a time, sampled when they are asked for."""
        paradigm = self.paradigm(setting)
        generator = torch.Generator(paradigm.device).manual_seed(seed)
        for part in condition_tokens.to(paradigm.device).split(batch):
            tokens = paradigm.sample(
                Condition.of(part),
                steps=setting.steps,
                guidance=setting.guidance,
                temperature=setting.temperature,
                generator=generator,
            )
            yield self.decoder.decode(tokens).cpu()


def save_grid(
    images: Tensor,
    path: Path,
    prompts: Sequence[str] = (),
    obeyed: Iterable[bool] | None = None,
    reasons: Sequence[str] = (),
) -> None:
    """The first images (n, 3, H, H) in rows of 8, as PNG (never JPEG: its artifacts change what the verifier reads).

    What each image was asked to show, whether it does, and what is wrong go into the file's text as JSON lists `prompts`,
    `obeyed` and `reasons`.
    """
    shown = images[:GRID_IMAGES]
    factor = -(-GRID_SIDE // shown.shape[-1])
    shown = shown.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    rows = [torch.cat(list(row), dim=2) for row in shown.split(GRID_COLUMNS) if len(row) == GRID_COLUMNS]
    text = PngInfo()
    if prompts:
        text.add_itxt("prompts", json.dumps(list(prompts[: len(shown)]), ensure_ascii=False))
    if obeyed is not None:
        text.add_itxt("obeyed", json.dumps([bool(verdict) for verdict in itertools.islice(obeyed, len(shown))]))
    if reasons:
        text.add_itxt("reasons", json.dumps(list(reasons[: len(shown)])))
    if rows:
        Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path, pnginfo=text)


def load_sampler(folder: Path) -> tuple[Sampler, TokenizedData]:
    """A trained run from its folder results/NAME/runs/RUN_ID, ready to sample, and the data set that reads conditions.

    Raises:
        ValueError: when there is no trained run.
    """
    run_folder, results = RunFolder(folder), Results(folder.parent.parent)
    if not run_folder.weights.exists():
        raise ValueError(f"{folder} holds no trained run (no {run_folder.weights.name}); `paradigm-bench status` lists the runs")
    identity = read_identity(results)
    if folder.name not in identity.runs:
        raise ValueError(f"{results.root} plans no run {folder.name!r}")
    run, dataset = identity.runs[folder.name], open_data(identity.data)
    return Sampler(dataset, run, identity.methods[run.method], run_folder.weights), dataset
