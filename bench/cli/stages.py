"""The stages of a sweep, as the command line calls them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.config.file import DEFAULT_EXPERIMENT, LADDER_EXPERIMENT, load_experiment
from bench.errors import UserError


def make(options: argparse.Namespace, *, to_run: bool) -> tuple[Any, Any, Any]:
    """The plan that the options ask for, its results folder and its data set; a plan to run has the tokenizers' weights."""
    from bench.config.run import parse_budget

    asked = None if options.budget is None else parse_budget(options.budget)
    name = options.experiment or (DEFAULT_EXPERIMENT if asked is None else LADDER_EXPERIMENT)
    experiment = load_experiment(name, options.data)
    budget = round(experiment.budget) if asked is None else asked
    if options.paradigms:
        experiment = experiment.select([name.strip() for name in options.paradigms.split(",")])
    from bench.registry import check_name

    for method in experiment.methods:
        check_name(method.paradigm)
    from bench.data.open import open_data
    from bench.plan.ladder import resolved
    from bench.plan.machine import this_machine
    from bench.plan.plan import make_plan
    from bench.results.folder import Results

    experiment = resolved(experiment, budget)
    clustered = getattr(options, "launcher", "slurm") == "slurm"  # a plan says what either would do
    if options.nodes != 1 and not clustered:
        raise UserError(f"NODES={options.nodes} needs LAUNCHER=slurm; a local sweep has one machine")
    machine = this_machine(options.devices, options.nodes, options.micro_batch, elsewhere=clustered)
    root = options.results or Path("results") / f"{experiment.name}-{budget:.1e}".replace("e+", "e").replace(".0e", "e")
    dataset = open_data(experiment.data)
    if to_run and not experiment.climbs_world:  # which is prepared as the sweep's first stage
        dataset.check_tokenizers(experiment.tokenizers)
    made, up_to = make_plan(experiment, budget, dataset, machine), getattr(options, "up_to", None)
    return made if up_to is None else made.limited(parse_budget(up_to, "UP_TO")), Results(root), dataset


def learning_rate_notes(experiment: Any) -> list[str]:
    """What the experiment's learning-rate search, where results/ holds it, says against the rates in use."""
    from bench.analysis.rates import learning_rate_curves, search_notes
    from bench.results.folder import Results
    from bench.results.table import read_frame

    search = Results(Path("results") / f"{experiment.name}-learning-rates")
    if experiment.search or not search.table.exists():
        return []
    rates = {(m.name, s.width): experiment.rates(m, i) for m in experiment.methods for i, s in enumerate(experiment.sizes)}
    return [f"{search.root}: {note}" for note in search_notes(learning_rate_curves(read_frame(search.table)), rates)]


def print_plan(made: Any, as_json: bool) -> None:
    """Show the plan as a table or as JSON lines."""
    from bench.progress import format_bytes, format_hours, format_number
    from bench.results.columns import ALL_COLUMNS

    frame = made.frame
    if as_json:
        print(frame.to_json(orient="records", lines=True), end="")
        return
    numbers = {column.name: format_number for column in ALL_COLUMNS if column.printed and column.kind == "number"}
    print(frame[[column.name for column in ALL_COLUMNS if column.printed]].to_string(index=False, formatters=numbers))
    print("choices and the laws behind them (* outside the range of the law):")
    for choice in made.choices:
        print(f"  {choice.quantity}: {choice.value}{' *' if choice.extrapolated else ''}; {choice.law}")
    repeated = int((frame["epochs"] > 4).sum())
    if repeated:
        print(f"{repeated} runs see each image more than 4 times: what they show is repetition as well as scale")
    for note in learning_rate_notes(made.experiment):
        print(note)
    if made.precision_note:
        print(made.precision_note)
    machine = made.machine
    print(
        f"{len(made.runs)} runs on {len(made.trunks)} trunks, BUDGET={made.budget:.3g}: about {format_hours(made.total_hours)} "
        f"of training on this machine ({machine.device}, {machine.num_workers} at a time, {machine.num_threads} threads each), "
        "evaluation apart"
    )
    later = len(made.runs) - len(made.asked)
    if later:
        print(f"{later} runs above UP_TO={made.up_to:.3g} are left for later")
    print(f"in all {made.total_flops:.3g} training FLOPs, {made.total_flops / made.budget:.3g} times BUDGET")
    print("latent cache: " + ", ".join(f"{name} {format_bytes(size)}" for name, size in made.cache_bytes.items()))

    from bench.analysis.claims import undecidable
    from bench.analysis.scaling import MIN_SEEDS
    from bench.analysis.traits import method_traits

    open_claims = undecidable(method_traits(asdict(made.identity)), frame)
    if open_claims:
        print(f"claims that these seeds cannot decide (fewer than {MIN_SEEDS} where they read): {'; '.join(open_claims)}")


def plan(options: argparse.Namespace) -> None:
    """Count every run and write plan.csv."""
    made, results, dataset = make(options, to_run=False)
    print_plan(made, options.json)
    if made.experiment.evaluation.share is not None and not options.json:
        from bench.plan.evaluation import plan_evaluation

        print(plan_evaluation(made, made.experiment.evaluation, dataset))
    from bench.results.identity import bind_experiment
    from bench.results.table import save_frame

    if made.missing_tokenizers:
        results.root.mkdir(parents=True, exist_ok=True)
        then = "trains them first" if made.experiment.climbs_world else "needs them"
        print(f"weights not on this machine yet: {', '.join(made.missing_tokenizers)}; the sweep {then}", file=sys.stderr)
    else:
        bind_experiment(results, made.identity)
    save_frame(made.frame, results.plan)
    print(f"written to {results.plan}", file=sys.stderr)


