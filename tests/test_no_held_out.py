"""An experiment without held-out captions trains and evaluates, and its table leaves their columns empty."""

from dataclasses import replace
from pathlib import Path

from miniature import EXPERIMENT

from bench.data.open import open_data
from bench.plan.plan import make_plan
from bench.progress import Display
from bench.results.folder import Results
from bench.results.table import build_table, finished_rows
from bench.sweep.sweep import begin, encode_latents, run_alone


def test_no_held_out_captions_are_asked_for(tmp_path: Path) -> None:
    evaluation = replace(EXPERIMENT.evaluation, num_held_out=0)
    experiment = replace(EXPERIMENT.select(["next-token"]), rungs=(1.0,), num_seeds=((1,),), evaluation=evaluation)
    dataset, results = open_data(experiment.data), Results(tmp_path)
    plan = make_plan(experiment, 4 * 10**9, dataset)
    begin(plan, results, dataset, Display(quiet=True))
    encode_latents(plan, results, dataset, Display(quiet=True))
    run_id = plan.runs[0].run.run_id
    assert run_alone(results, [run_id], Display(quiet=True), train=True) == 0, results.run_folder(run_id).record
    row = finished_rows(build_table(results, plan.rows)).iloc[0]
    assert row["prompt_accuracy"] >= 0
    assert row.filter(like="heldout").isna().all()
