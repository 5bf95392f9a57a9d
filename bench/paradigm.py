"""The contract of a paradigm: one class, two methods, and a third where the likelihood of an image is known.

Letters: B images, N tokens, C latent channels, V codes, M condition tokens, P vectors with F feature channels.

A plugin owns its embedding, its objective and its sampler. Everything else belongs to the harness: FLOPs, budget, optimizer, EMA,
data order, condition dropout, latency, checkpoints, evaluation. It states no cost; what it runs is counted (docs/plugins.md says
what it could still hide).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import Backbone, BackboneConfig
from bench.conditioning import Condition, ConditionEmbedding, ConditionSpace, Guidance
from bench.parametrization import Role, Scaling

__all__ = ["Condition", "ConditionSpace", "FeatureSpace", "Guidance", "Paradigm", "TokenSpace"]


@dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """What a frozen network says of an image beside its tokens."""

    grid: int
    """Side of the square grid of its vectors, in raster order."""
    channels: int
    flops: int
    """Of the network for one image; billed with every image that a training step sees."""

    @property
    def num_vectors(self) -> int:
        """P, vectors of an image."""
        return self.grid**2

    def example(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Random features of a batch, (B, P, F), on the current default device."""
        return torch.randn(batch, self.num_vectors, self.channels, generator=generator)


@dataclass(frozen=True, kw_only=True)
class TokenSpace:
    """What an image's tokens are: a grid of latents with `channels`, or of codes below `vocabulary`; or codes of several grids,
    each of which explains what the coarser ones leave (Tian et al. 2024, section 3.2)."""

    kind: Literal["latents", "codes"]
    grid: int
    channels: int = 0
    vocabulary: int = 0
    scales: tuple[int, ...] = ()
    """Sides of the square grids that an image's codes are made of, coarse to fine; the last is `grid`. The tokens are the grids'
    in this order, each in raster order. Empty: one grid."""
    code_vectors: Tensor | None = field(default=None, compare=False, repr=False)
    """(V, C) float32 on the CPU: what the codes stand for, where it is known without weights."""
    features: FeatureSpace | None = None
    """Of a frozen network, where the loss reads them beside the tokens."""

    def __post_init__(self) -> None:
        ascending = all(coarse < fine for coarse, fine in itertools.pairwise(self.scales))
        fits = self.scales[:1] >= (1,) and self.scales[-1:] == (self.grid,)
        if self.scales and not (self.kind == "codes" and ascending and fits):
            wanted = f"sides that ascend to the grid of {self.grid}, of codes"
            raise ValueError(f"scales must be {wanted}, not {self.scales} of {self.kind}")

    @property
    def num_tokens(self) -> int:
        """N, tokens of an image."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each grid, coarse to fine."""
        return tuple(side**2 for side in self.sides)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of each grid, coarse to fine."""
        return self.scales or (self.grid,)

    def empty(self, batch: int, device: torch.device) -> Tensor:
        """A batch of zeros, (B, N, C) or (B, N), to be filled by a sampler."""
        if self.kind == "latents":
            return torch.zeros(batch, self.num_tokens, self.channels, device=device)
        return torch.zeros(batch, self.num_tokens, dtype=torch.int64, device=device)

    def example(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Random tokens of a batch, (B, N, C) or (B, N), as a paradigm reads them, on the current default device."""
        if self.kind == "latents":
            return torch.randn(batch, self.num_tokens, self.channels, generator=generator)
        return torch.randint(self.vocabulary, (batch, self.num_tokens), generator=generator)


def shrink(image: Tensor, side: int) -> Tensor:
    """The mean vectors of an image's areas: (B, N, C) to (B, side side, C), both in raster order; areas of a side that does not
    divide the image's overlap by a row (torch's adaptive average pooling)."""
    large = math.isqrt(image.shape[1])
    picture = image.transpose(1, 2).unflatten(2, (large, large))
    return F.adaptive_avg_pool2d(picture, side).flatten(2).transpose(1, 2)


def enlarge(image: Tensor, side: int) -> Tensor:
    """Each vector of an image repeated in an area of its own: (B, N, C) to (B, side side, C), both in raster order."""
    small = math.isqrt(image.shape[1])
    nearest = torch.arange(side, device=image.device) * small // side
    return image[:, (nearest[:, None] * small + nearest).flatten()]


def sums_of_scales(parts: Iterable[Tensor], side: int) -> Iterator[Tensor]:
    """The image that the grids so far make together, (B, side side, C), after each of them.

    The arithmetic that tokenizers and paradigms share: an image of several scales is the sum of its grids, enlarged.

    Args:
        parts: vectors of each grid's codes, (B, s s, C), coarse to fine.
        side: of the finest grid.
    """
    return itertools.accumulate(enlarge(part, side) for part in parts)


class Paradigm(nn.Module, ABC):
    """A way to model images as tokens. Subclass it, give the class variables and the two abstract methods.

    Options of a paradigm are keyword-only constructor arguments after the three positional ones, with JSON values.
    `loss` draws its randomness from torch's global generator, which the harness seeds for every step; a draw that decides a
    shape must be the first one and be made on the CPU. The harness never calls `loss` with fewer than one image.
    """

    reads: ClassVar[Literal["latents", "codes"]]
    """"latents": tokens are (B, N, C) float32, whitened (raw pixels: -1 to 1); "codes": (B, N) int64 below the vocabulary."""
    grids: ClassVar[Literal["one", "any", "several"]] = "one"
    """Which images it takes: those of one grid, "any" as a plain sequence of tokens, or those of several grids."""
    reads_features: ClassVar[bool] = False
    """Whether the loss reads features of a frozen network too: `condition.features`, from a tokenizer such as
    "autoencoder-kl+autoencoder-fsq-latents"."""
    loss_unit: str
    """What one unit of the loss is, for axis labels; an instance may name its own where an option decides it."""
    default_steps: ClassVar[int | None]
    """Sampler steps when none are given; None where the sequence length fixes them."""
    version: ClassVar[int] = 1
    """Raise when results change; it is part of the run_id. Other packages are named there by version and source too."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of parameters that the loss alone reads, such as an auxiliary head; samplers read all others."""
    whole_batch: ClassVar[bool] = False
    """Whether the loss compares the images of a step with each other, so that it needs them all at once: on one device, and not
    in micro-batches."""
    roles: ClassVar[Mapping[str, Role]] = {}
    """What parameters are to the width ("input", "hidden", "output", "vector" or "fixed"), by the beginning of their names, where
    their shapes do not tell (bench/parametrization.py)."""
    scalings: Mapping[str, Scaling] = {}
    """How each parameter departs from the base size, set by the harness; empty in the standard parametrization."""

    def __init__(self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace) -> None:
        super().__init__()
        if space.kind != self.reads:
            name = type(self).__name__
            raise ValueError(f"{name} reads {self.reads}, not {space.kind}; give it a tokenizer of the other kind")
        if self.grids != "any" and (self.grids == "several") != bool(space.scales):
            sides = ", ".join(map(str, space.sides))
            wanted = "grids of several scales" if self.grids == "several" else "one grid of tokens"
            raise ValueError(f"{type(self).__name__} reads {wanted}, not grids of side {sides}; give it another tokenizer")
        if self.reads_features != (space.features is not None):
            wanted = "one with the tokenizer of its features behind a +" if self.reads_features else "one without a +"
            does = "reads features" if self.reads_features else "reads no features"
            raise ValueError(f"{type(self).__name__} {does} beside its tokens; give it another tokenizer, {wanted}")
        self.space = space
        self.backbone = Backbone(backbone)
        self.embed_condition = ConditionEmbedding(conditions, backbone.width)

    @abstractmethod
    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss.

        Random numbers come from torch's global generator: what decides a shape first, as a scalar; noise with the image as the
        leading axis, so that devices can share a batch (bench/randomness.py). No image may see another, unless `whole_batch`.

        Args:
            tokens: as `reads` says.
            condition: B conditions, some hidden by the harness, and the images' features where `reads_features` says so.

        Returns:
            loss per image (B,), finite, and scalars to log, which are computed on the meta device too.
        """

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor | None:
        """-log p(tokens | condition) of each image in nats, (B,), or an upper bound on it that holds in the mean over draws.

        Optional: None where neither is known, which is the default. Codes only, since the density of latents is no probability
        and compares with nothing. Called without gradients; it draws its randomness as `loss` does, and what it measures is the
        model, whatever weights or label smoothing the loss is trained with. It becomes the column `validation_bits`.

        Args:
            tokens: codes (B, N).
            condition: B conditions.
        """
        return None

    @abstractmethod
    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Draw one image's tokens per condition, (B, N, C) or (B, N) as `reads` says.

        Args:
            condition: B conditions.
            steps: sampler steps; None takes `default_steps`.
            guidance: classifier-free guidance scale; 1 switches it off.
            temperature: 1 samples the model as trained, smaller is less diverse.
            generator: the only source of randomness, on the parameters' device.

        Raises:
            ValueError: for steps or a guidance that the method cannot do, or a temperature that is not positive.
        """

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device


def check_sampling(steps: int | None, temperature: float, max_steps: int | None = None) -> None:
    """Refuse sampler settings that cannot work.

    Raises:
        ValueError: for fewer than one step, more than max_steps, or a temperature that is not positive.
    """
    if steps is not None and (steps < 1 or (max_steps is not None and steps > max_steps)):
        allowed = "at least 1" if max_steps is None else f"1 to {max_steps}"
        raise ValueError(f"steps must be {allowed}, not {steps}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is not one of a few words.

    Raises:
        ValueError: naming the option and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(repr(a) for a in allowed)}, not {value!r}")
