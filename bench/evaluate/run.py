"""Everything measured on one trained model: the guidance chosen on validation captions, then the row on test captions.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.build import build_meta, build_paradigm
from bench.conditioning import Condition
from bench.config import Evaluation, Method, Run
from bench.data.render import render_captions
from bench.data.shapes import Split
from bench.evaluate import fidelity
from bench.evaluate.clip import canonical_tokens
from bench.evaluate.latency import measure_speed
from bench.evaluate.prompts import Verdict, verify
from bench.flops import count_call, count_sampling
from bench.instrument import Instrument
from bench.results import Results, append_line, write_text
from bench.tokenizers.autoencoder import Autoencoder
from bench.train import load_weights

SAMPLE_BATCH = 64
"""Images sampled at once on CPU: larger batches leave its caches (measured at width 64: 64 is 1.4 x faster than 512)."""
GRID_COLUMNS, GRID_IMAGES = 8, 32
REFERENCE_OFFSET, FLOOR_OFFSET = 1_000_000, 2_000_000
"""First image index of the reference and of the floor set, so that no two sets share an image."""


class Evaluator:
    """Evaluates runs of one experiment; what all runs share (reference, floor, ceilings) is computed once and cached."""

    def __init__(self, instrument: Instrument, settings: Evaluation, results: Results) -> None:
        self.instrument, self.settings, self.results = instrument, settings, results
        self.world = instrument.world
        self.protocol = instrument.protocol(settings)
        self.extractor = fidelity.register_extractor(instrument.clip, instrument.hash("clip"))
        self.reference = fidelity.Reference.of(
            f"reference-{self.world.fingerprint}-{settings.num_reference}",
            self._real(settings.num_reference, REFERENCE_OFFSET),
            instrument.clip,
        )

    def caption_ids(self, split: Split, num: int) -> np.ndarray:
        """The frozen list: the split's captions in order, repeated until there are num."""
        return np.resize(self.world.split_ids(split), num)

    def _real(self, num: int, offset: int) -> Tensor:
        return torch.from_numpy(render_captions(self.world, self.caption_ids("test", num), "test", offset))

    def _cached(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A small JSON record of the results folder, computed at the first use."""
        path = self.results.cache / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(compute()))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def fidelity(self, images: Tensor) -> fidelity.Fidelity:
        """FID and its relatives against the reference."""
        cache = self.results.cache / "fidelity"
        cache.mkdir(parents=True, exist_ok=True)
        return fidelity.measure(self.extractor, self.instrument.clip, images, self.reference, cache)

    def floors(self, tokenizer: str) -> dict[str, Any]:
        """FID of real images, and of the autoencoder's reconstructions of them, at the same N; the accuracy ceiling."""

        def compute() -> dict[str, Any]:
            ids = self.caption_ids("test", self.settings.num_samples)
            real = self._real(len(ids), FLOOR_OFFSET)
            with torch.inference_mode():
                model = self.instrument.tokenizer(tokenizer)
                rebuilt = torch.cat([model.reconstruct(part) for part in real.split(256)])
            return {
                "fid_floor": self.fidelity(real).fid,
                "fid_autoencoder": self.fidelity(rebuilt).fid,
                "prompt_accuracy_ceiling": float(verify(self.world, rebuilt.numpy(), ids).exact.mean()),
            }

        return self._cached(f"floors-{tokenizer}-{self.instrument.tokenizer_hash(tokenizer)}-{self.protocol}", compute)

    def evaluate(self, run: Run, method: Method, report: Callable[[str], None]) -> None:
        """Append the run's rows to its evals.jsonl: one per guidance scale tried, then the test row, and write samples.png."""
        folder, settings = self.results.run(run.run_id), self.settings
        sampler = Sampler(self.instrument, run, method, folder / "weights.safetensors")
        path = folder / "evals.jsonl"
        path.unlink(missing_ok=True)
        ids = self.caption_ids("validation", settings.num_validation)
        tried: list[tuple[float, float, float]] = []
        for guidance in method.guidance:
            report(f"guidance {guidance:g}")
            began = time.perf_counter()
            verdict = verify(self.world, self._draw(sampler, ids, guidance).numpy(), ids)
            tried.append((float(verdict.exact.mean()), float(verdict.mean_attributes.mean()), guidance))
            row = {**sampler.settings(guidance, "validation", len(ids), settings.seed), **accuracy(verdict)}
            append_line(path, {**row, **self._ending(began)})
        if settings.validation_only:
            return
        best = max(tried)[2]
        report(f"test captions at guidance {best:g}")
        began = time.perf_counter()
        row = sampler.settings(best, "test", settings.num_samples, settings.seed)
        append_line(path, {**row, **self._test_row(sampler, best, run, folder), **self._ending(began)})

    def _draw(self, sampler: Sampler, caption_ids: np.ndarray, guidance: float, batch: int = SAMPLE_BATCH) -> Tensor:
        """One image per caption, at the evaluation's sample seed."""
        words = torch.from_numpy(self.world.caption_tokens[caption_ids])
        return sampler.images(words, guidance, self.settings.seed, batch)

    def _test_row(self, sampler: Sampler, guidance: float, run: Run, folder: Path) -> dict[str, Any]:
        settings = self.settings
        ids = self.caption_ids("test", settings.num_samples)
        images = self._draw(sampler, ids, guidance)
        held_ids = self.caption_ids("held_out", settings.num_held_out)
        held = verify(self.world, self._draw(sampler, held_ids, guidance).numpy(), held_ids)
        scores = self.clip_scores(images, ids)
        found = self.fidelity(images)
        speed = measure_speed(
            lambda batch: self._draw(sampler, ids[:batch], guidance, batch), settings.latency_calls, settings.throughput_batches
        )
        save_grid(images, folder / "samples.png")
        held_out = accuracy(held)
        return {
            "num_reference": settings.num_reference,
            **{name: getattr(found, name) for name in fidelity.Fidelity.__dataclass_fields__},
            **self.floors(run.tokenizer),
            "clip_score": float(scores.mean()),
            "clip_score_se": float(scores.std(ddof=1) / len(scores) ** 0.5),
            **accuracy(verify(self.world, images.numpy(), ids)),
            "prompt_accuracy_heldout": held_out["prompt_accuracy"],
            "prompt_accuracy_heldout_se": held_out["prompt_accuracy_se"],
            **self.costs(run, sampler.method, guidance),
            **{name: getattr(speed, name) for name in speed.__dataclass_fields__},
        }

    def costs(self, run: Run, method: Method, guidance: float) -> dict[str, Any]:
        """FLOPs of sampling and of decoding one image; every guidance other than 1 costs the same."""
        guided = guidance != 1.0

        def compute() -> dict[str, Any]:
            space, conditions = self.instrument.space(run.tokenizer), self.instrument.conditions
            meta = build_meta(run, space, conditions)
            part = self.instrument.tokenizer_config(run.tokenizer).part
            decoder = Autoencoder(self.instrument.autoencoder_config(part)).to("meta")
            latents = torch.empty(1, decoder.config.grid**2, len(decoder.scale), device="meta")
            sampling = count_sampling(
                meta,
                conditions.num_tokens,
                conditions.feature_dim,
                steps=method.sampler_steps,
                guidance=2.0 if guided else 1.0,
            )
            return {"flops_per_sample": sampling, "flops_per_decode": count_call(lambda: decoder.decode_raw(latents))}

        decides = [run.paradigm, run.paradigm_version, run.options, asdict(run.size), run.tokenizer, method.sampler_steps, guided]
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return self._cached(f"costs-{key}", compute)

    @torch.inference_mode()
    def clip_scores(self, images: Tensor, ids: np.ndarray) -> np.ndarray:
        """Cosine of each image and its canonical caption (n,)."""
        clip = self.instrument.clip
        tokens = canonical_tokens(self.world, torch.from_numpy(self.world.caption_tokens[ids]))
        read = clip.encode_captions(tokens)
        seen = torch.cat([clip.encode_images(part)[1] for part in images.split(256)])
        return (seen * read).sum(1).double().numpy()

    def _ending(self, began: float) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "evaluation_seconds": round(time.perf_counter() - began, 2),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }


class Sampler:
    """Condition tokens to images with one trained run and its method's sampler settings."""

    def __init__(self, instrument: Instrument, run: Run, method: Method, weights: Path) -> None:
        self.method, self.decoder = method, instrument.tokenizer(run.tokenizer)
        paradigm = build_paradigm(run, instrument.space(run.tokenizer), instrument.conditions)
        self.paradigm = load_weights(paradigm, weights, ema=True)

    def settings(self, guidance: float, split: str, num: int, seed: int) -> dict[str, Any]:
        """The columns that name the sampler's settings."""
        steps = self.method.sampler_steps or self.paradigm.default_steps
        return {
            "split": split,
            "ema": True,
            "sampler_steps": steps,
            "guidance": guidance,
            "temperature": self.method.temperature,
            "num_samples": num,
            "sample_seed": seed,
        }

    @torch.inference_mode()
    def images(self, words: Tensor, guidance: float, seed: int, batch: int = SAMPLE_BATCH) -> Tensor:
        """One image per row of condition tokens (n, M): (n, 3, H, H) uint8; the noise depends on the seed alone."""
        device = self.paradigm.device
        generator = torch.Generator(device).manual_seed(seed)
        out = []
        for part in words.to(device).split(batch):
            tokens = self.paradigm.sample(
                Condition.of(part),
                steps=self.method.sampler_steps,
                guidance=guidance,
                temperature=self.method.temperature,
                generator=generator,
            )
            out.append(self.decoder.decode(tokens.cpu()))
        return torch.cat(out)


def accuracy(verdict: Verdict) -> dict[str, float]:
    """Prompt accuracy, its binomial standard error (with the Laplace rule at 0 and 1), and the mean attribute score."""
    n, share = len(verdict.exact), float(verdict.exact.mean())
    smoothed = (share * n + 1) / (n + 2)
    return {
        "prompt_accuracy": share,
        "prompt_accuracy_se": (smoothed * (1 - smoothed) / n) ** 0.5,
        "prompt_accuracy_attributes": float(verdict.mean_attributes.mean()),
    }


def save_grid(images: Tensor, path: Path) -> None:
    """The first images in rows of 8, as PNG (never JPEG: its artifacts change what the verifier reads)."""
    shown = images[:GRID_IMAGES]
    rows = [torch.cat(list(row), dim=2) for row in shown.split(GRID_COLUMNS) if len(row) == GRID_COLUMNS]
    if rows:
        Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path)
