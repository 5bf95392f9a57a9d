"""The whole path through the command line on a user's own images: four kinds of sources, each swept for real in miniature."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_sets
from command_line import Outcome, bench_process, sweep_of
from PIL import Image

from bench.config.file import load_experiment
from bench.config.size import Size, size
from bench.data.open import open_data
from bench.model import build_meta
from bench.plan.cells import first_run
from bench.plan.cost import count_run
from bench.results.table import finished_rows, load_table

NUM_EACH = 16
SETTINGS = {
    "imagefolder": "condition='class', num_classes=3, judge=INCEPTION",
    "parquet": "condition='class', num_classes=3, image_column='picture', condition_column='kind', judge=CLASSIFIER",
    "webdataset": "condition='caption', text=TEXT, image_column='jpg', condition_column='txt', judge=CLIP",
    "coco": "condition='caption', text=TEXT, split='train2017', evaluation_split='val2017', condition_column='caption', "
    "judge=CLIP",
}
EXPERIMENT = """
from bench.config import *
from pathlib import Path
ROOT = Path({root!r})
INCEPTION = JudgeConfig(inception=str(ROOT / "inception.pth"), dinov2=str(ROOT / "dinov2"))
CLASSIFIER = JudgeConfig(features="classifier")
CLIP = JudgeConfig(inception=str(ROOT / "inception.pth"), clip=str(ROOT / "clip"))
TEXT = TextEncoderConfig(source=str(ROOT / "t5"), num_tokens=5, feature_dim=16)
DATA = ImageData(
    name={kind!r}, source={kind!r}, resolution=16, max_corrupt=0.05,
    autoencoders={{"kl": PretrainedConfig(architecture="AutoencoderKL", source=str(ROOT / "vae"), stride=4, num_channels=4),
                  "own": AutoencoderConfig(bottleneck="fsq", patch=4, width=16, num_decoder_blocks=1, levels=(4, 4))}},
    {options},
)
METHOD = {{"learning_rates": (2e-3,)}}
EXPERIMENT = Experiment(
    name={kind!r}, data=DATA,
    methods=(
        Method(paradigm="diffusion", tokenizer="kl", settings=grid(steps=(2,), guidance=(1.0, 2.0)), **METHOD),
        Method(paradigm="next-token", tokenizer="own", settings=grid(guidance=(1.0,)), **METHOD),
    )[:{methods}],
    sizes=(Size(width=32, depth=2, num_heads=2),), budget=2e9, rungs=(1.0,), num_seeds=((1,),),
    recipe=Recipe(batch_size=4, precision="fp32", warmup_steps=5, num_training_images=3 * 16),
    evaluation=Evaluation(num_samples=20, num_validation=20, num_reference=24, latency_calls=11, throughput_batches=(4,)),
)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    small_sets.write_imagefolder(folder / "imagefolder", NUM_EACH)
    small_sets.write_webdataset(folder / "webdataset", NUM_EACH)
    small_sets.write_parquet(folder / "parquet", NUM_EACH)
    small_sets.write_coco(folder / "coco", NUM_EACH)
    small_sets.save_autoencoder(folder / "vae")
    small_sets.save_t5(folder / "t5")
    small_sets.save_clip(folder / "clip")
    small_sets.save_dinov2(folder / "dinov2")
    small_sets.save_inception(folder / "inception.pth")
    for kind, options in SETTINGS.items():
        text = EXPERIMENT.format(root=str(folder), kind=kind, options=options, methods=2 if kind == "parquet" else 1)
        (folder / f"{kind}.py").write_text(text)
    return folder


def places(root: Path) -> dict[str, str]:
    """All caches below root."""
    return {"PARADIGM_BENCH_CACHE": str(root / "cache"), "HF_HOME": str(root / "hub"), "OMP_NUM_THREADS": "1"}


def bench(root: Path, *arguments: str | Path) -> Outcome:
    """The command line in its own process, whose libraries look for caches when they are loaded."""
    return bench_process(*arguments, **places(root))


def swept(root: Path, kind: str) -> tuple[Path, Outcome]:
    out = root / f"results-{kind}"
    return out, bench(root, *sweep_of(root / f"{kind}.py", out, "--data", str(root / kind)))


@pytest.mark.parametrize(
    "kind", ["imagefolder", pytest.param("webdataset", marks=pytest.mark.slow), pytest.param("coco", marks=pytest.mark.slow)]
)
def test_a_sweep_on_own_images(root: Path, kind: str) -> None:
    out, done = swept(root, kind)
    assert done.status == 0, done.err[-2000:]
    assert "skipped, cannot be read" in done.err
    row = finished_rows(load_table(out)).iloc[0]
    assert np.isfinite(row[["fid", "fid_se", "kid", "precision", "recall", "coverage", "inception_score"]].astype(float)).all()
    assert row["fid_network"].startswith("inception-v3-compat")
    assert row["num_reference"] <= 24
    assert kind in row["reference"]
    assert "16px" in row["reference"]
    if kind == "imagefolder":
        assert np.isfinite(row["fd_dinov2"])
        assert row["tuned_for"] == "fid"
    else:
        assert -1 <= row["clip_score"] <= 1
        assert "clip_score" in row["tuned_for"]
        assert "resized to 32" in row["clip_checkpoint"]
    page = (out / "report.html").read_text()
    assert "inception-v3-compat" in page
    assert row["reference"] in page
    assert (out / "figures" / "samples.png").stat().st_size > 0
    assert not (out / "figures" / "fid-against-training-flops.png").exists()  # one budget is no curve


