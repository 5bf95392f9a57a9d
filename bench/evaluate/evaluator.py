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
from typing import Any

from torch import Tensor

from bench.config.experiment import Evaluation, Method, Setting, merged
from bench.config.run import Run
from bench.data.base import TokenizedData
from bench.evaluate.examples import save_examples
from bench.evaluate.latency import measure_speed
from bench.evaluate.open import open_judge
from bench.evaluate.sampler import GRID_IMAGES, SAMPLE_BATCH, Sampler, save_grid
from bench.evaluate.validation import ValidationImages, num_validation_images, validation_columns
from bench.files import append_line
from bench.flops.sampling import count_sampling
from bench.model import build_meta
from bench.results.folder import Results


class Evaluator:
    """Evaluates the runs of one experiment."""

    def __init__(self, dataset: TokenizedData, settings: Evaluation, results: Results) -> None:
        self.dataset, self.settings, self.results = dataset, settings, results
        self.judge = open_judge(dataset, settings, results)
        self._validation_images: dict[tuple[str, int], ValidationImages] = {}

    def evaluate(self, run: Run, method: Method, report: Callable[[str], None]) -> None:
        """Append the run's rows to its evals.jsonl and write samples.png and examples.png.

        One row per sampler setting on validation captions; then, on test captions, one row for each setting that was best for
        a metric, and one with the raw weights at the setting that was best for prompt accuracy.
        """
        folder = self.results.run_folder(run.run_id)
        path = folder.evals
        path.unlink(missing_ok=True)
        sampler = Sampler(self.dataset, run, method, folder.weights)
        report("validation loss")
        averaged = self.validation(sampler)
        began = time.perf_counter()
        condition_tokens = self.judge.conditions("validation", self.settings.num_validation)
        tried = []
        for index, setting in enumerate(method.settings, start=1):
            report(f"setting {index} of {len(method.settings)}")
            tried.append(self._validation_row(sampler, condition_tokens, setting) | averaged)
            append_line(path, tried[-1])
        if self.settings.validation_only:
            return
        tuning = {
            "settings_tried": len(tried),
            "tuning_flops": sum(row["flops_per_sample"] * row["num_samples"] for row in tried),
            "tuning_seconds": round(time.perf_counter() - began, 2),
        }
        chosen: dict[int, list[str]] = {}
        for metric, key in self.judge.selection.items():
            best = max(range(len(tried)), key=lambda index: key(tried[index]))
            chosen.setdefault(best, []).append(metric)
        first = next(iter(self.judge.selection))
        condition_tokens = self.judge.conditions("test", self.settings.num_samples)
        for index, metrics in chosen.items():
            report(f"test conditions, best setting for {' and '.join(metrics)}")
            row = self._test_row(sampler, condition_tokens, method.settings[index], measure=first in metrics)
            append_line(path, {**row, **averaged, **tuning, "tuned_for": " ".join(metrics)})
        report("test conditions, raw weights")
        index = next(index for index, metrics in chosen.items() if first in metrics)
        raw = Sampler(self.dataset, run, method, folder.weights, ema=False)
        row = self._test_row(raw, condition_tokens, method.settings[index], measure=False)
        append_line(path, {**row, **self.validation(raw), "tuned_for": first})

    def _draw(
        self, sampler: Sampler, condition_tokens: Tensor, setting: Setting, split: str, batch: int = SAMPLE_BATCH
    ) -> Tensor:
        """One image per row of condition tokens, at the split's sample seed."""
        return sampler.images(condition_tokens, setting, self.judge.sample_seed(split), batch)

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
        images = self._draw(sampler, condition_tokens, setting, "test")
        row: dict[str, Any] = {
            **sampler.columns(setting),
            "split": "test",
            "num_samples": settings.num_samples,
            "sample_seed": self.judge.sample_seed("test"),
            **self.judge.test_scores(images, sampler.run.tokenizer),
            **self.costs(sampler, setting),
        }
        if measure:
            speed = measure_speed(
                lambda batch: self._draw(sampler, condition_tokens[:batch], setting, "test", batch),
                settings.latency_calls,
                settings.throughput_batches,
            )
            row |= {name: getattr(speed, name) for name in speed.__dataclass_fields__}
            drawn = {"test": images}

            def held_out(condition_tokens: Tensor, split: str) -> Tensor:
                drawn[split] = self._draw(sampler, condition_tokens, setting, "test")
                return drawn[split]

            row |= self.judge.held_out(held_out)
            shown, folder = images[:GRID_IMAGES], self.results.run_folder(sampler.run.run_id)
            save_grid(shown, folder.samples, self.judge.prompts(len(shown)), self.judge.obeyed(shown), self.judge.reasons(shown))
            groups = [self.judge.examples(found, split) for split, found in drawn.items()]
            save_examples((found for found in groups if found is not None), folder.examples)
        return {**row, **self._ending(began)}

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

        decides = [run.paradigm, run.paradigm_version, options, asdict(run.size), run.tokenizer, setting.steps, guidance]
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        return self.judge.cached(f"costs-{key}", compute)

    def _ending(self, began: float) -> dict[str, Any]:
        return {
            "protocol": self.judge.protocol,
            "evaluation_seconds": round(time.perf_counter() - began, 2),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }
