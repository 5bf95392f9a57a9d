"""Columns of the tables: their meaning, their type, and where each is shown. The one list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Column:
    """A column of table.csv, plan.csv or both."""

    name: str
    meaning: str
    kind: Literal["number", "text", "truth"] = "number"
    """Text is never read as a number: a hash such as 12e345678 would become infinity."""
    in_table: bool = True
    """Whether table.csv has it."""
    in_plan: bool = False
    """Whether plan.csv has it."""
    printed: bool = False
    """Whether `paradigm-bench plan` prints it."""
    shown: bool = False
    """Whether the report's run table shows it unasked."""
    since: int = 1
    """Schema in which it appeared; a table of an older schema is read with it empty."""


DECILES = tuple(f"object_accuracy_decile_{number}" for number in range(1, 11))
"""Of the kinds of a world with a long tail: the first holds the most frequent tenth of the kinds."""

ALL_COLUMNS = (
    Column("run_id", "readable prefix and hash of the whole training configuration", kind="text", in_plan=True),
    Column("trunk_id", "readable prefix and hash of what the runs of a trunk share", kind="text", in_table=False, in_plan=True),
    Column(
        "method",
        "line of the comparison: the paradigm, or its labelled variant",
        kind="text",
        in_plan=True,
        printed=True,
        shown=True,
    ),
    Column("paradigm", "name in the registry", kind="text", in_plan=True),
    Column(
        "plugin",
        "package, version and hash of the source of a paradigm of another package; empty for built-ins",
        kind="text",
        in_plan=True,
        since=4,
    ),
    Column("plugin_commit", "commit of that package, with + where files differ, if it is known", kind="text", since=4),
    Column("tokenizer", "autoencoder, with the first 12 digits of its weights' SHA-256", kind="text", in_plan=True),
    Column("width", "backbone width", in_plan=True, printed=True, shown=True),
    Column("depth", "backbone blocks", in_plan=True, printed=True),
    Column("num_params", "trainable parameters, all of them", in_plan=True, printed=True),
    Column("seed", "training seed", in_plan=True, printed=True, shown=True),
    Column("flops_budget", "training FLOPs that the run was given", in_plan=True, printed=True, shown=True),
    Column("flops_spent", "training FLOPs billed by the shapes that ran; within 1 % of the budget"),
    Column("flops_spent_causal", "the same with causal attention billed over the visible pairs only"),
    Column("flops_per_image", "mean training FLOPs per image seen, dense attention", in_plan=True, printed=True),
    Column("flops_per_image_causal", "the same with causal attention billed over the visible pairs only", in_plan=True),
    Column("images_seen", "training images, repetitions included", in_plan=True, printed=True),
    Column("epochs", "images_seen over the training set's size", in_plan=True, printed=True),
    Column("steps", "optimizer steps", in_plan=True, printed=True),
    Column("batch_size", "global batch, images", in_plan=True, printed=True),
    Column(
        "hours",
        "estimated hours of training on the machine that planned, the trunk since the rung before included",
        in_table=False,
        in_plan=True,
        printed=True,
    ),
    Column("learning_rate", "peak rate", in_plan=True),
    Column(
        "extrapolated",
        "choices of a ladder that lie outside the range of the law that made them",
        kind="text",
        in_table=False,
        in_plan=True,
    ),
    Column("loss", "training loss of the last logged step, in the method's own unit"),
    Column("loss_unit", "unit of loss; losses of different units do not compare", kind="text", in_plan=True),
    Column(
        "validation_loss",
        "the method's own loss on images that no run trains on, with the same noise, masks and times for every run; compares "
        "within one method",
        shown=True,
        since=4,
    ),
    Column("validation_loss_se", "standard error over these images, which all runs share: differences are known better", since=4),
    Column(
        "validation_bits",
        "bits per image of the negative log-likelihood, or of a bound on it; compares between methods that read the same codes; "
        "averaged weights only",
        shown=True,
        since=4,
    ),
    Column("validation_bits_se", "standard error over these images", since=4),
    Column("validation_images", "images behind validation_loss and validation_bits", since=4),
    Column(
        "split",
        "conditions that were sampled: validation (settings are chosen there) or test; empty for a run that is not sampled",
        kind="text",
    ),
    Column(
        "tuned_for",
        "metrics for which the setting was best on validation conditions; empty on validation rows",
        kind="text",
        shown=True,
    ),
    Column(
        "ema",
        "whether averaged weights were used; raw weights are sampled at the setting chosen with averaged ones",
        kind="truth",
    ),
    Column("sampler_steps", "sampler steps; empty where the sequence fixes them"),
    Column("guidance", "classifier-free guidance scale"),
    Column("temperature", "sampling temperature"),
    Column("sampler_options", "other options of the sampler that the setting changes, as JSON", kind="text"),
    Column(
        "settings_tried", "settings tried on validation conditions: the method's grid, unless a share of training bounds them"
    ),
    Column(
        "setting_source",
        "searched: the whole grid was tried; carried: from the rung below, and no neighbor that was tried is better; climbed: as "
        "carried, from the middle of the grid; empty without a share",
        kind="text",
        since=4,
    ),
    Column("tuning_flops", "FLOPs of sampling for the whole grid"),
    Column("tuning_seconds", "wall seconds of sampling and scoring the whole grid"),
    Column("num_samples", "generated images behind the quality columns"),
    Column(
        "reference", "the real images behind these columns: data, split, hash of their content, resolution, number", kind="text"
    ),
    Column("num_reference", "real images behind fid, kid, precision, recall, density, coverage"),
    Column("sample_seed", "seed of the sampler"),
    Column(
        "fid_network",
        "network whose features fid, kid, precision, recall, density and coverage compare, with its weights' hash",
        kind="text",
    ),
    Column(
        "fid",
        "Frechet distance in the features of fid_network; compares within one fid_network, reference and num_samples",
        shown=True,
    ),
    Column(
        "fid_unbiased",
        "fid less its first-order bias in num_samples, by deleting whole passes over the captions; may be below 0",
    ),
    Column(
        "fid_se",
        "jackknife standard error over generated images, one training seed; a little large for balanced captions",
    ),
    Column("fid_floor", "fid of as many real images against the reference"),
    Column("fid_autoencoder", "fid of as many real images after the autoencoder's round trip"),
    Column(
        "kid",
        "kernel distance in the same features, full U-statistic; may be negative, and is at the floor for balanced captions",
    ),
    Column("kid_se", "jackknife standard error"),
    Column("kid_floor", "kid of as many real images against the reference"),
    Column("precision", "share of generated images inside the real manifold, k = 3"),
    Column("recall", "share of real images inside the generated manifold, k = 3"),
    Column("density", "real neighborhoods around a generated image over k = 5; equal distributions give 1"),
    Column("coverage", "share of real images with a generated one in their neighborhood, k = 5", shown=True),
    Column(
        "inception_score",
        "exp of the mean divergence of class predictions, 10 splits; only with Inception as fid_network",
    ),
    Column("fd_dinov2", "Frechet distance in DINOv2 features"),
    Column("fd_dinov2_se", "jackknife standard error", since=3),
    Column("dinov2_network", "that DINOv2, with its weights' hash and resize", kind="text"),
    Column("clip_score", "mean cosine of image and caption in clip_checkpoint"),
    Column("clip_score_se", "standard error of the mean, clustered by caption"),
    Column("clip_checkpoint", "the CLIP behind clip_score, with its weights' hash", kind="text"),
    Column(
        "prompt_judge", "what decides prompt_accuracy: the exact verifier, or a classifier with its weights' hash", kind="text"
    ),
    Column(
        "prompt_accuracy",
        "share of images that obey every word of unseen captions of seen pairs, or show the class asked for",
        shown=True,
    ),
    Column("prompt_accuracy_se", "standard error clustered by caption, one training seed"),
    Column("prompt_accuracy_attributes", "mean share of count, shape, color, size and relation that hold"),
    Column("prompt_accuracy_count", "share of images with the right number of objects"),
    Column("prompt_accuracy_shape", "mean share of named objects with their shape"),
    Column("prompt_accuracy_color", "mean share of named objects with their color"),
    Column("prompt_accuracy_size", "mean share of named objects with their size"),
    Column("prompt_accuracy_relation", "share of images in which the relation holds"),
    Column(
        "verifier_probe_agreement",
        "share of images on which the verifier and a trained probe agree whether the caption is obeyed",
    ),
    Column(
        "prompt_accuracy_heldout", "prompt_accuracy on captions with a (shape, color) pair that training never showed", shown=True
    ),
    Column("prompt_accuracy_heldout_se", "standard error clustered by caption"),
    Column("prompt_accuracy_heldout_one", "the same where one of the two objects is of such a pair"),
    Column("prompt_accuracy_heldout_one_se", "standard error clustered by caption"),
    Column("prompt_accuracy_heldout_both", "the same where both objects, or several, are of such pairs"),
    Column("prompt_accuracy_heldout_both_se", "standard error clustered by caption"),
    Column("prompt_accuracy_uniform", "prompt_accuracy on unseen captions whose kinds are all equally likely", since=4),
    Column("prompt_accuracy_uniform_se", "standard error clustered by caption", since=4),
    *(
        Column(
            name,
            f"share of the objects that these captions name, of the kinds in tenth {number} by frequency in training, with kind, "
            "color and size right",
            since=4,
        )
        for number, name in enumerate(DECILES, start=1)
    ),
    Column("prompt_accuracy_ceiling", "prompt_accuracy of the autoencoder's reconstructions of real images"),
    Column("flops_per_sample", "FLOPs to sample one image's tokens, guidance included, autoencoder excluded", shown=True),
    Column("flops_per_sample_backbone", "of these in the backbone"),
    Column("flops_per_sample_head", "of these in token embedding and head, diffusion steps of the head included"),
    Column("flops_per_sample_text", "of these in embedding the condition"),
    Column("flops_per_decode", "FLOPs of the autoencoder's decoder per image"),
    Column("latency_ms_b1_first", "milliseconds of the first image at batch 1, allocation and warm-up included"),
    Column("latency_ms_b1_p50", "milliseconds per image at batch 1, median, decoding included", shown=True),
    Column("latency_ms_b1_p90", "90th percentile; empty below 64 calls"),
    Column("images_per_s", "sampling throughput at its best batch", shown=True),
    Column("images_per_s_batch", "that batch"),
    Column("peak_memory_bytes", "peak of the process (CPU) or of the GPU while sampling"),
    Column("train_seconds", "wall seconds of training, trunk included"),
    Column("evaluation_seconds", "wall seconds of sampling and scoring this row"),
    Column("device", "what it ran on", kind="text"),
    Column("num_threads", "torch threads"),
    Column("dtype", "training precision", kind="text", in_plan=True),
    Column(
        "flop_rule",
        "how training was billed: meta-v1 is 3 x the forward pass, meta-v2 every product of the step; budgets compare within one",
        kind="text",
        in_plan=True,
    ),
    Column(
        "off_plan",
        "steps or FLOPs per image that differ by more than 3 % from the plan, with the planned ones; else empty",
        kind="text",
        since=4,
    ),
    Column("protocol", "hash of data, evaluator weights and evaluation settings; rows compare only within one", kind="text"),
    Column("git_sha", "commit of the code", kind="text"),
    Column("timestamp", "UTC, end of the row", kind="text"),
    Column("status", "done, failed or missing", kind="text"),
    Column("error", "first line of the error of a failed run", kind="text"),
)
COLUMNS = {column.name: column.meaning for column in ALL_COLUMNS if column.in_table}
"""Columns of table.csv in their order: name and meaning."""
PLAN_COLUMNS = tuple(column.name for column in ALL_COLUMNS if column.in_plan)
TEXT_COLUMNS = tuple(column.name for column in ALL_COLUMNS if column.kind == "text")
SCHEMA_VERSION = max(column.since for column in ALL_COLUMNS)


def column_dictionary() -> str:
    """docs/columns.md, from ALL_COLUMNS."""
    rows = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in COLUMNS.items())
    plan = "".join(f"| `{c.name}` | {c.meaning} |\n" for c in ALL_COLUMNS if not c.in_table)
    head = "| column | meaning |\n|---|---|\n"
    shared = ", ".join(f"`{c.name}`" for c in ALL_COLUMNS if c.in_plan and c.in_table)
    return (
        f"# Columns of table.csv\n\nSchema {SCHEMA_VERSION}. Missing is empty, never 0.\n\n{head}{rows}\n"
        f"# Columns of plan.csv\n\n{head}{plan}\nand of those above: {shared}.\n"
    )
