"""An experiment: methods x sizes x budgets x seeds on one data set, as frozen dataclasses. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from bench.config.data import ImageData
from bench.config.ladder import Ladder
from bench.config.size import Size as Size  # experiments and tests import it from here
from bench.errors import nearest

FlopRule = Literal["meta-v1", "meta-v2"]
"""How training is billed: 3 x the forward pass (bench/flops/count.py), or every product of the step (bench/flops/step.py)."""
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to sample a trained model."""

    steps: int | None = None
    """Sampler steps; None takes the paradigm's own number."""
    guidance: float = 1.0
    temperature: float = 1.0
    options: Mapping[str, Json] = field(default_factory=dict)
    """Constructor options that only the sampler reads; they replace the method's, nested ones key by key."""


def grid(
    *,
    steps: tuple[int | None, ...] = (None,),
    guidance: tuple[float, ...] = (1.0,),
    temperature: tuple[float, ...] = (1.0,),
    options: tuple[Mapping[str, Json], ...] = ({},),
) -> tuple[Setting, ...]:
    """Every combination of the values given."""
    combinations = itertools.product(steps, guidance, temperature, options)
    return tuple(Setting(steps=s, guidance=g, temperature=t, options=o) for s, g, t, o in combinations)


def merged(options: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """Options with some replaced, nested ones key by key."""
    out = dict(options)
    for key, value in changes.items():
        before = out.get(key)
        out[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return out


@dataclass(frozen=True, kw_only=True)
class Method:
    """One line of the comparison: a paradigm with its options, learning rates and sampler settings."""

    paradigm: str
    """Name in the registry."""
    label: str = ""
    """How tables and figures call it; empty takes the paradigm's name."""
    tokenizer: str
    """Name in bench.config.TOKENIZERS, or one of the image data's own."""
    learning_rates: tuple[float | tuple[float, ...], ...] = ()
    """One per size of the experiment. Several at a size, in a tuple, are all trained, and each metric that settings are chosen
    for takes the rate that is best for it on validation conditions. Of a search (`search=True`): all rates, each tried at
    every size. With a ladder: one, in place of the law's base rate, or none."""
    options: Mapping[str, Json] = field(default_factory=dict)
    settings: tuple[Setting, ...] = grid(guidance=(1.0, 2.0))
    """Tried on the validation captions; the best for each metric is used on the test captions."""
    num_training_images: int | None = None
    """Different images that it trains on, in place of the recipe's: fewer than it sees are repeated."""

    @property
    def name(self) -> str:
        """The label, or the paradigm's name."""
        return self.label or self.paradigm

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Method:
        """Inverse of dataclasses.asdict, also after a JSON round trip."""
        rates = tuple(tuple(rate) if isinstance(rate, list) else rate for rate in content["learning_rates"])
        return cls(**{**content, "learning_rates": rates, "settings": tuple(Setting(**s) for s in content["settings"])})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings that all methods share."""

    batch_size: int
    warmup_steps: int = 40
    cooldown: float = 0.4
    """Share of each budget over which the rate falls linearly to zero, branched off the constant-rate trunk."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float = 1.0
    condition_dropout: float = 0.1
    ema_relative_width: float = 0.05
    """Standard deviation of the averaging window as a share of training so far (Karras et al. 2024, power function)."""
    precision: Literal["bf16", "fp32"] = "bf16"
    num_training_images: int = 65_536
    """Encoded once into the latent cache; more steps mean further epochs."""
    completep_base: Size | None = None
    """The size for which rates and weight decay are stated; CompleteP carries them to the others (bench/parametrization.py). None
    is the standard parametrization, in which every size has its own."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured on each trained model."""

    num_samples: int = 1000
    """Images of the test captions: FID, KID, precision, recall, CLIP score, prompt accuracy."""
    num_held_out: int = 500
    """Images of the held-out captions, and in a world with a long tail as many of captions with equally likely kinds: prompt
    accuracy only (procedural worlds); 0 leaves them out."""
    num_validation: int = 256
    """Images per sampler setting tried."""
    num_reference: int = 5000
    """Real images that they are compared with; settings are chosen against as many others, where the data has them."""
    latency_calls: int = 16
    """Calls at batch 1; p50 needs 11, p90 needs 64."""
    throughput_batches: tuple[int, ...] = (64, 256)
    seed: int = 0
    share: float | None = None
    """Most FLOPs of an evaluation over those of the run's own training. Settings are carried from the rung below and checked, raw
    weights are not sampled, and a run whose share does not pay for num_samples has its validation loss alone
    (bench/flops/evaluation.py). None measures everything on every run."""

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Evaluation:
        """Inverse of dataclasses.asdict, also after a JSON round trip."""
        return cls(**{**content, "throughput_batches": tuple(content["throughput_batches"])})

    @property
    def content(self) -> dict[str, Any]:
        """As JSON values; without a share as before there was one, so that protocols and folders stay."""
        found = asdict(self)
        if self.share is None:
            del found["share"]
        return found

    @property
    def validation_only(self) -> bool:
        """No test captions are sampled: a learning-rate search never touches them."""
        return self.num_samples == 0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A comparison: methods x sizes x budgets x seeds on one data set."""

    name: str
    data: str | ImageData = ""
    """A procedural world such as "shapes32" or "sprites40" (docs/worlds.md), or images; empty lets a ladder's budget choose."""
    methods: tuple[Method, ...]
    ladder: Ladder | None = None
    """The budget chooses sizes, rungs, seeds, batch, rates and images; without a ladder the experiment states them."""
    sizes: tuple[Size, ...] = ()
    budget: float
    """Default top rung, training FLOPs of one run."""
    rungs: tuple[float, ...] = ()
    """Budgets as shares of the top rung, ascending, ending with 1."""
    num_seeds: tuple[tuple[int, ...], ...] = ()
    """Training seeds: for each size, one number per rung."""
    recipe: Recipe = field(default_factory=lambda: Recipe(batch_size=32))
    """A ladder takes from it what the laws do not decide: cooldown, first beta, clipping, dropout, averaging."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    flop_rule: FlopRule = "meta-v2"
    """How its runs are billed, which is part of their identity; experiments whose results are older say "meta-v1"."""
    search: bool = False
    """A learning-rate search: every rate runs at every size, scored on the validation captions alone."""

    def __post_init__(self) -> None:
        if self.ladder is not None:
            self._check_ladder()
        elif not self.data:
            raise ValueError(f"experiment {self.name}: data is empty; name a world or images, or give a ladder=Ladder()")
        elif not self.sizes:
            raise ValueError(f"experiment {self.name}: sizes is empty; name some, or give a ladder=Ladder()")
        elif not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != 1:
            raise ValueError(f"experiment {self.name}: rungs must ascend and end with 1, not {self.rungs}")
        elif [len(row) for row in self.num_seeds] != [len(self.rungs)] * len(self.sizes):
            raise ValueError(
                f"experiment {self.name}: num_seeds needs, for each of {len(self.sizes)} sizes, {len(self.rungs)} numbers"
            )
        names = [m.name for m in self.methods]
        if len(set(names)) != len(names):
            raise ValueError(f"experiment {self.name}: two methods have one label; give each its own: {names}")
        for method in self.methods:
            if not method.settings:
                raise ValueError(f"experiment {self.name}: {method.name} has no sampler setting; give it at least Setting()")
            guided = [s.guidance for s in method.settings if s.guidance != 1]
            if self.recipe.condition_dropout == 0 and guided:
                raise ValueError(
                    f"experiment {self.name}: {method.name} samples with guidance {guided[0]:g}, but condition_dropout=0 "
                    "trains no null condition; raise it, or use guidance=(1.0,)"
                )
            if self.ladder is None and not self.search and len(method.learning_rates) != len(self.sizes):
                raise ValueError(f"experiment {self.name}: {method.name} needs one learning rate per size ({len(self.sizes)})")

    @property
    def climbs_world(self) -> bool:
        """Whether it is a ladder on a procedural world, whose missing networks a sweep trains first."""
        return self.ladder is not None and isinstance(self.data, str)

    @property
    def tokenizers(self) -> list[str]:
        """Names of the tokenizers that its methods read, sorted."""
        return sorted({method.tokenizer for method in self.methods})

    def rates(self, method: Method, index: int) -> tuple[float, ...]:
        """The learning rates that a method trains with at the size of an index."""
        mine = method.learning_rates if self.search else method.learning_rates[index : index + 1]
        return tuple(rate for entry in mine for rate in (entry if isinstance(entry, tuple) else (entry,)))

    def _check_ladder(self) -> None:
        """Refuse what a ladder and the experiment both state."""
        fixed = [name for name in ("sizes", "rungs", "num_seeds") if getattr(self, name)]
        if fixed or self.search:
            raise ValueError(
                f"experiment {self.name}: ladder and {' and '.join(fixed) or 'search'} contradict each other; "
                + ("put them into Ladder(...), or leave the ladder out" if fixed else "a search needs sizes of its own")
            )

    def learning_rate_search(self, *, rates: tuple[float, ...], budget: float, num_validation: int) -> Experiment:
        """The same trials for every method: each rate at the smallest size and one budget, scored on validation captions.

        Raises:
            ValueError: for an experiment whose sizes a ladder chooses.
        """
        return replace(
            self,
            name=f"{self.name}-learning-rates",
            methods=tuple(replace(method, learning_rates=rates) for method in self.methods),
            sizes=self.sizes[:1],
            budget=budget,
            rungs=(1.0,),
            num_seeds=((1,),),
            evaluation=Evaluation(num_samples=0, num_held_out=0, num_validation=num_validation, num_reference=1000),
            search=True,
        )

    def select(self, names: list[str]) -> Experiment:
        """The same experiment with the named methods only.

        Raises:
            ValueError: for a name that it does not have.
        """
        known = {m.name: m for m in self.methods}
        for name in names:
            if name not in known:
                raise ValueError(f"experiment {self.name} has no method {name!r}; {nearest(name, list(known))}")
        return replace(self, methods=tuple(m for m in self.methods if m.name in names))
