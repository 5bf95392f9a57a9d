"""What evaluating a plan's runs costs where a share of their training bounds it. Counts only; samples nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.config.experiment import Evaluation, Setting, merged
from bench.data.base import TokenizedData
from bench.flops.evaluation import Measured, affordable, dearest
from bench.flops.sampling import count_sampling
from bench.model import build_meta
from bench.plan.plan import Plan, PlannedRun


@dataclass(frozen=True)
class PlannedEvaluation:
    """What is measured on each run of a plan, and what all of it costs at most."""

    measured: dict[str, Measured]
    """By run_id."""
    flops: float
    training_flops: float
    """Of all trunks and cooldowns."""

    @property
    def share(self) -> float:
        """Evaluation over training."""
        return self.flops / self.training_flops

    def __str__(self) -> str:
        sampled = sum(each.is_sampled for each in self.measured.values())
        return (
            f"evaluation: {self.flops:.2g} FLOPs at most, {self.share:.0%} of training; {sampled} of {len(self.measured)} runs "
            "are sampled, the others have their validation loss alone"
        )


def plan_evaluation(plan: Plan, evaluation: Evaluation, dataset: TokenizedData) -> PlannedEvaluation:
    """Apply the rule of `bench.flops.evaluation` to every run of a plan."""
    costs: dict[tuple[str, str], float] = {}
    measured = {}
    for planned in plan.runs:
        key = planned.run.method, planned.run.size.name
        if key not in costs:
            costs[key] = _dearest_sample(planned, dataset)
        measured[planned.run.run_id] = affordable(
            evaluation,
            planned.run,
            num_tokens=dataset.space(planned.run.tokenizer).num_tokens,
            flops_per_image=planned.flops_per_image,
            flops_per_sample=costs[key],
            num_settings=len(planned.method.settings),
        )
    return PlannedEvaluation(
        measured,
        sum(each.flops for each in measured.values()),
        plan.total_flops,
    )


def _dearest_sample(planned: PlannedRun, dataset: TokenizedData) -> float:
    """FLOPs of an image at the method's dearest setting; its decoding is counted where the tokenizer's weights are at hand."""
    run, conditions = planned.run, dataset.conditions
    space = dataset.space(run.tokenizer)
    known = bool(dataset.tokenizer_hash(run.tokenizer))
    decoding = dataset.tokenizer(run.tokenizer).autoencoder.decoder_flops() if known else 0

    def cost(setting: Setting) -> float:
        meta = build_meta(replace(run, options=merged(run.options, setting.options)), space, conditions)
        return count_sampling(meta, conditions, steps=setting.steps, guidance=setting.guidance).total

    return dearest(planned.method.settings, cost) + decoding
