"""What an experiment is: frozen data that survives a JSON round trip. No torch, no files, no callables.

An experiment is a Python file under `experiments/` with one variable, `EXPERIMENT`. Device, workers and micro-batch are not in
here: they must not change a result, so they are not part of a run's identity.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from bench.tokenizers.config import AutoencoderConfig, PretrainedConfig, TokenizerConfig

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of the shared backbone."""

    width: int
    depth: int
    num_heads: int

    @property
    def name(self) -> str:
        """Width and depth, as tables and figures show them."""
        return f"{self.width}x{self.depth}"


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
    """Name in bench.tokenizers.config.TOKENIZERS, or one of the image data's own."""
    learning_rates: tuple[float, ...]
    """One per size of the experiment, or several per size for a learning-rate search (`search=True`)."""
    options: Mapping[str, Json] = field(default_factory=dict)
    settings: tuple[Setting, ...] = grid(guidance=(1.0, 2.0))
    """Tried on the validation captions; the best for each metric is used on the test captions."""

    @property
    def name(self) -> str:
        """The label, or the paradigm's name."""
        return self.label or self.paradigm

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Method:
        """Inverse of dataclasses.asdict, also after a JSON round trip."""
        rates, settings = tuple(content["learning_rates"]), tuple(Setting(**s) for s in content["settings"])
        return cls(**{**content, "learning_rates": rates, "settings": settings})


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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured on each trained model."""

    num_samples: int = 1000
    """Images of the test captions: FID, KID, precision, recall, CLIP score, prompt accuracy."""
    num_held_out: int = 500
    """Images of the held-out captions: prompt accuracy only (procedural worlds)."""
    num_validation: int = 256
    """Images per sampler setting tried."""
    num_reference: int = 5000
    """Real images that they are compared with."""
    latency_calls: int = 16
    """Calls at batch 1; p50 needs 11, p90 needs 64."""
    throughput_batches: tuple[int, ...] = (64, 256)
    seed: int = 0

    @property
    def validation_only(self) -> bool:
        """No test captions are sampled: a learning-rate search never touches them."""
        return self.num_samples == 0


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A frozen text encoder of transformers (T5 or CLIP) that turns captions into condition features once."""

    source: str
    """Name on the Hugging Face hub, or a folder."""
    num_tokens: int
    """Captions are cut or padded to this many tokens; features of padding are zero."""
    feature_dim: int


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The networks that judge generated images."""

    features: Literal["inception", "classifier"] = "inception"
    """Whose features FID, KID, precision, recall, density and coverage compare: torch-fidelity's Inception-v3, or the suite's own
    classifier of the data set's classes (`paradigm-bench prepare`), which needs no download and compares within one data set."""
    inception: str = "weights-inception-2015-12-05-6726825d.pth"
    """The file of the Inception weights: a path, or its name in torch's hub cache."""
    dinov2: str = ""
    """A DINOv2 of transformers for a second Frechet distance, such as facebook/dinov2-large; empty leaves it out."""
    clip: str = ""
    """A CLIP of transformers, or `open_clip:ARCHITECTURE:PRETRAINED` (extra open-clip), for the score of image and caption."""
    clip_prompt: str = "a photo of a {}"
    """How a class is put to CLIP; captions are taken as they are."""
    reference_statistics: str = ""
    """An .npz with mu and sigma of the reference (the ADM evaluator's format) that FID uses instead of `num_reference` images."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set of images with classes or captions, and the autoencoders that turn them into tokens.

    Its sizes are stated, so that planning needs no data; they are checked when the data is read.
    """

    name: str
    source: Literal["huggingface", "imagefolder", "webdataset", "parquet", "coco", "digits"]
    path: str = ""
    """A hub name, a folder, or a pattern of shard files; `--data` replaces it. No part of a run's identity."""
    split: str = "train"
    """A split, or a slice of one such as "train[:99%]" (not for coco and digits)."""
    evaluation_split: str = ""
    """Where evaluation captions and the reference images come from; empty takes the training split."""
    image_column: str = "image"
    condition: Literal["class", "caption"]
    condition_column: str = "label"
    num_classes: int = 0
    text: TextEncoderConfig | None = None
    resolution: int
    flip: bool = True
    """Whether each image is cached mirrored too, and a training step draws one of the two."""
    max_corrupt: float = 0.001
    """Largest share of images that may fail to decode; each is named."""
    autoencoders: Mapping[str, AutoencoderConfig | PretrainedConfig]
    tokenizers: Mapping[str, TokenizerConfig] = field(default_factory=dict)
    """Which tokens of them the methods read; each autoencoder's own tokens always go by its name."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        if (self.condition == "class") != (self.num_classes > 0) or (self.condition == "caption") != (self.text is not None):
            raise ValueError(f"data {self.name}: give num_classes for condition='class', a text encoder for condition='caption'")
        if self.judge.features == "classifier" and self.condition != "class":
            raise ValueError(f"data {self.name}: only images with classes have a classifier; use features='inception'")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ImageData:
        """Inverse of dataclasses.asdict, also after a JSON round trip."""

        def autoencoder(part: dict[str, Any]) -> AutoencoderConfig | PretrainedConfig:
            if "architecture" in part:
                return PretrainedConfig(**part)
            return AutoencoderConfig(**{**part, "levels": tuple(part["levels"])})

        return cls(
            **{
                **content,
                "text": TextEncoderConfig(**content["text"]) if content["text"] else None,
                "autoencoders": {name: autoencoder(part) for name, part in content["autoencoders"].items()},
                "tokenizers": {name: TokenizerConfig(**part) for name, part in content["tokenizers"].items()},
                "judge": JudgeConfig(**content["judge"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A comparison: methods x sizes x budgets x seeds on one data set."""

    name: str
    data: str | ImageData
    """A procedural world, "shapes32" or "shapes64", or images."""
    methods: tuple[Method, ...]
    sizes: tuple[Size, ...]
    budget: float
    """Default top rung, training FLOPs of one run."""
    rungs: tuple[float, ...]
    """Budgets as shares of the top rung, ascending, ending with 1."""
    num_seeds: tuple[tuple[int, ...], ...]
    """Training seeds: for each size, one number per rung."""
    recipe: Recipe
    evaluation: Evaluation = field(default_factory=Evaluation)
    search: bool = False
    """A learning-rate search: every rate runs at every size, scored on the validation captions alone."""

    def __post_init__(self) -> None:
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[-1] != 1:
            raise ValueError(f"experiment {self.name}: rungs must ascend and end with 1, not {self.rungs}")
        if [len(row) for row in self.num_seeds] != [len(self.rungs)] * len(self.sizes):
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
            if not self.search and len(method.learning_rates) != len(self.sizes):
                raise ValueError(f"experiment {self.name}: {method.name} needs one learning rate per size ({len(self.sizes)})")

    def learning_rate_search(self, *, rates: tuple[float, ...], budget: float, num_validation: int) -> Experiment:
        """The same trials for every method: each rate at the smallest size and one budget, scored on validation captions."""
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
        from bench.registry import nearest

        known = {m.name: m for m in self.methods}
        for name in names:
            if name not in known:
                raise ValueError(f"experiment {self.name} has no method {name!r}; {nearest(name, list(known))}")
        return replace(self, methods=tuple(m for m in self.methods if m.name in names))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained model: everything that decides its weights and nothing else."""

    method: str
    paradigm: str
    paradigm_version: int
    options: Mapping[str, Json]
    tokenizer: str
    tokenizer_hash: str
    data: str
    """Name and fingerprint of the training data."""
    width: int
    depth: int
    num_heads: int
    seed: int
    learning_rate: float
    recipe: Recipe
    flop_rule: str
    flops_budget: int

    @property
    def size(self) -> Size:
        """Its size as an experiment lists it."""
        return Size(width=self.width, depth=self.depth, num_heads=self.num_heads)

    @property
    def trunk_id(self) -> str:
        """Name of the constant-rate trunk that this run branches off: the same for all budgets."""
        return self._identifier({**asdict(self), "flops_budget": None}, "trunk")

    @property
    def run_id(self) -> str:
        """Readable prefix and hash of the whole configuration. Never parse it."""
        return self._identifier(asdict(self), f"{self.flops_budget:.1e}".replace("e+", "e"))

    def _identifier(self, content: dict[str, Any], middle: str) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.method}-{self.size.name}-s{self.seed}-{middle}-{digest}"

    def to_json(self) -> str:
        """Text that from_json reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Inverse of to_json.

        Raises:
            ValueError: when the text is no run of this version.
        """
        try:
            content = json.loads(text)
            recipe = content["recipe"]
            content["recipe"] = Recipe(**{**recipe, "betas": tuple(recipe["betas"])})
            return cls(**content)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a run of this version of paradigm-bench: {error}") from error


def parse_budget(text: str) -> int:
    """Training FLOPs from text such as "1e20".

    Raises:
        ValueError: when it is not a finite number of at least 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 1:
        raise ValueError(f"BUDGET must be a number of training FLOPs such as 3e12 or 1e20, not {text!r}")
    return round(value)