def prepare_world(dataset: Any, display: Any) -> None:
    """Train the networks of a ladder's world that this machine lacks."""
    from bench.prepare.networks import own_networks, recipe_of, train_networks

    missing = tuple(network for network in own_networks(dataset) if not dataset.hash(network))
    train_networks(dataset, recipe_of(dataset), missing, display)


def sweep(options: argparse.Namespace) -> int:
    """Do everything that the plan misses; 1 when a run failed."""
    parameters = None
    if options.launcher == "slurm":
        from bench.sweep.slurm import check_slurm, parse_parameters

        parameters = parse_parameters(options.slurm)
        check_slurm()
    elif options.slurm:
        raise UserError("SLURM parameters need LAUNCHER=slurm")
    made, results, dataset = make(options, to_run=True)
    if parameters is None:  # on a cluster the time limit of the jobs is the bound, and this machine's speed says nothing
        from bench.sweep.jobs import missing_runs

        made.check_hours(options.max_hours, missing_runs(made, results))
    from bench.progress import Display
    from bench.sweep.sweep import run_sweep

    if not options.quiet:
        print_plan(made, options.json)
    display = Display(options.quiet)
    if made.missing_tokenizers:
        prepare_world(dataset, display)
        made, results, dataset = make(options, to_run=True)
    if parameters is not None:
        from bench.sweep.slurm import submit_sweep

        submit_sweep(made, results, dataset, parameters, display)
        return 0
    return 1 if run_sweep(made, results, dataset, display) else 0


def table(options: argparse.Namespace) -> None:
    """Derive table.csv from the runs' records."""
    from bench.results.folder import Results
    from bench.results.table import build_table, read_plan, save_frame

    results = Results(options.results)
    save_frame(build_table(results, read_plan(results)), results.table)
    print(results.table)


def report(options: argparse.Namespace) -> None:
    """Draw figures and report from table.csv."""
    from bench.report.page import write_report
    from bench.results.folder import Results

    results = Results(options.results)
    write_report(results)
    print(results.report)


def forecast(options: argparse.Namespace) -> None:
    """Predict a budget from the table's laws and keep it in forecast.json, before anything is trained there."""
    from bench.analysis.comparison import analyse
    from bench.analysis.forecast import SAME_BUDGET, add_forecast, make_forecast
    from bench.config.run import parse_budget
    from bench.files import read_json, write_text
    from bench.results.folder import Results
    from bench.results.table import load_table

    results, budget = Results(options.results), float(parse_budget(options.budget))
    frame = load_table(options.results)
    near = frame[(frame["flops_budget"] / budget - 1).abs() <= SAME_BUDGET]
    begun = [run_id for run_id in near["run_id"].unique() if results.run_folder(run_id).record_file.exists()]
    if begun:
        raise UserError(f"{begun[0]} has begun: a forecast of {budget:.3g} FLOPs had to come before; take a budget without runs")
    identity = read_json(results.experiment) if results.experiment.exists() else None
    made = make_forecast(analyse(frame, identity=identity), budget)
    known = read_json(results.forecast) if results.forecast.exists() else {}
    write_text(results.forecast, json.dumps(add_forecast(known, made), indent=1) + "\n")
    for said in made["predictions"]:
        print(f"{said['metric']:16} {said['method']:24} {said['value']:.4g} [{said['low']:.4g}, {said['high']:.4g}]")
    for reason in made["lacking"]:
        print(f"not forecast: {reason}", file=sys.stderr)
    print(f"{results.forecast} (sha256 {made['sha256'][:12]}): commit it before training at {budget:.3g} FLOPs", file=sys.stderr)


def status(options: argparse.Namespace) -> None:
    """Say what is queued, running, done, failed and missing, and when the rest will be done."""
    from bench.progress import share_bar
    from bench.results.folder import Results
    from bench.sweep.status import run_states, summary

    states, terminal = run_states(Results(options.results)), sys.stdout.isatty()
    for state in states:
        if options.json:
            print(json.dumps(state))
            continue
        begun = state["status"] in ("training", "interrupted")
        share = share_bar(state["share"]) if terminal and begun else f"{state['share']:4.0%}" if begun else "    "
        print(f"{state['status']:11} {share} {state['run_id']}" + (f"  {state['error']}" if state["error"] else ""))
    if terminal and not options.json and states:
        total = sum(state["flops_total"] for state in states)
        print(f"{'all':11} {share_bar(1 - sum(state['flops_left'] for state in states) / max(total, 1))}")
    print(summary(states), file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Train and evaluate one planned run here."""
    from bench.progress import Display
    from bench.results.folder import Results
    from bench.sweep.sweep import run_alone

    return run_alone(Results(options.results), [options.run_id], Display(), train=True)


def evaluate(options: argparse.Namespace) -> int:
    """Sample and score trained runs again."""
    from bench.progress import Display
    from bench.results.folder import Results
    from bench.sweep.sweep import run_alone

    return run_alone(Results(options.results), options.run_ids, Display(), train=False)
