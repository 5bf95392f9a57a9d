"""A network that is called again and again on tensors of one shape, replayed as one CUDA graph.

Sampling token by token launches thousands of kernels that take microseconds each, so that a GPU waits for Python between them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn


def replays(device: torch.device) -> bool:
    """Whether calls on a device are replayed: on a GPU, without gradients and autocast, whose tensors a graph would not outlive.

    PARADIGM_BENCH_GRAPHS=1 switches it on: no GPU has run it yet, and `make gpu` tests and times it.
    """
    if device.type != "cuda" or torch.is_grad_enabled() or torch.is_autocast_enabled(device.type):
        return False
    return os.environ.get("PARADIGM_BENCH_GRAPHS") == "1"


class Replayed:
    """A call that is captured at its first use, and anew where the shapes of its arguments change; anywhere but where `replays`
    says so, the plain call.

    It must read nothing but its arguments and tensors that stay where they are, and must not wait for the GPU. What it returns is
    overwritten by its next call.
    """

    def __init__(self, call: Callable[..., Tensor], parts: nn.Module) -> None:
        """parts: the module whose parameters the call reads; they may be overwritten, and where they move it is captured anew."""
        self._call, self._parts = call, parts
        self._key: tuple[object, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)

    def __call__(self, *given: Tensor) -> Tensor:
        """What the call makes of tensors (...), the first of which says the device: (...)."""
        if not replays(given[0].device):
            return self._call(*given)
        where = next(self._parts.parameters()).data_ptr()
        key = (where, torch.is_inference_mode_enabled(), *((each.shape, each.dtype) for each in given))
        if self._graph is None or key != self._key:
            self._graph, self._key = self._capture(given), key
        for mine, theirs in zip(self._inputs, given, strict=True):
            mine.copy_(theirs)
        self._graph.replay()
        return self._output

    def _capture(self, given: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Run once on a stream beside, where libraries allocate what they keep, then once for the graph, as torch's notes on CUDA
        graphs ask. (`make_graphed_callables` leaves cycles, so that its memory stays until Python collects them.)"""
        self._graph = None  # whose memory the new one may take
        self._inputs = [each.clone() for each in given]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            self._call(*self._inputs)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self._call(*self._inputs)
        return graph
