"""Everything measured on one trained model: settings chosen on validation captions, then the rows on test captions.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.build import build_meta, build_paradigm
from bench.conditioning import Condition
from bench.config import Evaluation, Method, Run, Setting, merged
from bench.data.render import render_captions
from bench.data.shapes import Split
from bench.evaluate import fidelity
from bench.evaluate.clip import FEATURE_DIM, canonical_tokens
from bench.evaluate.latency import measure_speed
from bench.evaluate.prompts import Verdict, verify
from bench.flops import count_call, count_sampling
from bench.instrument import Instrument
from bench.paradigm import Paradigm
from bench.results import Results, append_line, write_text
from bench.tokenizers.autoencoder import Autoencoder
from bench.train import load_weights

SAMPLE_BATCH = 64
"""Images sampled at once on CPU: larger batches leave its caches (measured at width 64: 64 is 1.4 x faster than 512)."""
GRID_COLUMNS, GRID_IMAGES = 8, 32
VALIDATION_REFERENCE = 1000
"""Real renders of validation captions that settings are compared with."""
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
        passes = np.arange(len(images)) // len(self.world.split_ids("test"))
        return fidelity.measure(self.extractor, self.instrument.clip, images, self.reference, cache, replicates=passes)

    def floors(self, tokenizer: str) -> dict[str, Any]:
        """FID of real images, and of the autoencoder's reconstructions of them, at the same N; the accuracy ceiling."""

        def compute() -> dict[str, Any]:
            ids = self.caption_ids("test", self.settings.num_samples)
            real = self._real(len(ids), FLOOR_OFFSET)
            with torch.inference_mode():
                model = self.instrument.tokenizer(tokenizer)
                rebuilt = torch.cat([model.reconstruct(part) for part in real.split(256)])
            floor = self.fidelity(real)
            return {
                "fid_floor": floor.fid,
                "kid_floor": floor.kid,
                "fid_autoencoder": self.fidelity(rebuilt).fid,
                "prompt_accuracy_ceiling": float(verify(self.world, rebuilt.numpy(), ids).exact.mean()),
            }

        return self._cached(f"floors-{tokenizer}-{self.instrument.tokenizer_hash(tokenizer)}-{self.protocol}", compute)

    def evaluate(self, run: Run, method: Method, report: Callable[[str], None]) -> None:
        """Append the run's rows to its evals.jsonl and write samples.png.

        One row per sampler setting on validation captions; then, on test captions, one row for each setting that was best for
        a metric, and one with the raw weights at the setting that was best for prompt accuracy.
        """
        folder = self.results.run(run.run_id)
        path = folder / "evals.jsonl"
        path.unlink(missing_ok=True)
        sampler = Sampler(self.instrument, run, method, folder / "weights.safetensors")
        began = time.perf_counter()
        tried = []
        for index, setting in enumerate(method.settings, start=1):
            report(f"setting {index} of {len(method.settings)}")
            tried.append(self._validation_row(sampler, setting))
            append_line(path, tried[-1])
        if self.settings.validation_only:
            return
        tuning = {
            "settings_tried": len(tried),
            "tuning_flops": sum(row["flops_per_sample"] * row["num_samples"] for row in tried),
            "tuning_seconds": round(time.perf_counter() - began, 2),
        }
        chosen: dict[int, list[str]] = {}
        for metric, key in SELECTION.items():
            best = max(range(len(tried)), key=lambda index: key(tried[index]))
            chosen.setdefault(best, []).append(metric)
        for index, metrics in chosen.items():
            report(f"test captions, best setting for {' and '.join(metrics)}")
            row = self._test_row(sampler, method.settings[index], measure="prompt_accuracy" in metrics)
            append_line(path, {**row, **tuning, "tuned_for": " ".join(metrics)})
        report("test captions, raw weights")
        index = next(index for index, metrics in chosen.items() if "prompt_accuracy" in metrics)
        raw = Sampler(self.instrument, run, method, folder / "weights.safetensors", ema=False)
        append_line(path, {**self._test_row(raw, method.settings[index], measure=False), "tuned_for": "prompt_accuracy"})

    def _draw(self, sampler: Sampler, caption_ids: np.ndarray, setting: Setting, batch: int = SAMPLE_BATCH) -> Tensor:
        """One image per caption, at the evaluation's sample seed."""
        words = torch.from_numpy(self.world.caption_tokens[caption_ids])
        return sampler.images(words, setting, self.settings.seed, batch)

    def _validation_row(self, sampler: Sampler, setting: Setting) -> dict[str, Any]:
        """What the choice of a setting needs: prompt accuracy, and the Frechet distance to renders of the same captions."""
        began, num = time.perf_counter(), self.settings.num_validation
        ids = self.caption_ids("validation", num)
        images = self._draw(sampler, ids, setting)
        row = {**sampler.columns(setting), "split": "validation", "num_samples": num, "sample_seed": self.settings.seed}
        row |= accuracy(verify(self.world, images.numpy(), ids), ids) | self.costs(sampler, setting)
        if num > FEATURE_DIM:
            row["fid"] = fidelity.frechet_distance(fidelity.features(self.instrument.clip, images), self._validation_features)
            row["num_reference"] = len(self._validation_features)
        return {**row, **self._ending(began)}

    @cached_property
    def _validation_features(self) -> np.ndarray:
        """Features of real renders of the validation captions."""
        ids = self.caption_ids("validation", VALIDATION_REFERENCE)
        images = torch.from_numpy(render_captions(self.world, ids, "validation", REFERENCE_OFFSET))
        return fidelity.features(self.instrument.clip, images)

    def _test_row(self, sampler: Sampler, setting: Setting, *, measure: bool) -> dict[str, Any]:
        """All quality columns; with `measure` also speed, the held-out captions and the grid."""
        began, settings = time.perf_counter(), self.settings
        ids = self.caption_ids("test", settings.num_samples)
        images = self._draw(sampler, ids, setting)
        verdict, scores, found = verify(self.world, images.numpy(), ids), self.clip_scores(images, ids), self.fidelity(images)
        row: dict[str, Any] = {
            **sampler.columns(setting),
            "split": "test",
            "num_samples": settings.num_samples,
            "sample_seed": settings.seed,
            "num_reference": settings.num_reference,
            **asdict(found),
            **self.floors(sampler.run.tokenizer),
            "clip_score": float(scores.mean()),
            "clip_score_se": cluster_error(scores, ids),
            "clip_checkpoint": self.extractor,
            **accuracy(verdict, ids),
            **{f"prompt_accuracy_{name}": float(values.mean()) for name, values in verdict.attributes.items()},
            "verifier_probe_agreement": self._probe_agreement(images, ids, verdict),
            **self.costs(sampler, setting),
        }
        if measure:
            speed = measure_speed(
                lambda batch: self._draw(sampler, ids[:batch], setting, batch),
                settings.latency_calls,
                settings.throughput_batches,
            )
            row |= {name: getattr(speed, name) for name in speed.__dataclass_fields__} | self._held_out(sampler, setting)
            save_grid(images, self.results.run(sampler.run.run_id) / "samples.png")
        return {**row, **self._ending(began)}

    def _held_out(self, sampler: Sampler, setting: Setting) -> dict[str, Any]:
        """Prompt accuracy on held-out captions: all of them, and those with one or two objects of a pair never trained on."""
        ids = self.caption_ids("held_out", self.settings.num_held_out)
        verdict = verify(self.world, self._draw(sampler, ids, setting).numpy(), ids)
        row = {}
        for name, chosen in {"heldout": np.ones(len(ids), dtype=bool), **self.world.held_out_levels(ids)}.items():
            part = verdict.exact[chosen]
            if len(part):
                row[f"prompt_accuracy_{name}"] = float(part.mean())
                row[f"prompt_accuracy_{name}_se"] = cluster_error(part, ids[chosen])
        return row

    @torch.inference_mode()
    def _probe_agreement(self, images: Tensor, ids: np.ndarray, verdict: Verdict) -> float:
        words = canonical_tokens(self.world, torch.from_numpy(self.world.caption_tokens[ids]))
        return float((self.instrument.probe.reads(images, words).numpy() == verdict.exact).mean())

    def costs(self, sampler: Sampler, setting: Setting) -> dict[str, Any]:
        """FLOPs of sampling one image, by part, and of decoding it.

        Neither temperature nor the scale of guidance changes them, so that a grid needs few counts.
        """
        run, options = sampler.run, merged(sampler.run.options, setting.options)
        guidance = 1.0 if setting.guidance == 1.0 else 2.0

        def compute() -> dict[str, Any]:
            space, conditions = self.instrument.space(run.tokenizer), self.instrument.conditions
            part = self.instrument.tokenizer_config(run.tokenizer).part
            decoder = Autoencoder(self.instrument.autoencoder_config(part)).to("meta")
            latents = torch.empty(1, decoder.config.grid**2, len(decoder.scale), device="meta")
            cost = count_sampling(
                build_meta(replace(run, options=options), space, conditions),
                conditions.num_tokens,
                conditions.feature_dim,
                steps=setting.steps,
                guidance=guidance,
            )
            return {
                "flops_per_sample": cost.total,
                "flops_per_sample_backbone": cost.backbone,
                "flops_per_sample_head": cost.head,
                "flops_per_sample_text": cost.condition,
                "flops_per_decode": count_call(lambda: decoder.decode_raw(latents)),
            }

        decides = [run.paradigm, run.paradigm_version, options, asdict(run.size), run.tokenizer, setting.steps, guidance]
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
    """Condition tokens to images with one trained run, at any setting."""

    def __init__(self, instrument: Instrument, run: Run, method: Method, weights: Path, *, ema: bool = True) -> None:
        self.instrument, self.run, self.method, self.weights, self.ema = instrument, run, method, weights, ema
        self.decoder = instrument.tokenizer(run.tokenizer)
        self._paradigms: dict[str, Paradigm] = {}

    def paradigm(self, setting: Setting) -> Paradigm:
        """The trained network with a setting's options."""
        options = merged(self.run.options, setting.options)
        key = json.dumps(options, sort_keys=True)
        if key not in self._paradigms:
            space, conditions = self.instrument.space(self.run.tokenizer), self.instrument.conditions
            built = build_paradigm(replace(self.run, options=options), space, conditions)
            self._paradigms[key] = load_weights(built, self.weights, self.ema)
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

    @torch.inference_mode()
    def images(self, words: Tensor, setting: Setting, seed: int, batch: int = SAMPLE_BATCH) -> Tensor:
        """One image per row of condition tokens (n, M): (n, 3, H, H) uint8; the noise depends on the seed alone."""
        paradigm = self.paradigm(setting)
        generator = torch.Generator(paradigm.device).manual_seed(seed)
        out = []
        for part in words.to(paradigm.device).split(batch):
            tokens = paradigm.sample(
                Condition.of(part),
                steps=setting.steps,
                guidance=setting.guidance,
                temperature=setting.temperature,
                generator=generator,
            )
            out.append(self.decoder.decode(tokens.cpu()))
        return torch.cat(out)


