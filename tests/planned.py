"""Runs, plans and jobs made by hand, for tests that train nothing."""

from dataclasses import replace
from pathlib import Path

from miniature import EXPERIMENT

from bench.config.run import Run
from bench.plan.machine import Machine
from bench.plan.plan import Plan, PlannedRun
from bench.results.folder import Results
from bench.sweep.jobs import TrunkJob, missing_jobs

MACHINE = Machine("cpu", num_workers=2, num_threads=1)
BUDGETS = (2_000, 4_000)


def make_run(method: str = "next-token", budget: int = 4_000, seed: int = 0) -> Run:
    return Run(
        method=method,
        paradigm=method,
        paradigm_version=1,
        options={"inner": {"width": 8}},
        tokenizer="autoencoder-fsq",
        tokenizer_hash="0123",
        data="shapes32@4567",
        width=32,
        depth=2,
        num_heads=2,
        seed=seed,
        learning_rate=1e-3,
        recipe=EXPERIMENT.recipe,
        flop_rule="meta-v1",
        flops_budget=budget,
    )


def make_plan(*trunks: tuple[str, int, float]) -> Plan:
    """A plan of two rungs per trunk, each given as method, seed and FLOP/s."""
    methods = {method.name: method for method in EXPERIMENT.methods}
    runs = tuple(
        PlannedRun(
            run=make_run(method, budget, seed),
            method=methods[method],
            num_params=10,
            flops_per_image=2.0,
            flops_per_image_causal=1.0,
            flops_per_second=speed,
            num_training_images=512,
            loss_unit="nats",
        )
        for method, seed, speed in trunks
        for budget in BUDGETS
    )
    named = tuple(methods[name] for name in dict.fromkeys(method for method, _, _ in trunks))
    return Plan(replace(EXPERIMENT, methods=named), BUDGETS[-1], runs, MACHINE, {})


def make_jobs(root: Path, num: int) -> list[TrunkJob]:
    """As many jobs of two runs each."""
    return missing_jobs(make_plan(*(("next-token", seed, 1.0) for seed in range(num))), Results(root))
