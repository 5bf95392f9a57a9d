"""The latent cache: training images encoded once, read by index from memory-mapped files.

Letters: n images, B batch, N tokens, C channels, M condition tokens.

One safetensors file per tokenizer holds `tokens` (moments (n, N, 2C) float16, or codes (n, N) int32) and `condition` (n, M)
uint8. Which image a training step sees is a function of (seed, step) alone: there is no loader state to save.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from bench.data.render import render_split
from bench.data.shapes import ShapesWorld
from bench.tokenizers.tokenizer import Tokenizer

CHUNK = 2048
NUMPY_TYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "U8": np.uint8}


def memory_map(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as read-only memory maps (8-byte length, JSON header, raw bytes)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    maps: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            offset = 8 + length + entry["data_offsets"][0]
            kind = NUMPY_TYPES[entry["dtype"]]
            maps[name] = np.memmap(path, dtype=kind, mode="r", offset=offset, shape=tuple(entry["shape"]))
    return maps


def encode_training_images(
    world: ShapesWorld, tokenizer: Tokenizer, num_images: int, path: Path, progress: Callable[[int], None]
) -> None:
    """Render and encode the first num_images training images into `path`, written whole or not at all."""
    if path.exists():
        return
    tokens, captions = [], []
    for start in range(0, num_images, CHUNK):
        images, ids = render_split(world, "train", np.arange(start, min(start + CHUNK, num_images)))
        with torch.inference_mode():
            stored = tokenizer.encode(torch.from_numpy(images))
        tokens.append(stored.half().numpy() if stored.is_floating_point() else stored.int().numpy())
        captions.append(world.caption_tokens[ids].astype(np.uint8))
        progress(min(start + CHUNK, num_images))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    save_file({"tokens": np.concatenate(tokens), "condition": np.concatenate(captions)}, temporary)
    os.replace(temporary, path)


class TrainingData:
    """Batches by step from a latent cache."""

    def __init__(self, path: Path) -> None:
        maps = memory_map(path)
        self._tokens, self._condition = maps["tokens"], maps["condition"]
        self._epoch: tuple[int, int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def indices(self, seed: int, step: int, batch: int) -> np.ndarray:
        """(B,) image indices of a step: consecutive entries of one permutation per (seed, epoch)."""
        positions = np.arange(step * batch, (step + 1) * batch)
        return np.concatenate(
            [
                self._permutation(seed, int(epoch))[positions[positions // len(self) == epoch] % len(self)]
                for epoch in np.unique(positions // len(self))
            ]
        )

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[:2] != (seed, epoch):
            self._epoch = (seed, epoch, np.random.default_rng([seed, epoch]).permutation(len(self)))
        return self._epoch[2]

    def batch(self, seed: int, step: int, batch: int) -> tuple[Tensor, Tensor]:
        """Tokens as the paradigm reads them (latents sampled from their posterior) and condition tokens (B, M) int64."""
        indices = self.indices(seed, step, batch)
        condition = torch.from_numpy(self._condition[indices].astype(np.int64))
        stored = torch.from_numpy(self._tokens[indices])
        if stored.dtype != torch.float16:
            return stored.long(), condition
        mean, std = stored.float().chunk(2, dim=2)
        generator = torch.Generator().manual_seed(step_seed(seed, step, "posterior"))
        return mean + std * torch.randn(mean.shape, generator=generator), condition


def step_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose of one training step: all randomness of training is a function of (seed, step)."""
    purposes = ("posterior", "dropout", "loss")
    state = np.random.SeedSequence([seed, step, purposes.index(purpose)]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