def accuracy(verdict: Verdict, ids: np.ndarray) -> dict[str, float]:
    """Prompt accuracy with its standard error clustered by caption, and the mean attribute score."""
    return {
        "prompt_accuracy": float(verdict.exact.mean()),
        "prompt_accuracy_se": cluster_error(verdict.exact, ids),
        "prompt_accuracy_attributes": float(verdict.mean_attributes.mean()),
    }


def cluster_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of a mean (n,) whose members share captions (n,): the sandwich estimator over caption sums.

    Shares of 0 or 1 show no variation; they get the binomial error of (x + 1) / (n + 2) instead (Laplace's rule).
    """
    n, deviations = len(values), values.astype(np.float64) - values.mean()
    _, inverse = np.unique(clusters, return_inverse=True)
    sums = np.bincount(inverse, weights=deviations)
    if not deviations.any():
        share = (values.mean() * n + 1) / (n + 2)
        return float(np.sqrt(max(share * (1 - share), 0.0) / n))
    return float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum()) / n)


def _by_accuracy(row: dict[str, Any]) -> tuple[float, float]:
    return row["prompt_accuracy"], row["prompt_accuracy_attributes"]


def _by_fid(row: dict[str, Any]) -> float:
    return -row.get("fid", math.inf)


SELECTION: dict[str, Callable[[dict[str, Any]], Any]] = {"prompt_accuracy": _by_accuracy, "fid": _by_fid}
"""The metrics that a setting is chosen for, with what ranks the validation rows."""


def save_grid(images: Tensor, path: Path) -> None:
    """The first images in rows of 8, as PNG (never JPEG: its artifacts change what the verifier reads)."""
    shown = images[:GRID_IMAGES]
    rows = [torch.cat(list(row), dim=2) for row in shown.split(GRID_COLUMNS) if len(row) == GRID_COLUMNS]
    if rows:
        Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path)