@pytest.mark.slow
def test_classes_by_name_and_the_same_command_again(root: Path) -> None:
    swept(root, "imagefolder")
    out, done = swept(root, "imagefolder")
    assert done.status == 0, done.err[-2000:]
    assert "nothing to train" in done.err
    run = finished_rows(load_table(out)).iloc[0]["run_id"]
    wrong = bench(root, "sample", out / "runs" / run, "gren", "--out", root / "x.png")
    assert wrong.status == 2
    assert "did you mean 'green'" in wrong.err
    assert len(wrong.err.strip().splitlines()) == 1
    right = bench(root, "sample", out / "runs" / run, "green", "--out", root / "x.png", "--steps", "2")
    assert right.status == 0, right.err
    with Image.open(root / "x.png") as image:
        assert image.size == (8 * 32, 32)
    cached = json.loads(next((root / "cache").glob("imagefolder-*/latents-*/index.json")).read_text())
    assert len(cached["skipped"]) == 1
    assert "broken.jpg" in cached["skipped"][0]


@pytest.mark.slow
def test_own_autoencoder_and_classifier_are_asked_for_then_made(root: Path) -> None:
    """Without them the sweep names the command; with them it runs, and settings are chosen for the classifier's accuracy."""
    out, done = swept(root, "parquet")
    assert done.status == 2
    assert "own.safetensors is missing; make it with `paradigm-bench prepare" in done.err
    assert not (out / "experiment.json").exists()
    code = (
        "from bench.config.file import load_experiment; from bench.data.open import open_data\n"
        "from bench.prepare.networks import NetworkRecipe, own_networks, train_networks\n"
        "from bench.evaluate.image_networks import load_classifier; from bench.progress import Display\n"
        f"dataset = open_data(load_experiment({str(root / 'parquet.py')!r}, {str(root / 'parquet')!r}).data)\n"
        "recipe = NetworkRecipe(autoencoder_steps=200, classifier_steps=300, classifier_batch_images=16)\n"
        "train_networks(dataset, recipe, own_networks(dataset), Display(quiet=True))\n"
        "print(load_classifier(dataset).accuracy)"
    )
    environment = {**os.environ, **places(root)}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert made.returncode == 0, made.stderr[-2000:]
    assert float(made.stdout) > 0.8
    out, done = swept(root, "parquet")
    assert done.status == 0, done.err[-2000:]
    rows = finished_rows(load_table(out))
    assert sorted(rows["method"]) == ["diffusion", "next-token"]
    assert rows["prompt_accuracy"].between(0, 1).all()
    assert rows["prompt_judge"].str.startswith("parquet-classifier-").all()
    assert rows["inception_score"].isna().all()


@pytest.mark.parametrize(
    ("name", "method", "shape", "giga_flops", "tolerance"),
    [
        ("imagenet256", "diffusion-kl-8", size(1152, 28), 711.7, 0.006),
        pytest.param("imagenet256_mar", "mar-diffloss", size(1024, 32), 971 - 58, 0.02, marks=pytest.mark.slow),
    ],
)
def test_plan_needs_neither_data_nor_weights(
    name: str, method: str, shape: Size, giga_flops: float, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DiT-XL/2 costs 711.7 GFLOP per training image as published (118.6 GMAC x 2 x 3); ours has one class token more. MAR-L costs
    971 at its mean mask, less 58 that the published code spends on tokens whose loss it drops."""
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path))
    experiment = load_experiment(name)
    chosen = {each.name: each for each in experiment.methods}[method]
    dataset = open_data(experiment.data)
    run = first_run(experiment, chosen, shape, 10**20, dataset)
    meta = build_meta(run, dataset.space(chosen.tokenizer), dataset.conditions)
    assert count_run(run, meta, dataset.conditions).dense / 1e9 == pytest.approx(giga_flops, rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet256", "cc12m"])
def test_large_experiments_are_planned_anywhere(tmp_path: Path, name: str) -> None:
    """One method of each; what the plan cannot know yet is said, and no folder is claimed."""
    given = ("--experiment", name, "--paradigms", "diffusion", "--budget", "1e19", "--results", tmp_path / name)
    done = bench(tmp_path, "plan", *given)
    assert done.status == 0, done.err
    assert "latent cache: kl-16" in done.out
    assert "weights not on this machine yet: kl-16" in done.err
    assert not (tmp_path / name / "experiment.json").exists()
    assert (tmp_path / name / "plan.csv").exists()
    refused = bench(tmp_path, "sweep", *given)
    assert refused.status == 2
    assert len(refused.err.strip().splitlines()) == 1
