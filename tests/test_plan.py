import json
from dataclasses import asdict, replace

import pytest

from bench.config.experiment import Experiment
from bench.config.file import load_experiment
from bench.config.run import Run, parse_budget
from bench.config.size import Size
from bench.data.open import open_data
from bench.model import build_meta
from bench.plan import calibrate
from bench.plan.cells import first_run
from bench.plan.cost import RunCost, count_run
from bench.plan.machine import Machine, check_memory, share_devices, worker_bytes
from bench.plan.plan import Plan, make_plan
from bench.randomness import step_seed
from bench.results.columns import PLAN_COLUMNS
from bench.train.ema import power_function_exponent


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("shapes")


@pytest.fixture(scope="module")
def plan(experiment: Experiment) -> Plan:
    return make_plan(experiment, round(experiment.budget), open_data(experiment.data))


def test_every_run_is_planned_once(plan: Plan, experiment: Experiment) -> None:
    cells = len(experiment.methods) * sum(sum(row) for row in experiment.num_seeds)
    assert len(plan.runs) == cells == len({p.run.run_id for p in plan.runs})
    assert list(plan.frame.columns) == list(PLAN_COLUMNS)
    assert plan.frame.notna().all().all()


def test_equal_budgets_and_steps_that_meet_them(plan: Plan) -> None:
    for budget, rows in plan.frame.groupby("flops_budget"):
        assert set(rows["method"]) == {"diffusion", "next-token", "masked-token", "mar"}
        spent = rows["steps"] * rows["batch_size"] * rows["flops_per_image"]
        assert ((spent / budget - 1).abs() <= 0.01).all()


def test_rungs_of_a_trunk_share_it(plan: Plan) -> None:
    for group in plan.trunks.values():
        budgets = [p.run.flops_budget for p in group]
        assert budgets == sorted(budgets)
        assert len({(p.run.method, p.run.size, p.run.seed, p.run.learning_rate) for p in group}) == 1


def test_hours_add_up_to_the_flops_that_run(plan: Plan) -> None:
    """A trunk to its last branch point plus every cooldown."""
    for name, group in plan.trunks.items():
        cooldown = group[0].run.recipe.cooldown
        flops = (1 - cooldown) * group[-1].run.flops_budget + cooldown * sum(p.run.flops_budget for p in group)
        hours = plan.frame[plan.frame["trunk_id"] == name]["hours"].sum()
        assert hours == pytest.approx(flops / group[0].flops_per_second / 3600, rel=0.02, abs=5e-5)


def test_a_budget_that_cannot_be_met_is_refused_with_one_that_can(experiment: Experiment) -> None:
    experiment = experiment.select(["next-token"])
    with pytest.raises(ValueError, match=r"BUDGET is too small: .* use BUDGET=([\d.e+]+) or more") as caught:
        make_plan(experiment, 10**9, open_data(experiment.data))
    enough = float(str(caught.value).split("use BUDGET=")[1].split()[0])
    make_plan(experiment, round(enough), open_data(experiment.data))


def test_years_are_refused_with_the_largest_budget_that_fits(plan: Plan) -> None:
    with pytest.raises(ValueError, match=r"needs about .* more than MAX_HOURS=1e-05; .* about BUDGET=") as caught:
        plan.check_hours(1e-5, plan.asked)
    fits = float(str(caught.value).split("about BUDGET=")[1].split(";")[0])
    assert 0 < fits <= plan.budget * 1e-5 / plan.total_hours


def test_only_missing_runs_count_against_the_hours(plan: Plan) -> None:
    missing = {plan.runs[0].run.run_id}
    left = plan.hours(missing)
    assert 0 < left < plan.total_hours
    plan.check_hours(left, missing)
    with pytest.raises(ValueError, match="more of training on this machine"):
        plan.check_hours(left * 0.9, missing)


@pytest.mark.parametrize("text", ["abc", "-1", "0", "inf", "nan", "", "1e"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(ValueError, match="BUDGET must be a number of training FLOPs"):
        parse_budget(text)


def test_run_survives_json_and_its_name_covers_everything(plan: Plan) -> None:
    run = plan.runs[0].run
    again = Run.from_dict(json.loads(json.dumps(asdict(run))))
    assert again == run
    assert again.run_id == run.run_id
    changes = [
        replace(run, learning_rate=run.learning_rate * 2),
        replace(run, seed=7),
        replace(run, tokenizer_hash="other"),
        replace(run, options={"x": 1}),
        replace(run, recipe=replace(run.recipe, warmup_steps=41)),
        replace(run, flops_budget=run.flops_budget + 1),
    ]
    assert len({run.run_id, *(c.run_id for c in changes)}) == len(changes) + 1
    assert changes[-1].trunk_id == run.trunk_id
    assert changes[0].trunk_id != run.trunk_id


def test_the_hard_preset_is_planned() -> None:
    experiment = load_experiment("shapes64").select(["diffusion"])
    plan = make_plan(experiment, round(experiment.budget), open_data(experiment.data))
    assert {p.run.data.split("@")[0] for p in plan.runs} == {"shapes64"}
    assert plan.frame["flops_per_image"].min() > 1e8


def test_ema_exponent_matches_the_published_table() -> None:
    """Karras et al. 2024: relative widths 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert power_function_exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_function_exponent(0.10) == pytest.approx(6.94, abs=0.01)
    with pytest.raises(ValueError, match="ema_relative_width"):
        power_function_exponent(0.5)


def test_step_seeds_differ() -> None:
    seeds = {step_seed(s, t, p) for s in range(3) for t in range(50) for p in ("posterior", "dropout", "loss")}
    assert len(seeds) == 450


def test_models_that_do_not_fit_are_refused() -> None:
    check_memory(675_000_000, 24 * 10**9)
    check_memory(10**12, None)
    with pytest.raises(ValueError, match=r"10,000,000,000 parameters needs 200 GB on each device.*docs/cluster.md"):
        check_memory(10**10, 141 * 10**9)


def test_small_models_share_a_gpu_as_memory_allows() -> None:
    one = Machine("some GPU", num_workers=4, num_threads=8)
    small = worker_bytes(300_000, 64, 32, 3e7)
    assert 2e9 < small < 2.1e9
    shared = share_devices(one, 64, small, 141 * 10**9)
    assert (shared.num_workers, shared.workers_per_device, shared.num_threads) == (32, 8, 1)
    assert share_devices(one, 64, small, 5 * 10**9).workers_per_device == 2
    assert share_devices(one, 64, small, 10**9) == one
    assert share_devices(one, 512, small, 141 * 10**9) == one
    assert share_devices(one, 64, small, None) == one
    assert share_devices(replace(one, devices=2), 64, small, 141 * 10**9) == replace(one, devices=2)


def test_a_plan_says_when_the_other_precision_is_faster_here(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    data, method = open_data(experiment.data), experiment.methods[0]
    run = first_run(experiment, method, Size(width=128, depth=1, num_heads=2), 10**12, data)

    def cost(size: Size) -> RunCost:
        sized = replace(run, width=size.width, depth=size.depth)
        return count_run(sized, build_meta(sized, data.space(run.tokenizer), data.conditions), data.conditions)

    monkeypatch.setattr(calibrate, "CLEARLY_FASTER", 0.0)
    assert 'precision="bf16"' in calibrate.precision_note(run, data, cost)
    assert calibrate.precision_note(replace(run, width=64), data, cost) == ""
    monkeypatch.setattr(calibrate, "CLEARLY_FASTER", 1e9)
    assert calibrate.precision_note(run, data, cost) == ""
