"""FLOPs of a forward pass, counted by fvcore on meta tensors: rule "meta-v1", and the second opinion of "meta-v2" (step.py).

Letters: B images, T positions, D width, L blocks.

1 multiply-add = 2 FLOPs, integers. Matrix products count (linear, convolution, attention, einsum, bmm); norms, activations,
softmax, lookups, gathers, optimizer and EMA do not. "meta-v1" bills training as 3 x the counted forward. Attention is billed
dense; the exact-causal count is a second number. An operator that is neither billed nor on the free list is an error.
Nothing is ever counted on CPU or CUDA tensors: attention would be dropped there, or recomputation billed.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

TRAINING_MULTIPLE = 3
"""Backward costs twice the forward; measured 1.9997 to 1.99996 for DiT-S/2 to XL/2, 1.97 to 1.98 for the diffusion head."""


class UncountedOperatorError(ValueError):
    """A model uses an operator that the counter does not know."""


FREE_OPERATORS = frozenset(
    "aten::" + name
    for name in """
    abs acos add add_ alias all amax amin aminmax __and__ any arange argmax argmin argsort asin atan atan2 bernoulli
    bernoulli_ bitwise_and bitwise_not bitwise_or bitwise_xor Bool broadcast_to bucketize cat ceil chunk clamp clamp_
    clamp_min clamp_min_ clone contiguous copy_ cos cos_ cosh cross_entropy_loss cummax cumprod cumsum detach diff div div_
    dropout elu embedding empty empty_like eq erf erfinv exp exp_ expand expand_as expm1 fill_ flatten flip Float floor
    floor_divide fmod full full_like gather ge gelu gt hardtanh hstack index index_add index_copy index_fill index_put_
    index_select Int __invert__ isfinite isinf isnan item layer_norm le leaky_relu lift_fresh linalg_vector_norm linspace log
    log_ log1p log_softmax logaddexp logical_and logical_not logical_or logit logsumexp lt masked_fill masked_fill_ max
    maximum mean min minimum movedim mse_loss msort mul mul_ multinomial narrow native_layer_norm ne neg new_full new_ones
    new_zeros nll_loss normal_ numpy_T one_hot ones ones_like __or__ pad permute pow rand rand_like randint randn randn_like
    randperm reciprocal relu remainder repeat reshape resolve_conj resolve_neg rms_norm roll round rsqrt rsub scalar_tensor
    ScalarImplicit scatter scatter_ scatter_add searchsorted select sigmoid sign silu silu_ sin sinh slice softmax softplus
    sort split split_with_sizes sqrt square square_ squeeze stack std sub sub_ sum swapaxes t tan tanh tensor_split tile to
    topk transpose tril triu trunc type_as unbind unflatten uniform_ unsqueeze var view view_as vstack where __xor__ zero_
    zeros zeros_like
    """.split()
)
"""Operators that move or transform values element by element; 0 FLOPs by the rule."""


def _shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def _product_flops(left: list[int], right: list[int]) -> int:
    """Multiply-adds of torch.matmul with broadcasting and vectors."""
    left = [1, *left] if len(left) == 1 else left
    right = [*right, 1] if len(right) == 1 else right
    batch = torch.broadcast_shapes(left[:-2], right[:-2])
    return math.prod(batch) * left[-2] * left[-1] * right[-1]


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    return _product_flops(_shape(inputs[0]), _shape(inputs[1]))


def _baddbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return _product_flops(_shape(inputs[1]), _shape(inputs[2]))


def _linear(inputs: list[Any], outputs: list[Any]) -> int:
    return math.prod(_shape(inputs[0])) * _shape(inputs[1])[0]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Product of all index sizes: exact for two operands.

    Raises:
        UncountedOperatorError: for more operands, where the cost depends on the order.
    """
    equation = inputs[0].toIValue()
    operands = list(inputs[1].node().inputs())
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(operands) != 2 or "." in equation:
        raise UncountedOperatorError(f"einsum {equation!r}: only two operands without '...' are counted; write it as matmul")
    sizes = {letter: size for term, x in zip(terms, operands, strict=True) for letter, size in zip(term, _shape(x), strict=True)}
    return math.prod(sizes.values())


def _free(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class FlopCount:
    """FLOPs of one forward pass."""

    dense: int
    """Attention billed over all pairs."""
    causal: int
    """Attention billed over the pairs that a causal mask leaves."""


def count_forward(model: nn.Module, inputs: tuple[Tensor, ...]) -> FlopCount:
    """Count one forward pass of a model whose parameters and inputs (B, ...) are all on the meta device.

    Raises:
        UncountedOperatorError: when an operator is neither billed nor free.
        ValueError: when a tensor is not on the meta device.
    """
    tensors = [*model.parameters(), *inputs]
    if any(t.device.type != "meta" for t in tensors):
        raise ValueError("FLOPs are counted on the meta device only: build the model under `torch.device('meta')`")
    discount = 0

    def attention(inputs: list[Any], outputs: list[Any]) -> int:
        nonlocal discount
        query, key, value = (_shape(x) for x in inputs[:3])
        pairs, width = query[-2] * key[-2], query[-1] + value[-1]
        if inputs[5].toIValue():
            discount += math.prod(query[:-2]) * width * (pairs - query[-2] * (query[-2] + 1) // 2)
        return math.prod(query[:-2]) * pairs * width

    analysis = FlopCountAnalysis(model, inputs)
    handles: dict[str, Callable[[list[Any], list[Any]], int]] = {
        "aten::scaled_dot_product_attention": attention,
        "aten::matmul": _matmul,
        "aten::bmm": _matmul,
        "aten::mm": _matmul,
        "aten::baddbmm": _baddbmm,
        "aten::linear": _linear,
        "aten::einsum": _einsum,
        **dict.fromkeys(("aten::layer_norm", "aten::native_layer_norm", "aten::rms_norm", "aten::batch_norm"), _free),
        **dict.fromkeys(("aten::group_norm", "aten::instance_norm", "aten::adaptive_avg_pool2d"), _free),
    }
    analysis.set_op_handle(**handles)
    with _quiet_tracing():
        total = int(analysis.total())
        unknown = set(analysis.unsupported_ops()) - FREE_OPERATORS
    if unknown:
        names = ", ".join(sorted(unknown))
        raise UncountedOperatorError(
            f"the FLOP counter does not know {names}; use matmul, linear or scaled_dot_product_attention, "
            "or add the operator to FREE_OPERATORS in bench/flops/count.py if it costs nothing"
        )
    return FlopCount(2 * total, 2 * (total - discount))


@contextmanager
def _quiet_tracing() -> Iterator[None]:
    """Silence fvcore's list of skipped operators (ours is an error) and the tracer's remarks about Python numbers."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def num_parameters(model: nn.Module) -> int:
    """All trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
