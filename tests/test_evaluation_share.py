"""Evaluation within a share of training: the rule, a ladder's plan, the search that begins where the rung below ended."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from miniature import EXPERIMENT as MINIATURE
from planned import MACHINE, make_run

from bench.config.experiment import Evaluation, Experiment, Setting, Size, grid
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.evaluate.evaluator import Evaluator
from bench.evaluate.search import climb, neighbors
from bench.files import read_lines
from bench.flops.evaluation import affordable, own_training
from bench.flops.meter import FlopMeter
from bench.model import build_meta
from bench.plan.cells import first_run
from bench.plan.evaluation import plan_evaluation
from bench.plan.plan import Plan, PlannedRun
from bench.results.folder import Results
from bench.results.identity import bind_experiment, read_identity
from bench.results.table import build_table, finished_rows, loss_rows, read_plan

SHAPES = load_experiment("shapes")
LADDER = (Size(width=16, depth=4, num_heads=1), *(Size(width=w, depth=4, num_heads=2) for w in (24, 32, 48, 64)))
RUNGS = (*np.logspace(-2.5, 0, 6).tolist()[:-1], 1.0)
GRID = grid(temperature=(1.0, 0.6, 0.3), guidance=(1.0, 1.5, 2.5))


def ladder(budget: float) -> Experiment:
    """The default's methods on six rungs and five sizes."""
    methods = tuple(replace(m, learning_rates=(1e-3,) * len(LADDER)) for m in SHAPES.methods)
    return replace(
        SHAPES,
        methods=methods,
        sizes=LADDER,
        rungs=RUNGS,
        num_seeds=((1,) * 6,) * 5,
        budget=budget,
        recipe=replace(SHAPES.recipe, batch_size=8),
        evaluation=replace(SHAPES.evaluation, share=0.25),
    )


BUDGET = 5e12


def counted(experiment: Experiment, budget: float) -> Plan:
    """A plan whose costs per image are those of one step each, which is enough for a share and takes a sixteenth of the time."""
    data, runs = open_data(experiment.data), []
    for method in experiment.methods:
        space = data.space(method.tokenizer)
        for size in experiment.sizes:
            first = replace(first_run(experiment, method, experiment.sizes[0], round(budget), data), **asdict(size))
            meta = build_meta(first, space, data.conditions)
            cost = float(FlopMeter(meta, data.conditions, first.flop_rule).count(1, 0).dense)
            for share in experiment.rungs:
                run = replace(first, flops_budget=round(budget * share))
                runs.append(
                    PlannedRun(
                        run=run,
                        method=method,
                        num_params=1,
                        flops_per_image=cost,
                        flops_per_image_causal=cost,
                        flops_per_second=1e10,
                        num_training_images=65_536,
                        loss_unit="",
                    )
                )
    return Plan(experiment, round(budget), tuple(runs), MACHINE, {})


@pytest.mark.slow
def test_evaluation_of_a_ladder_costs_at_most_a_quarter_of_training() -> None:
    plan, data = counted(ladder(BUDGET), BUDGET), open_data(SHAPES.data)
    planned = plan_evaluation(plan, plan.experiment.evaluation, data)
    assert len(planned.measured) == 4 * 5 * 6
    assert planned.share <= 0.25
    assert planned.flops == pytest.approx(sum(each.flops for each in planned.measured.values()))
    sampled = [each for each in planned.measured.values() if each.is_sampled]
    assert 0 < len(sampled) < 120
    whole_grid = len(SHAPES.methods[0].settings)
    assert {each.tries for each in sampled} >= {3, whole_grid}  # three settings where they just fit, a whole grid at the top
    assert f"{len(sampled)} of 120 runs are sampled" in str(planned)


@pytest.mark.parametrize(("budget", "sampled"), [(1e10, False), (1e14, True)])
def test_a_run_spends_no_more_than_its_share(budget: float, sampled: bool) -> None:
    evaluation, run = replace(SHAPES.evaluation, share=0.25), make_run(budget=round(budget))
    costs = {"num_tokens": 16, "flops_per_image": 6e6, "flops_per_sample": 5e7, "num_settings": 9}
    found = affordable(evaluation, run, **costs)
    assert found.is_sampled is sampled
    assert found.flops <= 0.25 * own_training(run) < 0.25 * budget
    assert not affordable(replace(evaluation, share=1e-9), run, **costs).is_sampled


def test_neighbors_differ_by_one_step_of_one_value() -> None:
    middle = GRID.index(Setting(temperature=0.6, guidance=1.5))
    found = {(GRID[i].temperature, GRID[i].guidance) for i in neighbors(GRID, middle)}
    assert found == {(1.0, 1.5), (0.3, 1.5), (0.6, 1.0), (0.6, 2.5)}
    corner = GRID.index(Setting(temperature=1.0, guidance=1.0))
    assert {(GRID[i].temperature, GRID[i].guidance) for i in neighbors(GRID, corner)} == {(0.6, 1.0), (1.0, 1.5)}


