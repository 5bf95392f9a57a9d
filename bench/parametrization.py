"""CompleteP with AdamW: how initialization, rates, weight decay and eps change with width and depth, so that rates carry over.

Letters: m_N width as a multiple of the base width, m_L depth as a multiple of the base depth.

The width part is the maximal update parametrization (Yang et al. 2022, table 3), the depth part CompleteP (Dey et al. 2025, alpha
= 1). What a constructor draws is right at the base size; a parameter's role says how it changes from there. The role follows from
which of its axes grow when the backbone gets wider, as in microsoft/mup, so that a plugin need not know of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from bench.backbone import BackboneConfig, Block

Role = Literal["input", "hidden", "output", "vector", "fixed"]
"""Weights whose outputs alone grow with width, both, inputs alone; vectors that grow; and what keeps its size."""
ROLES: Mapping[tuple[bool, bool], Role] = {
    (False, True): "input",
    (True, True): "hidden",
    (True, False): "output",
    (False, False): "fixed",
}
"""By whether inputs and outputs grow with width."""
EPS = 1e-8
"""Of AdamW at the base size (torch's default)."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Factors on what a parameter has at the base size."""

    init: float = 1.0
    """Of the standard deviation that it starts with."""
    rate: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0
    """Of AdamW, as small as the gradient becomes."""


def scaling(role: Role, width: float, depth: float) -> Scaling:
    """The rule for a role at width m_N; depth is m_L inside the residual blocks and 1 elsewhere.

    Output weights have no multiplier in the forward pass: with Adam a rate and an initial deviation of 1 / m_N do the same.
    """
    match role:
        case "input" | "vector":
            return Scaling(eps=1 / width / depth)
        case "hidden":
            return Scaling(init=width**-0.5, rate=1 / width, weight_decay=width, eps=1 / width / depth)
        case "output":
            return Scaling(init=1 / width, rate=1 / width, weight_decay=width, eps=1 / depth)
        case "fixed":
            return Scaling(eps=1 / depth)


def scaled_config(config: BackboneConfig, base: BackboneConfig) -> BackboneConfig:
    """The backbone with CompleteP's residual multiplier 1 / m_L and, where heads grow wider, attention by 1 / E in place of
    1 / sqrt(E), equal to it at the base's head width."""
    head, base_head = config.width // config.num_heads, base.width // base.num_heads
    return replace(
        config,
        residual_multiplier=base.depth / config.depth,
        attention_scale=None if head == base_head else math.sqrt(base_head) / head,
    )


M = TypeVar("M", bound=nn.Module)


def build_scaled(
    make: Callable[[BackboneConfig], M], config: BackboneConfig, base: BackboneConfig, roles: Mapping[str, Role]
) -> tuple[M, dict[str, Scaling]]:
    """A network under CompleteP, and the scaling of each of its parameters; at the base size it is `make(base)` bit for bit.

    Args:
        make: builds the network around a backbone, from torch's global generator.
        roles: what shapes do not tell, by the beginning of a parameter's name.

    Raises:
        ValueError: for a parameter that the network has at this size and not at the base size.
    """
    with torch.random.fork_rng(devices=[]):
        reference = make(base)
        with torch.device("meta"):
            wider = make(replace(base, width=2 * base.width, num_heads=2 * base.num_heads))
    network = make(scaled_config(config, base))
    found = {name: role_of(name, owner, here, there, roles) for name, owner, here, there in _compared(reference, wider)}
    inside = {id(p) for block in network.modules() if isinstance(block, Block) for p in block.parameters()}
    originals = dict(reference.named_parameters())
    scalings = {}
    for name, parameter in network.named_parameters():
        original = _counterpart(name, originals)
        depth = config.depth / base.depth if id(parameter) in inside else 1.0
        scalings[name] = scaling(found[original], config.width / base.width, depth)
        if parameter.ndim > 1:
            _rescale(parameter, originals[original], scalings[name].init)
    return network, scalings


def role_of(name: str, owner: nn.Module, parameter: Tensor, wider: Tensor, roles: Mapping[str, Role]) -> Role:
    """The role that is declared for the longest beginning of a name, or else the one that a parameter's shape (...) and the wider
    network's tell.

    Layers of torch hold weights as (outputs, inputs, ...); tables and bare parameters are read as (inputs, ..., outputs).
    """
    declared = [beginning for beginning in roles if name.startswith(beginning)]
    if declared:
        return roles[max(declared, key=len)]
    grows = [a != b for a, b in zip(parameter.shape, wider.shape, strict=True)]
    if len(grows) < 2:
        return "vector" if any(grows) else "fixed"
    bare = isinstance(owner, nn.Embedding) or name.rpartition(".")[2] != "weight"
    outputs, inputs = (grows[-1], any(grows[:-1])) if bare else (grows[0], any(grows[1:]))
    return ROLES[inputs, outputs]


def _compared(module: nn.Module, wider: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Name, owner, parameter, and the same parameter of the wider network."""
    shapes = dict(wider.named_parameters())
    for path, owner in module.named_modules():
        for own, parameter in owner.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            yield name, owner, parameter, shapes[name]


def _counterpart(name: str, originals: Mapping[str, Tensor]) -> str:
    """The parameter of the base network that a parameter corresponds to: of the last block where the base has fewer."""
    if name in originals:
        return name
    pattern = re.compile(re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name), count=1))
    alike = [other for other in originals if pattern.fullmatch(other)]
    if not alike:
        raise ValueError(f"parameter {name} exists at this size and not at CompleteP's base size; choose a base that has it")
    return alike[-1]


@torch.no_grad()
def _rescale(parameter: Tensor, original: Tensor, factor: float) -> None:
    """Give a weight `factor` times the root mean square that its original starts with; what starts at zero stays."""
    if parameter.is_meta:
        return
    now, then = parameter.square().mean().sqrt(), original.square().mean().sqrt()
    if now > 0:
        parameter.mul_(then * factor / now)


def parameter_groups(
    network: nn.Module, scalings: Mapping[str, Scaling], *, rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW, those that decay first: parameters of two or more axes decay, others do not.

    A group's `rate_multiplier` is what a schedule multiplies the learning rate by. Parameters without a scaling have that of the
    base size, so that with none there are two groups.
    """
    groups: dict[tuple[bool, Scaling], list[Tensor]] = {}
    for decays in (True, False):
        for name, parameter in network.named_parameters():
            if (parameter.ndim > 1) == decays:
                groups.setdefault((decays, scalings.get(name, Scaling())), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * rule.rate,
            "rate_multiplier": rule.rate,
            "weight_decay": weight_decay * rule.weight_decay if decays else 0.0,
            "eps": EPS * rule.eps,
        }
        for (decays, rule), parameters in groups.items()
    ]
