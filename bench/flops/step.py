"""FLOPs of a whole training step, as torch's counter sees them on the meta device.

Rule "meta-v2": every product that runs is billed, 1 multiply-add = 2 FLOPs: of the forward pass, of passes without gradients
(once), of forward-mode derivatives, of the backward pass where gradients flow (the first layer's input needs none), of gradients
of gradients and of hooks, those of the optimizer included. An operator that is neither billed nor known to cost nothing is an
error, and so is a step whose free operators touch as many values as hidden products would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.flops import meta_outputs
from bench.flops.count import UncountedOperatorError

FREE = frozenset(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _conj _conj_physical _cummax_helper _cummin_helper _efficientzerotensor
    _foreach_add _foreach_addcdiv _foreach_addcmul _foreach_div _foreach_lerp _foreach_mul _foreach_neg _foreach_sqrt _foreach_sub
    _fused_adamw _fused_rms_norm _fused_rms_norm_backward _fw_primal _has_same_storage_numel _is_zerotensor _local_scalar_dense
    _log_softmax _log_softmax_backward_data _logcumsumexp _make_dual _native_batch_norm_legit _new_zeros_with_same_feature_meta
    _pin_memory _prelu_kernel _prelu_kernel_backward _reshape_alias _safe_softmax _softmax _softmax_backward_data _to_copy
    _unsafe_index _unsafe_index_put _unsafe_view _weight_norm_interface _weight_norm_interface_backward adaptive_avg_pool2d
    adaptive_max_pool2d adaptive_max_pool2d_backward alias all amax amin aminmax any arange argmax argmin argsort as_strided
    avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d avg_pool3d_backward binary_cross_entropy binary_cross_entropy_backward
    binary_cross_entropy_with_logits bincount block_diag bucketize cat channel_shuffle clone col2im complex constant_pad_nd
    contiguous copy cummax cummin cumprod cumsum detach diagonal_backward elu_backward embedding embedding_dense_backward empty
    empty_like empty_permuted empty_strided equal expand_copy eye fill flip floor_divide full full_like gather glu glu_backward
    glu_backward_jvp glu_jvp hardtanh_backward histc huber_loss huber_loss_backward im2col index index_add index_copy index_fill
    index_put index_reduce index_select is_nonzero is_same_size isin item kthvalue l1_loss leaky_relu_backward lift lift_fresh
    lift_fresh_copy linalg_cross linalg_vector_norm linspace log_sigmoid_backward log_sigmoid_forward logcumsumexp logspace
    logsumexp masked_scatter masked_scatter_backward masked_select max max_pool2d_with_indices max_pool2d_with_indices_backward
    mean median min mode mse_loss mse_loss_backward msort nanmean nanmedian nansum native_batch_norm native_batch_norm_backward
    native_dropout_backward native_group_norm native_group_norm_backward native_layer_norm native_layer_norm_backward new_empty
    new_empty_strided new_full new_ones new_zeros nll_loss nll_loss2d_backward nll_loss2d_forward nll_loss_backward
    nll_loss_forward nonzero norm normal one_hot ones ones_like permute_copy pixel_shuffle pixel_unshuffle polar prod put randperm
    reflection_pad1d reflection_pad1d_backward reflection_pad2d reflection_pad2d_backward renorm repeat repeat_interleave
    replication_pad1d replication_pad1d_backward replication_pad2d replication_pad2d_backward resize resolve_conj resolve_neg roll
    rot90 scalar_tensor scatter scatter_add scatter_reduce searchsorted select_backward select_scatter set slice_backward
    slice_scatter smooth_l1_loss smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward softplus_backward sort
    split_with_sizes_copy squeeze squeeze_copy stack std std_mean sum take topk trace tril tril_indices triu triu_indices
    unfold_backward unsqueeze_copy upsample_nearest1d upsample_nearest1d_backward upsample_nearest2d upsample_nearest2d_backward
    value_selecting_reduction_backward var var_mean view_copy zero zeros zeros_like
    """.split()
)
"""Operators of torch that move, reduce or normalize values; views, draws and what torch itself calls pointwise are free too."""
DEAR_KERNELS = ("attention", "rnn")
"""In names of operators that torch tags as it tags draws, and that multiply."""
DEAR_PRIMITIVES = ("fft", "svd")
"""Names of torch's primitives that do more than move, reduce or map values."""
INDEXING = frozenset("embedding embedding_dense_backward gather index index_select take".split())
"""Operators that touch few of the values that they are given."""
VALUES_PER_FLOP = 4.0
"""Most values that free operators may touch per billed FLOP and unit of width. The built-ins touch .97 to 1.50 in every committed
experiment, widths 48 to 1280 (docs/log.md, 2026-11-21). A product by multiplying and summing touches at least half a value per
FLOP, so that at width d at most 8 / d of a step's FLOPs can hide in free operators: a small share of large models, and as much as
the step itself at widths below 8."""


