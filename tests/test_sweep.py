"""The whole path through the command line, in miniature and for real; then the same command again."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from bench.results.columns import COLUMNS
from bench.results.folder import Results
from bench.results.table import build_table, finished_rows, load_table

HERE = Path(__file__).parent
MAY_BE_EMPTY = {"error", "git_sha", "latency_ms_b1_p90", "sampler_steps", "sampler_options"}
MAY_BE_EMPTY |= {"inception_score", "fd_dinov2", "fd_dinov2_se", "dinov2_network"}  # of real images only
MAY_BE_EMPTY |= {"fid_unbiased"}  # needs two passes over the test captions
MAY_BE_EMPTY |= {"prompt_accuracy_heldout_both", "prompt_accuracy_heldout_both_se"}  # few captions have two held-out pairs
TEST_ROW_ONLY = {"tuned_for", "kid", "clip_score", "latency_ms_b1_p50", "prompt_accuracy_heldout"}


def bench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("sweep") / "results"
    return root, bench("sweep", "--experiment", str(HERE / "miniature.py"), "--results", str(root))


def test_it_finishes(swept: tuple) -> None:
    root, done = swept
    assert done.returncode == 0, done.stderr
    for name in ("plan.csv", "table.csv", "report.html", "figures/samples.png", "figures/fid-against-training-flops.svg"):
        assert (root / name).stat().st_size > 0
    assert "trained and evaluated in" in done.stderr


def test_table_is_complete(swept: tuple) -> None:
    root, _ = swept
    frame = load_table(root)
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["status"]) == {"done"}
    rows = finished_rows(frame)
    assert sorted(rows["method"]) == sorted(["diffusion", "mar", "masked-token", "next-token"] * 2)
    empty = [name for name in COLUMNS if rows[name].isna().any()]
    assert set(empty) <= MAY_BE_EMPTY
    tried = frame[(frame["split"] == "validation") & (frame["method"] == "diffusion")]
    assert sorted(tried["guidance"]) == [1.0, 1.0, 2.0, 2.0]
    assert tried[list(TEST_ROW_ONLY)].isna().all().all()
    assert frame["protocol"].nunique() == 1
    shares = [f"flops_per_sample_{part}" for part in ("backbone", "head", "text")]
    assert (rows[shares].sum(axis=1) == rows["flops_per_sample"]).all()


def test_settings_are_chosen_on_validation_captions(swept: tuple) -> None:
    """For each run and metric the test row has the setting whose validation row is best; raw weights have that of accuracy."""
    frame = load_table(swept[0])
    setting = ["sampler_steps", "guidance", "temperature", "sampler_options"]
    for run, rows in frame.groupby("run_id"):
        tried = rows[rows["split"] == "validation"]
        assert (rows["settings_tried"].dropna() == len(tried)).all()
        assert rows["tuning_flops"].dropna().unique() == [(tried["flops_per_sample"] * tried["num_samples"]).sum()]
        for metric, best in (("fid", tried["fid"].idxmin()), ("prompt_accuracy", tried["prompt_accuracy"].idxmax())):
            chosen = finished_rows(rows, metric)
            assert len(chosen) == 1, run
            if metric == "fid" or tried["prompt_accuracy"].max() > tried["prompt_accuracy"].min():
                assert chosen[setting].iloc[0].astype(str).tolist() == tried.loc[best, setting].astype(str).tolist()
        raw = finished_rows(rows, ema=False)
        averaged = finished_rows(rows)
        assert raw[setting].astype(str).to_numpy().tolist() == averaged[setting].astype(str).to_numpy().tolist()
        assert raw["fid"].iloc[0] != averaged["fid"].iloc[0]


def test_budgets_are_met(swept: tuple) -> None:
    rows = finished_rows(load_table(swept[0]))
    assert ((rows["flops_spent"] / rows["flops_budget"] - 1).abs() <= 0.01).all()
    assert (rows["images_seen"] == rows["steps"] * rows["batch_size"]).all()
    next_token = rows[rows["method"] == "next-token"]
    assert (next_token["flops_spent_causal"] < next_token["flops_spent"]).all()


def test_every_paradigm_saw_the_same_images(swept: tuple) -> None:
    from bench.data.latents import TrainingData

    files = sorted((swept[0] / "cache").glob("latents-*"))
    assert len(files) == 2
    data = [TrainingData(f) for f in files]
    for step in (0, 3, 700):
        assert (data[0].indices(0, step, 4) == data[1].indices(0, step, 4)).all()
        assert (data[0].batch(0, step, 4)[1] == data[1].batch(0, step, 4)[1]).all()


def test_metrics_are_whole_and_end_at_the_budget(swept: tuple) -> None:
    root, _ = swept
    for row in finished_rows(load_table(root)).to_dict("records"):
        lines = [json.loads(x) for x in (Results(root).run_folder(row["run_id"]).metrics).read_text().splitlines()]
        spent = [line["flops_spent"] for line in lines]
        assert spent == sorted(spent)
        assert spent[-1] == row["flops_spent"]
        assert lines[-1]["learning_rate"] < 0.1 * row["learning_rate"]


def test_the_same_command_does_nothing(swept: tuple) -> None:
    root, _ = swept
    before = {p: p.stat().st_mtime_ns for p in (root / "runs").rglob("*") if p.is_file()}
    table = (root / "table.csv").read_bytes()
    again = bench("sweep", "--experiment", str(HERE / "miniature.py"), "--results", str(root))
    assert again.returncode == 0, again.stderr
    assert "nothing to train" in again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in (root / "runs").rglob("*") if p.is_file()}
    assert (root / "table.csv").read_bytes() == table


def test_an_interrupted_sweep_repeats_only_what_is_missing(swept: tuple) -> None:
    """One run is lost as if killed in training: it alone trains again, from its trunk, to the same numbers."""
    root, _ = swept
    before = load_table(root)
    lost = finished_rows(before).query("method == 'next-token'")["run_id"].iloc[-1]
    folder = Results(root).run_folder(lost).path
    (folder / "weights.safetensors").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "training"}))
    others = {p: p.stat().st_mtime_ns for p in (root / "runs").rglob("*") if p.is_file() and folder not in p.parents}
    again = bench("sweep", "--experiment", str(HERE / "miniature.py"), "--results", str(root))
    assert again.returncode == 0, again.stderr
    assert "training 1 runs on 1 trunks (7 runs done before)" in again.stderr
    assert others == {p: p.stat().st_mtime_ns for p in others}
    same = ["run_id", "split", "guidance", "steps", "flops_spent", "loss", "fid", "prompt_accuracy", "status"]
    pd.testing.assert_frame_equal(before[same], load_table(root)[same])


def test_figures_are_drawn(swept: tuple) -> None:
    root, _ = swept
    pictures = sorted((root / "figures").glob("*.png"))
    assert len(pictures) >= 10
    for path in pictures:
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None
        assert len(colors) > 20
    page = (root / "report.html").read_text()
    assert page.count("<img") == len(pictures)
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")


def test_another_experiment_is_refused(swept: tuple) -> None:
    root, _ = swept
    done = bench("plan", "--experiment", str(HERE / "miniature.py"), "--budget", "8e9", "--results", str(root))
    assert done.returncode == 2
    assert "holds another experiment or budget" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_single_stages_work_on_their_own(swept: tuple) -> None:
    root, _ = swept
    run = finished_rows(load_table(root))["run_id"].iloc[0]
    assert bench("status", str(root)).stdout.count("done") == 8
    out = root / "sampled.png"
    done = bench("sample", str(root / "runs" / run), "a large green circle above a small blue square", "--out", str(out))
    assert done.returncode == 0, done.stderr
    with Image.open(out) as image:
        assert image.size == (8 * 32, 32)
    wrong = bench("sample", str(root / "runs" / run), "a large mauve circle")
    assert wrong.returncode == 2
    assert "mauve" in wrong.stderr
    before = load_table(root)
    assert bench("evaluate", str(root), run).returncode == 0
    assert bench("table", str(root)).returncode == 0
    after = load_table(root)
    same = ["run_id", "split", "guidance", "fid", "kid", "clip_score", "prompt_accuracy", "precision", "recall"]
    pd.testing.assert_frame_equal(before[same], after[same])


def test_failed_and_missing_runs_are_rows(tmp_path: Path) -> None:
    results = Results(tmp_path)
    plan = [{"run_id": "a", "method": "x"}, {"run_id": "b", "method": "x"}]
    folder = results.run_folder("a")
    folder.path.mkdir(parents=True)
    folder.record_file.write_text(json.dumps({"status": "failed", "error": "out of memory"}))
    frame = build_table(results, plan)
    assert list(frame["status"]) == ["failed", "missing"]
    assert frame["error"].iloc[0] == "out of memory"
    assert frame["fid"].isna().all()
    assert "0" not in frame.drop(columns=["run_id"]).to_csv(index=False, header=False)


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path) -> None:
    """One method's learning rate makes its loss infinite; its rows say so, the other method finishes."""
    rate = "learning_rates=({},),\n            settings=grid(steps=(4,), guidance=(2.0,)),\n            options=MAR_OPTIONS"
    text = (HERE / "miniature.py").read_text().replace(rate.format("2e-3"), rate.format("1e30"))
    assert "1e30" in text
    (tmp_path / "partly.py").write_text(text)
    root = tmp_path / "results"
    done = bench("sweep", "--experiment", str(tmp_path / "partly.py"), "--results", str(root), "--paradigms", "mar,next-token")
    assert done.returncode == 1
    frame = load_table(root)
    assert set(frame[frame["method"] == "mar"]["status"]) == {"failed"}
    assert (
        frame[frame["method"] == "mar"]["error"]
        .str.contains(r"loss is (?:nan|inf).* at step \d+.*last checkpoint .*images \d+")
        .any()
    )
    assert set(frame[frame["method"] == "next-token"]["status"]) == {"done"}


def test_loggers_hold_the_whole_curve(swept: tuple) -> None:
    """CSV and TensorBoard show every line of metrics.jsonl, those of the trunk before the branch included."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, _ = swept
    run = Results(root).run_folder(finished_rows(load_table(root))["run_id"].iloc[0]).path
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    table = pd.read_csv(run / "logs" / "csv" / "metrics.csv")
    assert table["step"].tolist() == [line["step"] for line in lines]
    assert table["loss"].tolist() == pytest.approx([line["loss"] for line in lines])
    events = EventAccumulator(str(run / "logs" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [line["step"] for line in lines]
