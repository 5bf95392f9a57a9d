"""The results folder: where each stage writes, and the table that is derived from it. No torch.

    results/<name>/experiment.json plan.csv table.csv report.html figures/
    results/<name>/runs/<run_id>/run.json metrics.jsonl evals.jsonl weights.safetensors samples.png logs/{csv,tensorboard}/
    results/<name>/trunks/<trunk_id>/  checkpoints to branch from
    results/<name>/cache/              latents, reference features

JSONL is the truth, appended and flushed; `table.csv` is derived, one row per run and sampler setting. Missing is empty, never 0.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

SCHEMA_VERSION = 3

COLUMNS: dict[str, str] = {
    "run_id": "readable prefix and hash of the whole training configuration",
    "method": "line of the comparison: the paradigm, or its labelled variant",
    "paradigm": "name in the registry",
    "tokenizer": "autoencoder, with the first 12 digits of its weights' SHA-256",
    "width": "backbone width",
    "depth": "backbone blocks",
    "num_params": "trainable parameters, all of them",
    "seed": "training seed",
    "flops_budget": "training FLOPs that the run was given",
    "flops_spent": "training FLOPs billed by the shapes that ran; within 1 % of the budget",
    "flops_spent_causal": "the same with causal attention billed over the visible pairs only",
    "flops_per_image": "mean training FLOPs per image seen, dense attention",
    "flops_per_image_causal": "the same with causal attention billed over the visible pairs only",
    "images_seen": "training images, repetitions included",
    "epochs": "images_seen over the training set's size",
    "steps": "optimizer steps",
    "batch_size": "global batch, images",
    "learning_rate": "peak rate",
    "loss": "training loss of the last logged step, in the method's own unit",
    "loss_unit": "unit of loss; losses of different units do not compare",
    "split": "conditions that were sampled: validation (settings are chosen there) or test",
    "tuned_for": "metrics for which the setting was best on validation conditions; empty on validation rows",
    "ema": "whether averaged weights were used; raw weights are sampled at the setting chosen with averaged ones",
    "sampler_steps": "sampler steps; empty where the sequence fixes them",
    "guidance": "classifier-free guidance scale",
    "temperature": "sampling temperature",
    "sampler_options": "other options of the sampler that the setting changes, as JSON",
    "settings_tried": "size of the method's grid on validation conditions",
    "tuning_flops": "FLOPs of sampling for the whole grid",
    "tuning_seconds": "wall seconds of sampling and scoring the whole grid",
    "num_samples": "generated images behind the quality columns",
    "reference": "the real images behind these columns: data, split, hash of their content, resolution, number",
    "num_reference": "real images behind fid, kid, precision, recall, density, coverage",
    "sample_seed": "seed of the sampler",
    "fid_network": "network whose features fid, kid, precision, recall, density and coverage compare, with its weights' hash",
    "fid": "Frechet distance in the features of fid_network; compares within one fid_network, reference and num_samples",
    "fid_unbiased": "fid less its first-order bias in num_samples, by deleting whole passes over the captions; may be below 0",
    "fid_se": "jackknife standard error over generated images, one training seed; a little large for balanced captions",
    "fid_floor": "fid of as many real images against the reference",
    "fid_autoencoder": "fid of as many real images after the autoencoder's round trip",
    "kid": "kernel distance in the same features, full U-statistic; may be negative, and is at the floor for balanced captions",
    "kid_se": "jackknife standard error",
    "kid_floor": "kid of as many real images against the reference",
    "precision": "share of generated images inside the real manifold, k = 3",
    "recall": "share of real images inside the generated manifold, k = 3",
    "density": "real neighborhoods around a generated image over k = 5; equal distributions give 1",
    "coverage": "share of real images with a generated one in their neighborhood, k = 5",
    "inception_score": "exp of the mean divergence of class predictions, 10 splits; only with Inception as fid_network",
    "fd_dinov2": "Frechet distance in DINOv2 features",
    "fd_dinov2_se": "jackknife standard error",
    "dinov2_network": "that DINOv2, with its weights' hash and resize",
    "clip_score": "mean cosine of image and caption in clip_checkpoint",
    "clip_score_se": "standard error of the mean, clustered by caption",
    "clip_checkpoint": "the CLIP behind clip_score, with its weights' hash",
    "prompt_judge": "what decides prompt_accuracy: the exact verifier, or a classifier with its weights' hash",
    "prompt_accuracy": "share of images that obey every word of unseen captions of seen pairs, or show the class asked for",
    "prompt_accuracy_se": "standard error clustered by caption, one training seed",
    "prompt_accuracy_attributes": "mean share of count, shape, color, size and relation that hold",
    "prompt_accuracy_count": "share of images with the right number of objects",
    "prompt_accuracy_shape": "mean share of named objects with their shape",
    "prompt_accuracy_color": "mean share of named objects with their color",
    "prompt_accuracy_size": "mean share of named objects with their size",
    "prompt_accuracy_relation": "share of images in which the relation holds",
    "verifier_probe_agreement": "share of images on which the verifier and a trained probe agree whether the caption is obeyed",
    "prompt_accuracy_heldout": "prompt_accuracy on captions with a (shape, color) pair that training never showed",
    "prompt_accuracy_heldout_se": "standard error clustered by caption",
    "prompt_accuracy_heldout_one": "the same where one of the two objects is of such a pair",
    "prompt_accuracy_heldout_one_se": "standard error clustered by caption",
    "prompt_accuracy_heldout_both": "the same where both objects are of such pairs",
    "prompt_accuracy_heldout_both_se": "standard error clustered by caption",
    "prompt_accuracy_ceiling": "prompt_accuracy of the autoencoder's reconstructions of real images",
    "flops_per_sample": "FLOPs to sample one image's tokens, guidance included, autoencoder excluded",
    "flops_per_sample_backbone": "of these in the backbone",
    "flops_per_sample_head": "of these in token embedding and head, diffusion steps of the head included",
    "flops_per_sample_text": "of these in embedding the condition",
    "flops_per_decode": "FLOPs of the autoencoder's decoder per image",
    "latency_ms_b1_first": "milliseconds of the first image at batch 1, allocation and warm-up included",
    "latency_ms_b1_p50": "milliseconds per image at batch 1, median, decoding included",
    "latency_ms_b1_p90": "90th percentile; empty below 64 calls",
    "images_per_s": "sampling throughput at its best batch",
    "images_per_s_batch": "that batch",
    "peak_memory_bytes": "peak of the process (CPU) or of the GPU while sampling",
    "train_seconds": "wall seconds of training, trunk included",
    "evaluation_seconds": "wall seconds of sampling and scoring this row",
    "device": "what it ran on",
    "num_threads": "torch threads",
    "dtype": "training precision",
    "flop_rule": "version of the FLOP rule",
    "protocol": "hash of data, evaluator weights and evaluation settings; rows compare only within one",
    "git_sha": "commit of the code",
    "timestamp": "UTC, end of the row",
    "status": "done, failed or missing",
    "error": "first line of the error of a failed run",
}


METRICS = ("step", "flops_spent", "loss", "learning_rate", "segment_seconds")
"""What every line of metrics.jsonl has."""

TEXT_COLUMNS = """
run_id trunk_id
method paradigm tokenizer loss_unit split tuned_for sampler_options reference fid_network dinov2_network clip_checkpoint
prompt_judge device dtype flop_rule protocol git_sha timestamp status error
""".split()
"""Never read as numbers: a hash such as 12e345678 would become infinity."""


def column_dictionary() -> str:
    """docs/columns.md, from COLUMNS."""
    rows = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in COLUMNS.items())
    head = f"# Columns of table.csv\n\nSchema {SCHEMA_VERSION}. Missing is empty, never 0.\n\n"
    return f"{head}| column | meaning |\n|---|---|\n{rows}"


class Results:
    """Paths of one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def plan(self) -> Path:
        """The table of planned runs."""
        return self.root / "plan.csv"

    @property
    def table(self) -> Path:
        """The table of results."""
        return self.root / "table.csv"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    @property
    def cache(self) -> Path:
        """What runs of this folder share."""
        return self.root / "cache"

    @property
    def experiment(self) -> Path:
        """What the folder belongs to."""
        return self.root / "experiment.json"

    def run(self, run_id: str) -> Path:
        """Folder of a run."""
        return self.root / "runs" / run_id

    def record(self, run_id: str) -> dict[str, Any]:
        """A run's run.json; empty when there is none."""
        path = self.run(run_id) / "run.json"
        return read_json(path) if path.exists() else {}

    def trunk(self, trunk_id: str) -> Path:
        """Folder of a trunk's checkpoints."""
        return self.root / "trunks" / trunk_id

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the folder this experiment's, or check that it is.

        Raises:
            ValueError: when it holds another experiment, or cannot be written.
        """
        text = json.dumps(identity, indent=1, sort_keys=True)
        if self.experiment.exists():
            found = read_json(self.experiment)
            if _without_path(found) != _without_path(json.loads(text)):
                theirs = f"{found.get('name')} at BUDGET={found.get('budget')}"
                raise ValueError(
                    f"{self.root} holds another experiment or budget ({theirs}, not {identity['name']} at "
                    f"BUDGET={identity['budget']}); give RESULTS another folder"
                )
            if found == json.loads(text):
                return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(self.experiment, text)
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.root}: {error.strerror}; give RESULTS a folder that you may write"
            ) from error


def _without_path(identity: dict[str, Any]) -> dict[str, Any]:
    """An experiment's identity, wherever its images lie."""
    data = identity.get("data")
    return {**identity, "data": {**data, "path": ""}} if isinstance(data, dict) else identity


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_file(path: Path, save: Callable[[Path], None]) -> None:
    """Write a file by `save(temporary path)`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a JSONL file anew."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line, flushed."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: when it holds something else, or was damaged.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it, or delete it and repeat the command that wrote it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; restore it, or delete it and repeat the command that wrote it")
    return found


def read_lines(path: Path, keys: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """All records of a JSONL file; a last line cut off by a kill is dropped.

    Args:
        keys: what every record must have as a number.

    Raises:
        ValueError: naming a line that was damaged, or lacks a key.
    """
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}, is damaged ({error}); delete the line, or train the run again") from error
        if not isinstance(record, dict) or not all(isinstance(record.get(key), int | float) for key in keys):
            wanted = f"an object with {', '.join(keys)}" if keys else "an object"
            raise ValueError(f"{path}, line {number}, is not {wanted}; was it written by another version of paradigm-bench?")
        records.append(record)
    return records


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; missing cells are empty."""
    write_text(path, frame.to_csv(index=False))


