"""How far runs are, from their files alone."""

import json
import os
import time
from pathlib import Path

import pytest
from planned import make_plan

from bench.config.run import Run
from bench.results.folder import Results
from bench.results.identity import bind_experiment, read_identity
from bench.sweep import status
from bench.sweep.status import flops_left, progress, run_states, summary


@pytest.fixture
def results(tmp_path: Path) -> Results:
    bind_experiment(Results(tmp_path), make_plan(("next-token", 0, 1.0)).identity)
    return Results(tmp_path)


@pytest.fixture
def runs(results: Results) -> tuple[Run, Run]:
    """Rungs at 2,000 and 4,000 FLOPs, which branch at 1,200 and 2,400."""
    ((low, high),) = read_identity(results).trunks.values()
    return low, high


def write(path: Path, *spent: int) -> None:
    """A line every two seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"loss": 1.0, "learning_rate": 0.1}
    lines = [{**line, "step": i, "flops_spent": flops, "segment_seconds": 2.0 * i} for i, flops in enumerate(spent)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_nothing_is_done_yet(results: Results) -> None:
    states = run_states(results)
    assert [state["status"] for state in states] == ["missing", "missing"]
    assert [state["share"] for state in states] == [0, 0]
    assert [state["flops_left"] for state in states] == [1_200 + 800, 1_200 + 1_600]


def test_a_trunk_counts_for_the_run_that_needs_it(results: Results, runs: tuple[Run, Run]) -> None:
    low = runs[0]
    results.run_folder(low.run_id).save_record(low, status="training")
    write(results.trunk_folder(low.trunk_id).metrics, 500, 900)
    first, second = run_states(results)
    assert (first["status"], first["share"], first["flops_left"], first["flops_per_s"]) == ("training", 0.45, 300 + 800, 200.0)
    assert (second["status"], second["flops_left"], second["flops_per_s"]) == ("missing", 1_200 + 1_600, None)
    assert summary([first, second]) == "2 runs: 1 training, 1 missing; 3.9e+03 FLOPs left at 2e+02 FLOP/s, ETA 0:20"


def test_a_cooldown_is_read_from_its_own_lines(results: Results, runs: tuple[Run, Run]) -> None:
    low, high = runs
    write(results.trunk_folder(low.trunk_id).metrics, 600, 1_200, 1_800)
    write(results.run_folder(low.run_id).metrics, 600, 1_200, 1_500)
    assert progress(results, low) == (1_500, 150.0)
    assert progress(results, high) == (1_800, 300.0)


def test_a_rate_is_not_taken_from_old_lines(results: Results, runs: tuple[Run, Run]) -> None:
    path = results.trunk_folder(runs[0].trunk_id).metrics
    write(path, 500, 900)
    old = time.time() - 2 * status.FRESH_SECONDS
    os.utime(path, (old, old))
    assert progress(results, runs[0]) == (900, None)


@pytest.mark.parametrize("ended", ["trained", "evaluating", "done"])
def test_what_is_trained_has_nothing_left(results: Results, runs: tuple[Run, Run], ended: str) -> None:
    low, high = runs
    results.run_folder(low.run_id).save_record(low, status=ended)
    results.run_folder(high.run_id).save_record(high, status="failed", error="FloatingPointError: loss is nan")
    first, second = run_states(results)
    assert (first["status"], first["share"], first["flops_left"]) == (ended, 1, 0)
    assert (second["status"], second["error"]) == ("failed", "FloatingPointError: loss is nan")


def test_what_is_left_is_counted_once() -> None:
    low, high = (planned.run for planned in make_plan(("mar", 0, 1.0)).runs)
    assert flops_left(low, 0, 0) + flops_left(high, 0, low.branch_flops) == 2_400 + 800 + 1_600
    assert flops_left(high, 2_000, low.branch_flops) == 400 + 1_600
    assert flops_left(high, 3_000, low.branch_flops) == 1_000
    assert flops_left(high, 4_010, low.branch_flops) == 0


@pytest.mark.parametrize(
    ("record", "slurm", "shown"),
    [
        ("missing", "PENDING", "queued"),
        ("interrupted", "PENDING", "queued"),
        ("failed", "RUNNING", "queued"),
        ("training", "PENDING", "queued"),
        ("training", "RUNNING", "training"),
        ("done", "PENDING", "done"),
    ],
)
def test_slurm_holds_a_trunk(
    results: Results, runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch, record: str, slurm: str, shown: str
) -> None:
    results.slurm.mkdir()
    results.slurm_jobs.write_text(json.dumps({runs[0].trunk_id: "7_0", "report": "8"}))
    monkeypatch.setattr(status, "queue", lambda numbers: {"7_0": slurm} if "7_0" in set(numbers) else {})
    if record != "missing":
        results.run_folder(runs[0].run_id).save_record(runs[0], status=record)
    assert run_states(results)[0]["status"] == shown


@pytest.mark.parametrize("text", ['{"status": 7}', '{"status": "lost"}', '{"training": 3}', '{"error": []}', "[]", "{"])
def test_a_damaged_record_is_named(results: Results, runs: tuple[Run, Run], text: str) -> None:
    folder = results.run_folder(runs[0].run_id)
    folder.path.mkdir(parents=True)
    folder.record_file.write_text(text)
    with pytest.raises(ValueError, match=r"run\.json") as caught:
        run_states(results)
    assert len(str(caught.value).splitlines()) == 1
