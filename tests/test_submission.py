"""Submissions: an honest one passes, and whatever was tampered with is refused with the reason."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import bench

from bench.config.run import Run
from bench.files import read_json, read_lines, write_lines
from bench.progress import Display
from bench.results.folder import Results
from bench.results.identity import read_identity
from bench.results.table import build_table, load_table, read_plan, save_frame
from bench.submission.reference import Reference
from bench.submission.replay import compare, replay
from bench.submission.rules import load_rules
from bench.submission.submission import read_submission
from bench.submission.verdict import judge

RULES = load_rules()
NEAREST = 0.01
"""Relative spread of the made reference's seeds."""


@pytest.fixture(scope="module")
def reference(swept: Path) -> Reference:
    """Ten made seeds of every run of the miniature sweep, close to its own numbers."""
    identity, table = read_identity(Results(swept)), load_table(swept)
    noise, runs, tables = np.random.default_rng(0), {}, []
    for run_id, run in identity.runs.items():
        for seed in range(10):
            other = replace(run, seed=seed)
            runs[other.run_id] = other
            rows = table[table["run_id"] == run_id].assign(run_id=other.run_id, seed=seed)
            for name in ("validation_loss", "fid"):
                rows[name] *= np.exp(NEAREST * noise.standard_normal())
            tables.append(rows)
    return Reference("made", replace(identity, runs=runs), pd.concat(tables, ignore_index=True))


def retable(folder: Path) -> None:
    """What a careful cheat does last: the table follows the records."""
    results = Results(folder)
    save_frame(build_table(results, read_plan(results)), results.table)


def refused(folder: Path, reference: Reference | None = None) -> tuple[str, ...]:
    return judge(read_submission(folder), reference, RULES).refused


def a_run(folder: Path, method: str = "next-token", rung: int = -1) -> Run:
    runs = [run for run in read_identity(Results(folder)).runs.values() if run.method == method]
    return sorted(runs, key=lambda run: run.flops_budget)[rung]


