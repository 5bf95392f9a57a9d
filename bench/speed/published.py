"""Our MAR against the published code (LTH14/mar) in one process: the same configuration, batch, types and machine.

MAR_REFERENCE names a clone of https://github.com/LTH14/mar; it needs timm, which this project does not install. Nothing of it is
changed but that `.cuda()` stays on the CPU where there is no GPU.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, ConditionSpace
from bench.model import compile_on_gpu, device_type
from bench.paradigm import Paradigm, TokenSpace
from bench.registry import load
from bench.speed.timing import ratio, rounds, row

WIDTH, DEPTH, HEADS, CLASSES, SLOTS = 192, 8, 3, 1000, 64
HEAD_WIDTH, HEAD_DEPTH, MULTIPLIER, HEAD_STEPS = 256, 3, 4, 100
FLOW_STEPS = 10
"""Evaluations of the head along the probability flow, which 25 do not better on a trained run (docs/log.md)."""
TRAINING_BATCH, SAMPLING_BATCH, SAMPLING_STEPS = 16, 4, 16
GRID, CHANNELS = 16, 16
REPEATS = 5


def published(folder: Path) -> Any:
    """The published class at the small configuration.

    Raises:
        ValueError: when the folder is no clone of it, or timm is missing.
    """
    sys.path.insert(0, str(folder))
    if not torch.cuda.is_available():
        for owner in (Tensor, nn.Module):
            setattr(owner, "cuda", lambda self, *_, **__: self)  # noqa: B010
    try:
        module = importlib.import_module("models.mar")
    except ImportError as error:
        raise ValueError(f"MAR_REFERENCE={folder} cannot be used ({error}); clone LTH14/mar there and install timm") from error
    torch.manual_seed(0)
    return module.MAR(
        encoder_embed_dim=WIDTH,
        encoder_depth=DEPTH // 2,
        encoder_num_heads=HEADS,
        decoder_embed_dim=WIDTH,
        decoder_depth=DEPTH // 2,
        decoder_num_heads=HEADS,
        diffloss_w=HEAD_WIDTH,
        diffloss_d=HEAD_DEPTH,
        diffusion_batch_mul=MULTIPLIER,
        num_sampling_steps=str(HEAD_STEPS),
        buffer_size=SLOTS,
        class_num=CLASSES,
    ).to(device_type())


def ours(**sampler: Any) -> Paradigm:
    """Our class at the same configuration: plain blocks, the published head, and perhaps another sampler of it."""
    head: dict[str, Any] = {"width": HEAD_WIDTH, "depth": HEAD_DEPTH, "multiplier": MULTIPLIER, "steps": HEAD_STEPS}
    head |= {"prediction": "noise", "learned_variance": True, **sampler}
    with torch.device(device_type()):
        torch.manual_seed(0)
        make: Callable[..., Paradigm] = load("mar")
        return make(
            BackboneConfig(width=WIDTH, depth=DEPTH, num_heads=HEADS, modulation=False, qk_norm=False),
            TokenSpace(kind="latents", grid=GRID, channels=CHANNELS),
            ConditionSpace(num_tokens=1, vocabulary=CLASSES),
            num_buffer_slots=SLOTS,
            head_options=head,
        )


def measure_published() -> Iterator[dict[str, Any]]:
    """Rows of the published code's seconds over ours, per training step and per sampled image, in fp32 and bf16."""
    folder = os.environ.get("MAR_REFERENCE")
    place: dict[str, Any] = {"size": f"{WIDTH}x{DEPTH}", "tokens": GRID**2}
    if not folder:
        yield row("published", "mar", "published code over ours", None, "1", ">= 1.5", **place)
        return
    theirs, mine = published(Path(folder)), compile_on_gpu(ours())
    flow = compile_on_gpu(ours(sampler="probability-flow", steps=FLOW_STEPS))
    where = device_type()
    latents = torch.randn(TRAINING_BATCH, CHANNELS, GRID, GRID, device=where)
    tokens = latents.flatten(2).transpose(1, 2).contiguous()
    labels = torch.zeros(TRAINING_BATCH, dtype=torch.int64, device=where)
    optimizers = {model: torch.optim.AdamW(model.parameters(), lr=1e-4, fused=model is mine) for model in (theirs, mine)}
    generator = torch.Generator(where)
    for dtype in ("fp32", "bf16"):
        with torch.autocast(where, torch.bfloat16, enabled=dtype == "bf16"):

            def their_step() -> None:
                theirs.train()
                loss: Tensor = theirs(latents, labels)
                finish(theirs, loss, optimizers[theirs])

            def our_step() -> None:
                mine.train()
                loss = mine.loss(tokens, Condition.of(labels[:, None]))[0].mean()
                finish(mine, loss, optimizers[mine])

            @torch.no_grad()
            def their_images() -> None:
                theirs.eval()
                theirs.sample_tokens(SAMPLING_BATCH, num_iter=SAMPLING_STEPS, labels=labels[:SAMPLING_BATCH])

            @torch.no_grad()
            def our_images(model: Paradigm) -> None:
                model.eval()
                some = Condition.of(labels[:SAMPLING_BATCH, None])
                model.sample(some, steps=SAMPLING_STEPS, guidance=1.0, temperature=1.0, generator=generator)

            taken = rounds({"their step": their_step, "our step": our_step}, REPEATS)
            share = ratio(taken["their step"], taken["our step"])
            yield row("published", "mar", "published training step over ours", share, "1", ">= 1.5", **place, dtype=dtype)
            taken = rounds({"theirs": their_images, "ours": lambda: our_images(mine), "flow": lambda: our_images(flow)}, REPEATS)
            share = ratio(taken["theirs"], taken["ours"])
            yield row("published", "mar", "published sampling over ours", share, "1", ">= 1.5", **place, dtype=dtype)
            share = ratio(taken["theirs"], taken["flow"])
            quantity = f"published sampling over ours along the flow of {FLOW_STEPS} steps"
            yield row("published", "mar", quantity, share, "1", ">= 5", **place, dtype=dtype)


def finish(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The rest of a training step after its loss ()."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
    optimizer.step()
    optimizer.zero_grad()