def build_table(results: Results, plan: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Derive the table from the runs' records: evaluated rows, failed runs, and planned runs that are missing."""
    rows: list[dict[str, Any]] = []
    for planned in plan:
        record, folder = results.record(planned["run_id"]), results.run(planned["run_id"])
        base = {
            **planned,
            **(record.get("training") or {}),
            "status": record.get("status", "missing"),
            "error": record.get("error"),
        }
        evaluations = read_lines(folder / "evals.jsonl") if base["status"] == "done" else []
        rows += [{**base, **evaluation} for evaluation in evaluations] or [base]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame


def load_table(folder: str | Path) -> pd.DataFrame:
    """The results table of a folder as a DataFrame with the columns of COLUMNS.

    Raises:
        ValueError: when there is no table, it lacks columns, or one of them holds what it cannot.
    """
    path = Path(folder) / "table.csv"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run `make sweep RESULTS={folder}` first")
    frame = read_frame(path)
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}; rebuild it with `paradigm-bench table {folder}`")
    if frame[["run_id", "method"]].isna().any(axis=None):
        raise ValueError(f"{path} has rows without run_id or method; rebuild it with `paradigm-bench table {folder}`")
    return frame


def read_frame(path: Path) -> pd.DataFrame:
    """A table of COLUMNS, or some of them, from CSV: text where COLUMNS say so, `ema` true or false, all else numbers.

    Raises:
        ValueError: naming a column that holds something else.
    """
    frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    for name in frame.columns.difference(TEXT_COLUMNS):
        truth = frame[name].dropna().isin([True, False]).all()
        if name in COLUMNS and not (truth if name == "ema" else pd.api.types.is_numeric_dtype(frame[name])):
            kind = "true or false" if name == "ema" else "numbers"
            raise ValueError(f"{path}: column {name} must hold {kind}; restore the file, or derive it again")
    return frame


TUNED = ("prompt_accuracy", "clip_score", "fid")
"""Metrics that settings are chosen for; a table that lacks the wanted one is read at the next of these."""


def finished_rows(frame: pd.DataFrame, tuned_for: str = "prompt_accuracy", *, ema: bool = True) -> pd.DataFrame:
    """Finished rows on the test captions, at the setting chosen for a metric: one per run."""
    rows = frame[(frame["status"] == "done") & (frame["split"] == "test") & (frame["ema"] == ema)]
    chosen = [metrics.split() if isinstance(metrics, str) else [] for metrics in rows["tuned_for"]]
    target = next((metric for metric in (tuned_for, *TUNED) if any(metric in metrics for metrics in chosen)), tuned_for)
    return rows[pd.Series([target in metrics for metrics in chosen], index=rows.index, dtype=bool)]
