"""What is to be done: jobs of a plan and of a folder, and experiment.json, which both go through."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from planned import make_plan, make_run

from bench.config.data import ImageData, JudgeConfig
from bench.config.tokenizers import AutoencoderConfig, PretrainedConfig, TokenizerConfig
from bench.plan.plan import Plan
from bench.results.folder import Results
from bench.results.identity import Identity, bind_experiment, read_identity
from bench.sweep.jobs import missing_jobs, stored_jobs, training_flops

IMAGES = ImageData(
    name="own",
    source="imagefolder",
    path="/somewhere",
    condition="class",
    num_classes=3,
    resolution=32,
    autoencoders={
        "own": AutoencoderConfig(bottleneck="fsq"),
        "hub": PretrainedConfig(architecture="AutoencoderKL", source="x/y", stride=8, num_channels=4),
    },
    tokenizers={"grouped": TokenizerConfig(part="own", group=2)},
    judge=JudgeConfig(features="classifier"),
)


@pytest.fixture
def plan() -> Plan:
    return make_plan(("next-token", 0, 1e3), ("mar", 0, 1.0), ("mar", 1, 1e2))


def test_a_trunk_is_trained_once_and_each_cooldown_too() -> None:
    """Rungs at 2,000 and 4,000 with a cooldown of 40 %: the trunk goes to 2,400, the cooldowns cost 800 and 1,600."""
    low, high = make_run(budget=2_000), make_run(budget=4_000)
    assert low.trunk_id == high.trunk_id
    assert (low.branch_flops, low.cooldown_flops) == (1_200, 800)
    assert low.branch_flops + low.cooldown_flops == low.flops_budget
    jobs = missing_jobs(make_plan(("mar", 0, 1.0), ("mar", 1, 1.0)), Results(Path("nowhere")))
    assert [job.training_flops for job in jobs] == [2_400 + 800 + 1_600] * 2
    assert training_flops(jobs) == 9_600
    assert training_flops([replace(jobs[0], runs=jobs[0].runs[1:])]) == 4_000


def test_what_is_done_is_left_out_and_the_longest_comes_first(plan: Plan, tmp_path: Path) -> None:
    results = Results(tmp_path)
    jobs = missing_jobs(plan, results)
    assert [(job.method.name, job.runs[0].seed) for job in jobs] == [("mar", 0), ("mar", 1), ("next-token", 0)]
    assert [run.flops_budget for run in jobs[0].runs] == [2_000, 4_000]
    for run, status in zip((*jobs[0].runs, jobs[1].runs[0]), ("done", "done", "trained"), strict=True):
        results.run_folder(run.run_id).save_record(run, status=status)
    left = missing_jobs(plan, results)
    assert [(job.method.name, len(job.runs)) for job in left] == [("mar", 2), ("next-token", 2)]
    results.run_folder(jobs[1].runs[0].run_id).save_record(jobs[1].runs[0], status="done")
    assert missing_jobs(plan, results)[0].runs == jobs[1].runs[1:]


def test_runs_above_a_limit_are_left_for_later(plan: Plan, tmp_path: Path) -> None:
    """So that they can be forecast; their trunks are the same, and the hours are those of what is left."""
    limited = plan.limited(2_000)
    jobs = missing_jobs(limited, Results(tmp_path))
    assert [[run.flops_budget for run in job.runs] for job in jobs] == [[2_000]] * 3
    assert {job.trunk_id for job in jobs} == set(plan.trunks)
    assert limited.identity == plan.identity
    assert limited.total_hours < plan.total_hours
    with pytest.raises(ValueError, match="UP_TO=1e\\+03 leaves no run; the lowest rung has 2e\\+03 training FLOPs"):
        plan.limited(1_000)


def test_a_folder_gives_back_the_jobs_of_its_plan(plan: Plan, tmp_path: Path) -> None:
    results = Results(tmp_path)
    bind_experiment(results, plan.identity)
    by_trunk = {job.trunk_id: job for job in missing_jobs(plan, results)}
    found = stored_jobs(results)
    assert len(found) == len(by_trunk)
    assert all(replace(job, machine=plan.machine) == by_trunk[job.trunk_id] for job in found)


def test_an_identity_survives_json(plan: Plan) -> None:
    for identity in (plan.identity, replace(plan.identity, data=IMAGES)):
        assert Identity.from_dict(json.loads(json.dumps(asdict(identity)))) == identity


def test_a_folder_belongs_to_one_experiment_wherever_its_images_lie(plan: Plan, tmp_path: Path) -> None:
    results, identity = Results(tmp_path / "results"), replace(plan.identity, data=IMAGES)
    bind_experiment(results, identity)
    written = results.experiment.stat().st_mtime_ns
    bind_experiment(results, identity)
    assert results.experiment.stat().st_mtime_ns == written
    moved = replace(identity, data=replace(IMAGES, path="/elsewhere"))
    bind_experiment(results, moved)
    assert read_identity(results) == moved
    for other in (replace(moved, budget=1), replace(moved, runs={}), replace(moved, data="shapes32")):
        with pytest.raises(ValueError, match="holds another experiment or budget") as caught:
            bind_experiment(results, other)
        assert len(str(caught.value).splitlines()) == 1
    assert read_identity(results) == moved


def test_a_folder_that_cannot_be_written_is_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*; give RESULTS a folder"):
        bind_experiment(Results(tmp_path / "file" / "results"), plan.identity)


def test_an_empty_folder_and_foreign_json_are_refused(plan: Plan, tmp_path: Path) -> None:
    results = Results(tmp_path)
    with pytest.raises(ValueError, match="holds no experiment"):
        read_identity(results)
    content = json.loads(json.dumps(asdict(plan.identity)))
    run = next(iter(content["runs"]))
    older = {key: value for key, value in content["runs"][run].items() if key != "width"}
    changes = [{"runs": {run: older}}, {"runs": [1]}, {"runs": {run: {}}}, {"methods": {}, "data": 3}, {"evaluation": {"x": 1}}]
    for change in changes:
        results.experiment.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match="is not of this version"):
            read_identity(results)
    for text in ("{}", '{"runs": {}}'):
        results.experiment.write_text(text)
        with pytest.raises(ValueError, match="is not of this version"):
            stored_jobs(results)


def test_plans_of_old_folders_are_read() -> None:
    """Every results folder of the repository: its runs keep their names."""
    folders = sorted((Path(__file__).parent.parent / "results").glob("*/experiment.json"))
    assert folders
    for path in folders:
        identity = read_identity(Results(path.parent))
        assert identity.runs
        assert all(run.run_id == name for name, run in identity.runs.items())