def _vector(left: Tensor, *_: Any, **__: Any) -> int:
    """FLOPs of a vector (K,) or matrix (M, K) times a vector (K,)."""
    return 2 * left.numel()


def _added(bias: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """FLOPs of a product that is added: (M, K) times (K,), or the sum of (B, M, K) times (B, K, N)."""
    return 2 * left.numel() * (right.shape[-1] if right.ndim == 3 else 1)


aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **dict.fromkeys((aten.dot, aten.vdot, aten.mv), _vector),
    **dict.fromkeys((aten.addmv, aten.addbmm), _added),
}
"""FLOPs of an operator's call: torch's own formulas, and products that they lack."""


class StepCounter(TorchDispatchMode):
    """While active, adds up what runs, by the formulas of torch's FlopCounterMode, and refuses operators that it does not know.

    FlopCounterMode itself also attributes FLOPs to modules, which fails when a loss calls `torch.autograd.grad`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.values = 0
        """Values that free operators touched."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operator and count it.

        Raises:
            UncountedOperatorError: when it is neither billed nor free.
        """
        kwargs = kwargs or {}
        formula = FORMULAS.get(getattr(func, "overloadpacket", None))
        if formula is None and isinstance(func, OpOverload) and func.namespace == "aten":
            with self:  # under inference mode operators arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = meta_outputs.run(func, args, kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        elif not _is_view(func):
            name = _check_free(func)
            touched = (out,) if name in INDEXING else (out, args, kwargs)
            self.values += max((x.numel() for x in tree_leaves(touched) if isinstance(x, Tensor)), default=0)
        return out


def _is_view(func: Any) -> bool:
    return isinstance(func, OpOverload) and func.is_view


def _check_free(func: Any) -> str:
    """The name of an operator that costs nothing.

    Raises:
        UncountedOperatorError: when it may cost something.
    """
    if isinstance(func, OpOverload):
        name = func.overloadpacket.__name__.removesuffix("_")  # in place costs what its twin costs, which has the tags
        tags = set(func.tags) | set(getattr(getattr(aten, name, None), func._overloadname, func).tags)
        tagged = tags & {torch.Tag.pointwise, torch.Tag.nondeterministic_seeded}
        known = name in FREE or (tagged and not any(part in name for part in DEAR_KERNELS))
        if func.namespace in ("prim", "profiler"):
            return name
        if func.namespace == "prims" and not name.startswith(DEAR_PRIMITIVES):  # of which torch writes derivatives
            return name
        if func.namespace == "aten" and known:
            return name
    raise UncountedOperatorError(
        f"the FLOP counter does not know {func}; use matmul, linear, convolution or scaled_dot_product_attention, or add the "
        "operator to FREE in bench/flops/step.py if it costs nothing"
    )


def count_step(model: nn.Module, inputs: tuple[Tensor, ...], width: int) -> int:
    """FLOPs of a training step of a model that gives a loss per image (B,): forward, backward and what hooks of either or of the
    optimizer run.

    Args:
        inputs: of the model, (B, ...), on its device; on the meta device nothing is computed.
        width: of the backbone, against which the values that free operators touch are held.

    Raises:
        UncountedOperatorError: when an operator is neither billed nor free, or free ones touch more values than VALUES_PER_FLOP
            allows.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    try:
        with StepCounter() as counter:
            model(*inputs).mean().backward()
            values = counter.values
            optimizer.step()
            values += max(0, counter.values - values - sum(p.numel() for p in model.parameters()))  # beyond the step's own
    finally:
        optimizer.zero_grad(set_to_none=True)
    flops = counter.flops
    if values * width > VALUES_PER_FLOP * flops:
        raise UncountedOperatorError(
            f"operators that cost nothing touch {values:,} values in a step of {flops:,} FLOPs, more than {VALUES_PER_FLOP:g} "
            f"per FLOP and unit of width ({width}): write what multiplies and sums as matmul, linear or convolution"
        )
    return flops
