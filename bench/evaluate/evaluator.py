"""Everything measured on one trained model: settings chosen on validation conditions, then the rows on test conditions.

Letters: n images, M condition tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from torch import Tensor

from bench.config.experiment import Evaluation, Method, Setting, merged
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.evaluate.examples import example_places, save_examples
from bench.evaluate.image_stream import ImageStream
from bench.evaluate.latency import measure_speed
from bench.evaluate.open import open_judge
from bench.evaluate.sampler import GRID_IMAGES, Sampler, save_grid
from bench.evaluate.search import climb
from bench.evaluate.validation import ValidationImages, validation_columns
from bench.files import append_line, read_lines
from bench.flops.evaluation import Measured, affordable, dearest, num_validation_images
from bench.flops.sampling import count_sampling
from bench.model import build_meta
from bench.results.folder import Results
from bench.results.identity import Identity, read_identity


class Evaluator:
    """Evaluates the runs of one experiment."""

    def __init__(self, dataset: TokenizedData, settings: Evaluation, results: Results) -> None:
        self.dataset, self.settings, self.results = dataset, settings, results
        self.judge = open_judge(dataset, settings, results)
        self._validation_images: dict[tuple[str, int], ValidationImages] = {}

    def evaluate(self, run: Run, method: Method, report: Callable[[str], None]) -> None:
        """Append the run's rows to its evals.jsonl and write samples.png and examples.png.

        One row per sampler setting on validation captions; then, on test captions, one row for each setting that was best for
        a metric, and one with the raw weights at the setting that was best for prompt accuracy. Where a share of training bounds
        the cost there are fewer settings and no raw weights, and one row without samples where it does not pay for them.
        """
        folder = self.results.run_folder(run.run_id)
        path = folder.evals
        path.unlink(missing_ok=True)
        sampler = Sampler(self.dataset, run, method, folder.weights)
        report("validation loss")
        began = time.perf_counter()
        averaged = self.validation(sampler)
        affords = self._affords(sampler)
        if affords is not None and not affords.is_sampled:
            append_line(path, {"ema": True, **averaged, **self._ending(began)})
            return
        began = time.perf_counter()
        tried, source = self._try_settings(sampler, averaged, affords, report)
        if self.settings.validation_only:
            return
        tuning = {
            "settings_tried": len(tried),
            "setting_source": source,
            "tuning_flops": sum(row["flops_per_sample"] * row["num_samples"] for row in tried.values()),
            "tuning_seconds": round(time.perf_counter() - began, 2),
        }
        chosen: dict[int, list[str]] = {}
        for metric, key in self.judge.selection.items():
            best = max(tried, key=lambda index: key(tried[index]))
            chosen.setdefault(best, []).append(metric)
        first = next(iter(self.judge.selection))
        condition_tokens = self.judge.conditions("test", self.settings.num_samples)
        for index, metrics in chosen.items():
            report(f"test conditions, best setting for {' and '.join(metrics)}")
            row = self._test_row(sampler, condition_tokens, method.settings[index], measure=first in metrics)
            append_line(path, {**row, **averaged, **tuning, "tuned_for": " ".join(metrics)})
        if affords is not None:
            return
        report("test conditions, raw weights")
        index = next(index for index, metrics in chosen.items() if first in metrics)
        raw = Sampler(self.dataset, run, method, folder.weights, ema=False)
        row = self._test_row(raw, condition_tokens, method.settings[index], measure=False)
        append_line(path, {**row, **self.validation(raw), "tuned_for": first})

    def _affords(self, sampler: Sampler) -> Measured | None:
        """What the run's share pays for; None where there is no share."""
        if self.settings.share is None:
            return None
        run, method = sampler.run, sampler.method
        training = self.results.run_folder(run.run_id).record.training

        def cost(setting: Setting) -> float:
            found = self.costs(sampler, setting)
            return float(found["flops_per_sample"] + found["flops_per_decode"])

        return affordable(
            self.settings,
            run,
            num_tokens=self.dataset.space(run.tokenizer).num_tokens,
            flops_per_image=training["flops_per_image"],
            flops_per_sample=dearest(method.settings, cost),
            num_settings=len(method.settings),
        )

    def _try_settings(
        self, sampler: Sampler, averaged: dict[str, Any], affords: Measured | None, report: Callable[[str], None]
    ) -> tuple[dict[int, dict[str, Any]], str | None]:
        """The validation rows of the settings that were tried, by their index, and how they were found."""
        settings, path = sampler.method.settings, self.results.run_folder(sampler.run.run_id).evals
        condition_tokens = self.judge.conditions("validation", self.settings.num_validation)

        def measure(index: int) -> dict[str, Any]:
            report(f"setting {index + 1} of {len(settings)}")
            row = self._validation_row(sampler, condition_tokens, settings[index]) | averaged
            append_line(path, row)
            return row

        if affords is None or affords.tries >= len(settings):
            return {index: measure(index) for index in range(len(settings))}, None if affords is None else "searched"
        starts = self._carried(sampler)
        tried = climb(settings, starts, affords.tries, measure, list(self.judge.selection.values()))
        return tried, "carried" if starts else "climbed"

    def _carried(self, sampler: Sampler) -> list[int]:
        """The settings that the nearest sampled rung below, of the same trunk, chose; none where there is no such rung."""
        run, settings = sampler.run, sampler.method.settings
        for below in reversed(self._identity.trunks[run.trunk_id]):
            path = self.results.run_folder(below.run_id).evals
            if below.flops_budget >= run.flops_budget or not path.exists():
                continue
            rows = [row for row in read_lines(path) if row.get("tuned_for")]
            kept = [i for row in rows for i, s in enumerate(settings) if sampler.columns(s).items() <= row.items()]
            if kept:
                return kept
        return []

    @cached_property
    def _identity(self) -> Identity:
        return read_identity(self.results)

    def _draw(self, sampler: Sampler, condition_tokens: Tensor, setting: Setting, split: str, *, shown: int = 0) -> ImageStream:
        """One image per row of condition tokens, at the sample seed of "validation" or of the test; those of a test or held-out
        split that the examples show are kept, and so many of the first."""
        num = len(condition_tokens)
        keep = set(range(min(shown, num)))
        if split != "validation":
            keep |= set(example_places(num, split).tolist())
        seed = self.judge.sample_seed("validation" if split == "validation" else "test")
        return ImageStream(num, sampler.batches(condition_tokens, setting, seed), keep)

    def _validation_row(self, sampler: Sampler, condition_tokens: Tensor, setting: Setting) -> dict[str, Any]:
        """What the choice of a setting needs."""
        began = time.perf_counter()
        images = self._draw(sampler, condition_tokens, setting, "validation")
        row = {**sampler.columns(setting), "split": "validation", "num_samples": len(condition_tokens)}
        row |= {"sample_seed": self.judge.sample_seed("validation")}
        row |= self.judge.validation_scores(images) | self.costs(sampler, setting)
        return {**row, **self._ending(began)}

    def _test_row(self, sampler: Sampler, condition_tokens: Tensor, setting: Setting, *, measure: bool) -> dict[str, Any]:
        """All quality columns; with `measure` also speed, the held-out conditions and the grid."""
        began, settings = time.perf_counter(), self.settings
        images = self._draw(sampler, condition_tokens, setting, "test", shown=GRID_IMAGES)
        row: dict[str, Any] = {
            **sampler.columns(setting),
            "split": "test",
            "num_samples": settings.num_samples,
            "sample_seed": self.judge.sample_seed("test"),
            **self.judge.test_scores(images, sampler.run.tokenizer),
            **self.costs(sampler, setting),
        }
        if measure:
            row |= self._speed(sampler, condition_tokens, setting)
            drawn = {"test": images}

            def held_out(condition_tokens: Tensor, split: str) -> ImageStream:
                drawn[split] = self._draw(sampler, condition_tokens, setting, split)
                return drawn[split]

            row |= self.judge.held_out(held_out)
            shown = images.at(range(min(GRID_IMAGES, len(images))))
            folder = self.results.run_folder(sampler.run.run_id)
            save_grid(shown, folder.samples, self.judge.prompts(len(shown)), self.judge.obeyed(shown), self.judge.reasons(shown))
            groups = [self.judge.examples(found, split) for split, found in drawn.items()]
            save_examples((found for found in groups if found is not None), folder.examples)
        return {**row, **self._ending(began)}

    def _speed(self, sampler: Sampler, condition_tokens: Tensor, setting: Setting) -> dict[str, Any]:
        """Latency and throughput; with a share measured once for all runs of a size, which differ in their weights alone."""
        settings = self.settings

        def compute() -> dict[str, Any]:
            speed = measure_speed(
                lambda batch: sampler.images(condition_tokens[:batch], setting, self.judge.sample_seed("test"), batch),
                settings.latency_calls,
                settings.throughput_batches,
            )
            return {name: getattr(speed, name) for name in speed.__dataclass_fields__}

        if settings.share is None:
            return compute()
        return self.judge.cached(f"speed-{sampler.device}-{self._cost_key(sampler, setting)}", compute)

    def validation(self, sampler: Sampler) -> dict[str, Any]:
        """Columns of the validation loss; with averaged weights also of the likelihood."""
        run, paradigm = sampler.run, sampler.trained()
        key = run.tokenizer, run.recipe.num_training_images
        if key not in self._validation_images:
            self._validation_images[key] = ValidationImages(self.dataset, *key)
        num = num_validation_images(run.flops_budget, paradigm.space.num_tokens)
        return validation_columns(paradigm, self._validation_images[key], num, likelihood=sampler.ema)

    def costs(self, sampler: Sampler, setting: Setting) -> dict[str, Any]:
        """FLOPs of sampling one image, by part, and of decoding it.

        Neither temperature nor the scale of guidance changes them, so that a grid needs few counts.
        """
        run, options = sampler.run, merged(sampler.run.options, setting.options)
        guidance = 1.0 if setting.guidance == 1.0 else 2.0

        def compute() -> dict[str, Any]:
            space, conditions = self.dataset.space(run.tokenizer), self.dataset.conditions
            cost = count_sampling(
                build_meta(replace(run, options=options), space, conditions),
                conditions,
                steps=setting.steps,
                guidance=guidance,
            )
            return {
                "flops_per_sample": cost.total,
                "flops_per_sample_backbone": cost.backbone,
                "flops_per_sample_head": cost.head,
                "flops_per_sample_text": cost.condition,
                "flops_per_decode": sampler.decoder.autoencoder.decoder_flops(),
            }

        return self.judge.cached(f"costs-{self._cost_key(sampler, setting)}", compute)

    @staticmethod
    def _cost_key(sampler: Sampler, setting: Setting) -> str:
        """Hash of what decides the cost of a sample."""
        run, guidance = sampler.run, 1.0 if setting.guidance == 1.0 else 2.0
        options = merged(run.options, setting.options)
        decides = [run.paradigm, run.paradigm_version, options, asdict(run.size), run.tokenizer, setting.steps, guidance]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    def _ending(self, began: float) -> dict[str, Any]:
        return {
            "protocol": self.judge.protocol,
            "evaluation_seconds": round(time.perf_counter() - began, 2),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }
