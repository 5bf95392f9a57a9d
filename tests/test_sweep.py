"""The whole path through the command line, in miniature and for real; then the same command again."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import MINIATURE, ONE_RUNG, bench, sweep_of, variant
from miniature import SAME
from PIL import Image

from bench.report.interactive import EXPLORED
from bench.results.columns import COLUMNS, DECILES
from bench.results.folder import Results
from bench.results.table import build_table, finished_rows, load_table

MAY_BE_EMPTY = {"error", "git_sha", "latency_ms_b1_p90", "sampler_steps", "sampler_options"}
MAY_BE_EMPTY |= {"inception_score", "fd_dinov2", "fd_dinov2_se", "dinov2_network"}  # of real images only
MAY_BE_EMPTY |= {"fid_unbiased"}  # needs two passes over the test captions
MAY_BE_EMPTY |= {"setting_source"}  # of a share of training only
MAY_BE_EMPTY |= {"plugin", "plugin_commit", "off_plan"}  # of plugins, and of runs that left their plan
MAY_BE_EMPTY |= {"validation_bits", "validation_bits_se"}  # of codes only
MAY_BE_EMPTY |= {"prompt_accuracy_heldout_both", "prompt_accuracy_heldout_both_se"}  # few captions have two held-out pairs
MAY_BE_EMPTY |= {"prompt_accuracy_uniform", "prompt_accuracy_uniform_se", *DECILES}  # of the sprites
TEST_ROW_ONLY = {"tuned_for", "kid", "clip_score", "latency_ms_b1_p50", "prompt_accuracy_heldout"}


def test_it_finishes(swept: Path) -> None:
    for name in ("plan.csv", "table.csv", "report.html", "figures/samples.png", "figures/fid-against-training-flops.svg"):
        assert (swept / name).stat().st_size > 0
    assert "trained and evaluated in" in (swept.parent / "err.txt").read_text()
    assert "8 runs on 4 trunks" in (swept.parent / "out.txt").read_text()


def test_table_is_complete(swept: Path) -> None:
    frame = load_table(swept)
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


def test_the_validation_loss_is_the_weights_alone(swept: Path) -> None:
    """One value for the averaged weights of a run, in all their rows, and another for the raw ones; bits for codes."""
    frame = load_table(swept)
    assert frame[["validation_loss", "validation_loss_se", "validation_images"]].notna().all().all()
    assert set(frame["validation_images"]) == {64, 96}  # of the lower and the upper rung
    assert (frame.groupby(["run_id", "ema"])["validation_loss"].nunique() == 1).all()
    assert frame.groupby("run_id")["validation_loss"].nunique().eq(2).all()
    codes = frame["tokenizer"].str.startswith("autoencoder-fsq") & frame["ema"].eq(True)
    assert (frame["validation_bits"].notna() == codes).all()
    bound = frame[codes & (frame["method"] == "next-token")]
    assert np.allclose(bound["validation_bits"], bound["validation_loss"] * 16 / np.log(2))


def test_settings_are_chosen_on_validation_captions(swept: Path) -> None:
    """For each run and metric the test row has the setting whose validation row is best; raw weights have that of accuracy."""
    frame = load_table(swept)
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


def test_budgets_are_met(swept: Path) -> None:
    rows = finished_rows(load_table(swept))
    assert ((rows["flops_spent"] / rows["flops_budget"] - 1).abs() <= 0.01).all()
    assert (rows["images_seen"] == rows["steps"] * rows["batch_size"]).all()
    next_token = rows[rows["method"] == "next-token"]
    assert (next_token["flops_spent_causal"] < next_token["flops_spent"]).all()


def test_every_paradigm_saw_the_same_images(swept: Path) -> None:
    from bench.data.latents import TrainingData

    files = sorted((swept / "cache").glob("latents-*"))
    assert len(files) == 2
    data = [TrainingData(f) for f in files]
    for step in (0, 3, 700):
        assert (data[0].indices(0, step, 4) == data[1].indices(0, step, 4)).all()
        assert (data[0].batch(0, step, 4)[1] == data[1].batch(0, step, 4)[1]).all()


def test_metrics_are_whole_and_end_at_the_budget(swept: Path) -> None:
    for row in finished_rows(load_table(swept)).to_dict("records"):
        lines = [json.loads(x) for x in Results(swept).run_folder(row["run_id"]).metrics.read_text().splitlines()]
        spent = [line["flops_spent"] for line in lines]
        assert spent == sorted(spent)
        assert spent[-1] == row["flops_spent"]
        assert lines[-1]["learning_rate"] < 0.1 * row["learning_rate"]


def test_the_same_command_does_nothing(own_sweep: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (own_sweep / "runs").rglob("*") if p.is_file()}
    table = (own_sweep / "table.csv").read_bytes()
    again = bench(*sweep_of(MINIATURE, own_sweep))
    assert again.status == 0, again.err
    assert "nothing to train" in again.err
    assert before == {p: p.stat().st_mtime_ns for p in (own_sweep / "runs").rglob("*") if p.is_file()}
    assert (own_sweep / "table.csv").read_bytes() == table


def test_an_interrupted_sweep_repeats_only_what_is_missing(own_sweep: Path) -> None:
    """One run is lost as if killed in training: it alone trains again, from its trunk, to the same numbers."""
    before = load_table(own_sweep)
    lost = finished_rows(before).query("method == 'next-token'")["run_id"].iloc[-1]
    folder = Results(own_sweep).run_folder(lost).path
    (folder / "weights.safetensors").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "training"}))
    others = {p: p.stat().st_mtime_ns for p in (own_sweep / "runs").rglob("*") if p.is_file() and folder not in p.parents}
    again = bench(*sweep_of(MINIATURE, own_sweep))
    assert again.status == 0, again.err
    assert "training 1 runs on 1 trunks (7 runs done before)" in again.err
    assert others == {p: p.stat().st_mtime_ns for p in others}
    pd.testing.assert_frame_equal(before[SAME], load_table(own_sweep)[SAME])


def test_figures_are_drawn(swept: Path) -> None:
    pictures = sorted((swept / "figures").glob("*.png"))
    assert len(pictures) >= 10
    for path in pictures:
        with Image.open(path) as image:
            colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None
        assert len(colors) > 20
    page = (swept / "report.html").read_text()
    here = {path.stem for path in pictures if not path.stem.endswith(EXPLORED)} - {"samples", "examples"}
    assert set(re.findall(r'<figure id="([^"]*)"', page)) == here
    assert page.count("<img") == len(here)
    assert len(page) < 3e6


def test_another_experiment_is_refused(swept: Path) -> None:
    done = bench("plan", "--experiment", MINIATURE, "--budget", "8e9", "--results", swept)
    assert done.status == 2
    assert "holds another experiment or budget" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_single_stages_work_on_their_own(own_sweep: Path) -> None:
    run = finished_rows(load_table(own_sweep))["run_id"].iloc[0]
    assert bench("status", own_sweep).out.count("done") == 8
    out = own_sweep / "sampled.png"
    done = bench("sample", own_sweep / "runs" / run, "a large green circle above a small blue square", "--out", out)
    assert done.status == 0, done.err
    with Image.open(out) as image:
        assert image.size == (8 * 32, 32)
    wrong = bench("sample", own_sweep / "runs" / run, "a large mauve circle")
    assert wrong.status == 2
    assert "mauve" in wrong.err
    before = load_table(own_sweep)
    assert bench("evaluate", own_sweep, run).status == 0
    assert bench("table", own_sweep).status == 0
    after = load_table(own_sweep)
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
    partly = "EXPERIMENT = replace(EXPERIMENT, methods=(replace(METHODS['mar'], learning_rates=(1e30,)), METHODS['next-token']))"
    root = tmp_path / "results"
    done = bench(*sweep_of(variant(tmp_path / "partly.py", f"{ONE_RUNG}\n{partly}"), root))
    assert done.status == 1
    frame = load_table(root)
    failed = frame[frame["method"] == "mar"]
    assert set(failed["status"]) == {"failed"}
    assert failed["error"].str.contains(r"loss is (?:nan|inf).* at step \d+.*last checkpoint .*images \d+").any()
    assert set(frame[frame["method"] == "next-token"]["status"]) == {"done"}


def test_loggers_hold_the_whole_curve(swept: Path) -> None:
    """CSV and TensorBoard show every line of metrics.jsonl, those of the trunk before the branch included."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Results(swept).run_folder(finished_rows(load_table(swept))["run_id"].iloc[0]).path
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    table = pd.read_csv(run / "logs" / "csv" / "metrics.csv")
    assert table["step"].tolist() == [line["step"] for line in lines]
    assert table["loss"].tolist() == pytest.approx([line["loss"] for line in lines])
    events = EventAccumulator(str(run / "logs" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [line["step"] for line in lines]