def change_rows(folder: Path, run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    path = Results(folder).run_folder(run.run_id).evals
    rows = read_lines(path)
    for row in rows:
        change(row)
    write_lines(path, rows)
    retable(folder)


def change_training(folder: Path, run: Run, **changes: Any) -> None:
    """Change what training left behind, in all places that name it."""
    files = Results(folder).run_folder(run.run_id)
    record = read_json(files.record_file)
    record["training"] |= changes
    files.record_file.write_text(json.dumps(record))
    lines = read_lines(files.metrics)
    lines[-1] |= {name: value for name, value in changes.items() if name in lines[-1]}
    write_lines(files.metrics, lines)
    retable(folder)


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def drop(folder: Path, run: Run, *, from_experiment: bool, with_files: bool) -> None:
    results = Results(folder)
    for path in (results.plan, results.table):
        frame = pd.read_csv(path)
        frame[frame["run_id"] != run.run_id].to_csv(path, index=False)
    if from_experiment:
        change_json(results.experiment, lambda content: content["runs"].pop(run.run_id))
    if with_files:
        shutil.rmtree(results.run_folder(run.run_id).path)


def test_an_honest_submission_passes(swept: Path, reference: Reference) -> None:
    found = judge(read_submission(swept), reference, RULES)
    assert found.refused == ()
    assert found.num_in_band == 8
    assert all("changed after its commit" in reason for reason in found.open_because)  # true of a checkout that is worked on


def test_a_number_changed_in_the_table(own_sweep: Path) -> None:
    run, frame = a_run(own_sweep), load_table(own_sweep)
    frame.loc[frame.index[frame["run_id"] == run.run_id][-1], "fid"] *= 0.99
    save_frame(frame, Results(own_sweep).table)
    (said,) = refused(own_sweep)
    assert said.startswith(f"run {run.run_id}, row ")
    assert "fid: " in said
    assert said.endswith("in table.csv")


def test_an_implausible_number_changed_everywhere(own_sweep: Path, reference: Reference) -> None:
    run = a_run(own_sweep)
    change_rows(own_sweep, run, lambda row: row.update(validation_loss=row["validation_loss"] * 0.7))
    assert refused(own_sweep) == ()
    (said,) = refused(own_sweep, reference)
    assert said.startswith(f"run {run.run_id}: validation_loss ")
    assert "reference's 10" in said


@pytest.mark.parametrize(
    ("from_experiment", "with_files", "said"),
    [
        (False, False, "is missing from plan.csv"),
        (True, False, "lies in the folder and is no run of the experiment"),
        (True, True, "next-token, 4e+09 FLOPs: seeds none, other methods have 0"),
    ],
)
def test_a_run_dropped(own_sweep: Path, from_experiment: bool, with_files: bool, said: str) -> None:
    drop(own_sweep, a_run(own_sweep), from_experiment=from_experiment, with_files=with_files)
    assert said in " ".join(refused(own_sweep))


def test_a_run_that_failed(own_sweep: Path) -> None:
    run = a_run(own_sweep)
    change_json(Results(own_sweep).run_folder(run.run_id).record_file, lambda record: record.update(status="failed"))
    retable(own_sweep)
    assert refused(own_sweep) == (f"run {run.run_id} is failed; every run must be finished",)


def test_a_seed_repeated(own_sweep: Path) -> None:
    """One run is handed in as two seeds, with names, records, plan and table that fit."""
    results = Results(own_sweep)
    for run in list(read_identity(results).runs.values()):
        copy = replace(run, seed=1)
        shutil.copytree(results.run_folder(run.run_id).path, results.run_folder(copy.run_id).path)
        content = {copy.run_id: json.loads(json.dumps(copy.content()))}
        change_json(results.experiment, lambda found, content=content: found["runs"].update(content))
        record = results.run_folder(copy.run_id).record_file
        change_json(record, lambda found, content=content: found.update(run=next(iter(content.values()))))
        plan = pd.read_csv(results.plan)
        row = plan[plan["run_id"] == run.run_id].assign(run_id=copy.run_id, seed=1)
        pd.concat([plan, row]).to_csv(results.plan, index=False)
    retable(own_sweep)
    found = refused(own_sweep)
    assert len(found) == 8
    assert all("2 seeds have the same loss" in said for said in found)


def test_a_seed_listed_twice(own_sweep: Path) -> None:
    path = Results(own_sweep).plan
    plan = pd.read_csv(path)
    pd.concat([plan, plan.iloc[:1]]).to_csv(path, index=False)
    retable(own_sweep)
    assert f"run {plan['run_id'][0]} is listed 2 times in plan.csv" in refused(own_sweep)


def test_another_seed_under_the_same_name(own_sweep: Path) -> None:
    run = a_run(own_sweep)
    change_json(Results(own_sweep).experiment, lambda content: content["runs"][run.run_id].update(seed=7))
    found = " ".join(refused(own_sweep))
    assert f"run {run.run_id}: its configuration in experiment.json gives the name next-token-32x2-s7" in found
    assert "seeds 7 instead of 0" in found


def test_a_foreign_protocol(own_sweep: Path) -> None:
    run = a_run(own_sweep)
    change_rows(own_sweep, run, lambda row: row.update(protocol="abcdef01"))
    (said,) = refused(own_sweep)
    assert "rows of 2 protocols" in said
    assert f"abcdef01 ({run.run_id})" in said


def test_an_unmet_budget(own_sweep: Path) -> None:
    run = a_run(own_sweep)
    change_training(own_sweep, run, flops_spent=round(0.9 * run.flops_budget))
    (said,) = refused(own_sweep)
    assert said == f"run {run.run_id} spent 3.6e+09 of 4e+09 training FLOPs, -10.0%; allowed are 1%"


def test_a_loss_that_was_not_logged(own_sweep: Path) -> None:
    run = a_run(own_sweep)
    record = Results(own_sweep).run_folder(run.run_id).record_file
    change_json(record, lambda content: content["training"].update(loss=0.1))
    retable(own_sweep)
    assert "the last line of metrics.jsonl" in " ".join(refused(own_sweep))


def test_settings_left_out(own_sweep: Path) -> None:
    run = a_run(own_sweep, "masked-token")
    path = Results(own_sweep).run_folder(run.run_id).evals
    write_lines(path, read_lines(path)[1:])
    retable(own_sweep)
    assert refused(own_sweep) == (f"run {run.run_id} has 1 of 2 sampler settings in evals.jsonl",)


def test_an_unknown_plugin(own_sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.submission.checks.BUILT_INS", {"diffusion": "", "masked-token": "", "next-token": ""})
    environment = Results(own_sweep).environment
    change_json(environment, lambda content: content["plugins"]["mar"].update(commit=""))
    assert refused(own_sweep) == ("plugin mar has no commit in environment.json; install it from a git checkout and train again",)
    change_json(environment, lambda content: content["plugins"]["mar"].update(commit="0123456789ab+"))
    assert "was changed after its commit" in refused(own_sweep)[0]
    environment.unlink()
    assert refused(own_sweep) == ("environment.json is missing; the sweep writes it when it trains",)


def test_divisions(swept: Path, reference: Reference) -> None:
    """Seeds, budgets and paradigms are free; recipe, evaluation, tokenizers and the size of the search are not."""

    def reasons(**changes: Any) -> str:
        return " ".join(
            judge(submission, replace(reference, identity=replace(reference.identity, **changes)), RULES).open_because
        )

    submission = read_submission(swept)
    evaluation, runs = submission.identity.evaluation, reference.identity.runs
    assert "evaluation num_samples 96 instead of 7" in reasons(evaluation=replace(evaluation, num_samples=7))
    assert "evaluation" not in reasons(evaluation=replace(evaluation, latency_calls=99))
    larger = {name: replace(run, recipe=replace(run.recipe, batch_size=8)) for name, run in runs.items()}
    assert "recipe batch_size 4 instead of 8" in reasons(runs=larger)
    others = {name: replace(run, tokenizer_hash="other") for name, run in runs.items()}
    assert "tokenizer autoencoder-" in reasons(runs=others)
    methods = {name: replace(method, settings=method.settings[:1]) for name, method in submission.identity.methods.items()}
    assert "diffusion tries 2 sampler settings, the reference 1" in reasons(methods=methods)


def one_method(folder: Path, kept: str) -> None:
    """Make a submission of one method's runs."""
    results = Results(folder)
    for run in list(read_identity(results).runs.values()):
        if run.method != kept:
            drop(folder, run, from_experiment=True, with_files=True)
    change_json(results.experiment, lambda content: content.update(methods={kept: content["methods"][kept]}))
    retable(folder)


def test_the_replay(own_sweep: Path, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest rung gives the same numbers again; of records that were changed everywhere only this can tell."""
    one_method(own_sweep, "next-token")
    submission = read_submission(own_sweep)
    assert judge(submission, reference, RULES).refused == ()
    found = replay(submission, tmp_path / "replay", Display(quiet=True))
    same = compare(submission, found, reference, RULES)
    assert (same.num_runs, same.exact, same.refused) == (1, True, ())
    assert not [path for path in own_sweep.rglob("*") if "replay" in path.name]

    def elsewhere() -> dict[str, str]:
        return {"processor": "another", "device": "cpu", "torch": "another"}

    monkeypatch.setattr("bench.submission.replay.processor_kind", elsewhere)
    near = compare(submission, found, reference, RULES)
    assert (near.exact, near.refused) == (False, ())
    far = compare(submission, found.assign(validation_loss=found["validation_loss"] * 2), reference, RULES)
    assert "validation_loss" in far.refused[0]
    (alone,) = compare(submission, found, None, RULES).refused
    assert "1 runs have no reference band" in alone
    monkeypatch.undo()

    run = a_run(own_sweep, rung=0)
    change_rows(own_sweep, run, lambda row: row.update(fid=row["fid"] * 0.999) if "fid" in row else None)
    tampered = read_submission(own_sweep)
    assert judge(tampered, reference, RULES).refused == ()
    (said,) = compare(tampered, found, reference, RULES).refused
    assert said.startswith(f"replay: run {run.run_id}, row ")
    assert ", fid: " in said


def test_the_command_line(own_sweep: Path) -> None:
    passed = bench("check-submission", own_sweep, "--no-replay", "--reference", own_sweep)
    assert passed.status == 0, passed.err
    assert "passes: 8 runs" in passed.out
    assert "not replayed" in passed.out
    change_training(own_sweep, a_run(own_sweep), flops_spent=1)
    failed = bench("check-submission", own_sweep)
    assert failed.status == 2
    assert failed.err.splitlines()[-1].startswith("refused: run next-token-32x2-s0-4.0e09")
    said = json.loads(bench("check-submission", own_sweep, "--json").out)
    assert (said["passes"], said["replay"]) == (False, "none")
    none = bench("check-submission", own_sweep / "nowhere")
    assert (none.status, len(none.err.splitlines()[-1:])) == (2, 1)


def test_a_replay_with_other_weights_is_not_begun(own_sweep: Path, tmp_path: Path) -> None:
    submission = read_submission(own_sweep)
    runs = {name: replace(run, tokenizer_hash="other") for name, run in submission.runs.items()}
    other = replace(submission, identity=replace(submission.identity, runs=runs))
    with pytest.raises(ValueError, match="has tokenizer_hash other, this machine "):
        replay(other, tmp_path / "replay", Display(quiet=True))
    assert not (tmp_path / "replay").exists()