def rows_of(scores: np.ndarray, starts: list[int], tries: int) -> dict[int, dict[str, float]]:
    return climb(GRID, starts, tries, lambda i: {"score": float(scores[i])}, [lambda row: row["score"]])


@pytest.mark.parametrize("best", range(9))
def test_a_climb_finds_the_top_of_a_hill(best: int) -> None:
    places = np.array([(i // 3, i % 3) for i in range(9)])
    hill = -np.abs(places - places[best]).sum(1)
    for start in range(9):
        rows = rows_of(hill, [start], 9)
        assert max(rows, key=lambda i: rows[i]["score"]) == best
    assert set(rows_of(hill, [best], 9)) == {best, *neighbors(GRID, best)}  # a carried setting and its check
    assert next(iter(rows_of(hill, [], 9))) == 4


def test_a_climb_keeps_to_its_tries() -> None:
    for tries in range(1, 10):
        assert len(rows_of(np.arange(9), [0], tries)) == tries if tries < 6 else True


def test_two_metrics_climb_together() -> None:
    rows = climb(GRID, [8], 9, lambda i: {"a": -i, "b": i}, [lambda row: row["a"], lambda row: row["b"]])
    assert {0, 8} <= set(rows)


def test_without_a_share_nothing_of_an_experiment_changes(tmp_path: Path) -> None:
    plain, shared = Evaluation(), Evaluation(share=0.25)
    assert "share" not in plain.content
    assert shared.content == {**plain.content, "share": 0.25}
    assert Evaluation.from_dict(json.loads(json.dumps(plain.content))) == plain
    assert Evaluation.from_dict(json.loads(json.dumps(shared.content))) == shared


def evaluated(swept: Path, folder: Path, share: float) -> Results:
    """The miniature sweep's next-token runs, trained already, evaluated again within a share."""
    results = Results(Path(shutil.copytree(swept, folder)))
    identity = read_identity(results)
    results.experiment.unlink()
    settings = grid(temperature=(1.0, 0.6, 0.3))
    method = replace(identity.methods["next-token"], settings=settings)
    changed = replace(MINIATURE.evaluation, share=share, num_samples=60, num_held_out=8, num_validation=70, latency_calls=2)
    bind_experiment(results, replace(identity, evaluation=changed, methods={**identity.methods, "next-token": method}))
    evaluator = Evaluator(open_data("shapes32"), changed, results)
    for run in sorted((r for r in identity.runs.values() if r.method == "next-token"), key=lambda r: r.flops_budget):
        evaluator.evaluate(run, method, lambda _: None)
    return results


def test_a_share_that_pays_for_nothing_leaves_the_loss(swept: Path, tmp_path: Path) -> None:
    results = evaluated(swept, tmp_path / "poor", 0.01)
    frame = build_table(results, read_plan(results))
    mine = frame[frame["method"] == "next-token"]
    assert len(mine) == 2
    assert mine["validation_loss"].notna().all()
    assert mine[["fid", "num_samples", "split", "tuned_for"]].isna().all().all()
    assert finished_rows(mine).empty
    assert len(loss_rows(mine)) == 2


def test_a_rung_begins_where_the_one_below_ended(swept: Path, tmp_path: Path) -> None:
    rich = evaluated(swept, tmp_path / "rich", 1e4)
    frame = build_table(rich, read_plan(rich))
    mine = finished_rows(frame[frame["method"] == "next-token"])
    assert set(mine["setting_source"]) == {"searched"}
    assert set(mine["settings_tried"]) == {3}
    assert mine["fid"].notna().all()
    assert frame[(frame["method"] == "next-token") & (frame["ema"] == False)].empty  # noqa: E712
    runs = sorted((r for r in read_identity(rich).runs.values() if r.method == "next-token"), key=lambda r: r.flops_budget)
    lower = [row for row in read_lines(rich.run_folder(runs[0].run_id).evals) if row.get("tuned_for")]
    evaluator = Evaluator(open_data("shapes32"), read_identity(rich).evaluation, rich)
    from bench.evaluate.sampler import Sampler

    method = read_identity(rich).methods["next-token"]
    sampler = Sampler(evaluator.dataset, runs[1], method, rich.run_folder(runs[1].run_id).weights)
    carried = evaluator._carried(sampler)
    assert [method.settings[i].temperature for i in carried] == [row["temperature"] for row in lower]
    assert evaluator._carried(Sampler(evaluator.dataset, runs[0], method, rich.run_folder(runs[0].run_id).weights)) == []
