"""Which products a call runs, seen from Python: cheap enough to watch every training step.

A torch function mode sees the calls of torch's functions (about 1.6 microseconds each on one core). Each product is noted by its
multiply-adds and by which of its operands need gradients, so that two steps with equal notes cost the same, backward included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

MULTIPLIED = {
    "linear": 0,
    "matmul": 0,
    "__matmul__": 0,
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "dot": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmv": 1,
}
"""Functions whose result is a sum over the last axis of one operand, and which operand."""
OTHERS = frozenset(
    """
    __rmatmul__ _convolution _scaled_dot_product_attention_math addbmm addbmm_ addmm_ addmv_ backward baddbmm_ bilinear cdist
    chain_matmul conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution corrcoef cov
    einsum grad gru gru_cell inner linalg_matmul linalg_matrix_exp linalg_matrix_power linalg_multi_dot linalg_vecdot lstm
    lstm_cell matrix_exp matrix_power multi_head_attention_forward rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell tensordot vdot
    vecdot
    """.split()
)
"""Further functions that multiply, derivatives among them: noted by the shapes that they get."""


class ProductWatch(TorchFunctionMode):
    """While active, notes every product that is called, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.causal_discount = 0
        """FLOPs, backward included, of the pairs of positions that causal attention does not see."""
        self._notes: dict[str, Callable[..., None]] = {"scaled_dot_product_attention": self._attention}
        for name, operand in MULTIPLIED.items():
            self._notes[name] = self._notes[f"{name}.default"] = self._second if operand else self._first
        self._notes |= dict.fromkeys((each for name in OTHERS for each in (name, f"{name}.default")), self._shapes)

    def clear(self) -> None:
        """Forget what was seen."""
        self.seen.clear()
        self.causal_discount = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, and note it where it multiplies."""
        out = func(*args, **kwargs) if kwargs else func(*args)
        note = self._notes.get(getattr(func, "__name__", ""))
        if note is not None:
            note(out, *args, **(kwargs or {}))
        return out

    def _product(self, multiply_adds: int, out: bool, left: bool, right: bool) -> None:
        self.seen.append(8 * multiply_adds + 4 * out + 2 * left + right)

    def _first(self, out: Tensor, *args: Any, **kwargs: Any) -> None:
        if len(args) < 2 or not isinstance(args[1], Tensor):
            self._shapes(out, *args, **kwargs)
            return
        left, right = args[:2]
        self._product(out.numel() * left.shape[-1], out.requires_grad, left.requires_grad, right.requires_grad)

    def _second(self, out: Tensor, *args: Any, **kwargs: Any) -> None:
        if len(args) < 3:
            self._shapes(out, *args, **kwargs)
            return
        self._first(out, *args[1:3])

    def _shapes(self, out: object, *args: Any, **kwargs: Any) -> None:
        """Any product by what it got: a number that no other call is likely to have."""
        tensors = [x for x in tree_leaves((out, args, kwargs)) if isinstance(x, Tensor)]
        self.seen.append(hash(tuple((tuple(x.shape), x.requires_grad) for x in tensors)))

    def _attention(
        self,
        out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **_: Any,
    ) -> None:
        """Attention as its two products, which is how `backbone.attend` runs it in bfloat16 on a CPU."""
        rows, keys, width = query.shape[-2], key.shape[-2], query.shape[-1]
        heads, scored = math.prod(query.shape[:-2]), query.requires_grad or key.requires_grad
        graph = out.requires_grad
        self._product(heads * rows * keys * width, graph and scored, query.requires_grad, key.requires_grad)
        self._product(heads * rows * keys * value.shape[-1], graph, graph and scored, value.requires_grad)
        if is_causal:
            hidden = heads * (rows * keys - rows * (rows + 1) // 2)
            times = 1 + graph * (query.requires_grad + key.requires_grad), 1 + graph * (scored + value.requires_grad)
            self.causal_discount += 2 * hidden * (width * times[0] + value.shape[-1] * times[1])
