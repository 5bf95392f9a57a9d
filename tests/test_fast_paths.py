"""Every fast path has a slow twin and agrees with it: fp32 to 1e-5, bf16 to 2e-2, with dropout and guidance on and off."""

import pytest
import torch
import torch.nn.functional as F
from spaces import CODES, CONDITIONS, LATENTS, SCALES
from torch import Tensor, nn

from bench.backbone import Backbone, BackboneConfig, attend
from bench.conditioning import Condition, Guidance
from bench.flops.meter import FlopMeter
from bench.graphs import replays
from bench.key_value_cache import KeyValueCache
from bench.model import compile_on_gpu
from bench.paradigm import Paradigm
from bench.registry import load
from bench.testing import shake
from bench.train.ema import ExponentialMovingAverage
from paradigms import next_token

BACKBONE = BackboneConfig(width=64, depth=4, num_heads=2)
PARADIGMS = {"diffusion": LATENTS, "mar": LATENTS, "next-token": CODES, "masked-token": CODES}
PARADIGMS |= dict.fromkeys(("mean-flow", "next-cell", "normalizing-flow", "pixel-diffusion"), LATENTS) | {"next-scale": SCALES}
HEAD = {"head_options": {"width": 32, "depth": 2, "steps": 4, "multiplier": 3}}


def make(name: str) -> Paradigm:
    torch.manual_seed(0)
    paradigm = load(name)(BACKBONE, PARADIGMS[name], CONDITIONS, **(HEAD if name == "mar" else {}))
    shake(paradigm)
    return paradigm


def batch_of(name: str, dropout: bool, rows: int = 8) -> tuple[Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    space = PARADIGMS[name]
    tokens = torch.randn(rows, space.num_tokens, space.channels, generator=generator)
    if space.kind == "codes":
        tokens = torch.randint(space.vocabulary, (rows, space.num_tokens), generator=generator)
    words = torch.randint(1, CONDITIONS.vocabulary, (rows, CONDITIONS.num_tokens), generator=generator)
    return tokens, Condition.of(words).dropped(torch.arange(rows) % 2 == 0) if dropout else Condition.of(words)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    ours, theirs = ours.detach().float(), theirs.detach().float()
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("masking", ["none", "causal", "mask"])
@pytest.mark.parametrize("length", [1, 23, 71])
def test_attention_in_bf16_is_the_fused_kernel_in_fp32(masking: str, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(4, 2, length, 32, generator=generator, requires_grad=True) for _ in range(3))
    mask = torch.ones(length, length, dtype=torch.bool).tril(1) if masking == "mask" else None
    slow = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=masking == "causal")
    fast = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), mask, masking == "causal")
    assert fast.dtype == torch.bfloat16
    assert difference(fast, slow) < 2e-2
    gradients = [torch.autograd.grad((out.float() * slow.detach()).sum(), value)[0] for out in (fast, slow)]
    assert difference(*gradients) < 2e-2


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", list(PARADIGMS))
def test_bf16_losses_are_the_fp32_losses(name: str, dropout: bool) -> None:
    paradigm, (tokens, condition) = make(name), batch_of(name, dropout)
    torch.manual_seed(0)
    slow = paradigm.loss(tokens, condition)[0]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        fast = paradigm.loss(tokens, condition)[0]
    assert difference(fast.mean(), slow.mean()) < 2e-2


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", list(PARADIGMS))
def test_a_loss_of_a_batch_is_that_of_its_images(name: str, dropout: bool) -> None:
    """Hidden and shown conditions in one batch, against all hidden and all shown."""
    paradigm, (tokens, condition) = make(name), batch_of(name, dropout)
    together = loss_of(paradigm, tokens, condition)
    alone = [
        loss_of(paradigm, tokens, Condition(condition.tokens, torch.full_like(condition.null, null))) for null in (False, True)
    ]
    torch.testing.assert_close(together, torch.where(condition.null, alone[1], alone[0]), rtol=1e-5, atol=1e-5)


def loss_of(paradigm: Paradigm, tokens: Tensor, condition: Condition) -> Tensor:
    torch.manual_seed(0)
    return paradigm.loss(tokens, condition)[0]


def test_draws_of_diffusion_loss_in_one_batch_are_those_one_by_one() -> None:
    head = make("mar").head
    generator = torch.Generator().manual_seed(0)
    condition, target = torch.randn(16, 64, generator=generator), torch.randn(16, LATENTS.channels, generator=generator)
    torch.manual_seed(0)
    fast = head.loss(condition, target)
    torch.manual_seed(0)
    times = [torch.randint(1000, (16,)) for _ in range(head.multiplier)]
    noises = [torch.randn_like(target) for _ in range(head.multiplier)]
    losses, embedded = [], head.embed_condition(condition)
    for time, noise in zip(times, noises, strict=True):
        abar = head.diffusion.abar[time][:, None]
        out = head.predict(abar.sqrt() * target + (1 - abar).sqrt() * noise, time, embedded)[:, : LATENTS.channels]
        truth = noise if head.diffusion.prediction == "noise" else abar.sqrt() * noise - (1 - abar).sqrt() * target
        losses.append((out - truth).square().mean(1))
    bound = head.diffusion.learned_variance
    assert not bound, "the default head has no learned variance; the twin above leaves its bound out"
    torch.testing.assert_close(fast, torch.stack(losses).mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_in_one_batch_is_two_passes(scale: float) -> None:
    paradigm, (tokens, condition) = make("diffusion"), batch_of("diffusion", dropout=False)
    time = torch.full((len(tokens),), 0.3)
    with torch.no_grad():
        fast = paradigm.guided(tokens, 0.3, condition, Guidance(condition, scale))
        shown = paradigm.predict(tokens, time, condition)
        hidden = paradigm.predict(tokens, time, Condition(condition.tokens, ~condition.null))
    torch.testing.assert_close(fast, hidden + scale * (shown - hidden), rtol=1e-5, atol=1e-5)


def shaken_backbone() -> Backbone:
    """No weight is zero, frozen."""
    torch.manual_seed(0)
    backbone = Backbone(BACKBONE).requires_grad_(False)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    return backbone


@pytest.mark.parametrize("chunks", [[30], [7] + [1] * 23, [7, 10, 13]])
def test_a_cache_filled_in_pieces_gives_the_whole_sequence(chunks: list[int]) -> None:
    backbone = shaken_backbone()
    x, vector = torch.randn(3, 30, 64), torch.randn(3, 64)
    cache, done, out = KeyValueCache(BACKBONE.depth, 30), 0, []
    with torch.no_grad():
        for length in chunks:
            out.append(backbone(x[:, done : done + length], vector, causal=True, cache=cache))
            done += length
        slow = backbone(x, vector, causal=True)
    torch.testing.assert_close(torch.cat(out, dim=1), slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modulation", [True, False])
def test_transposed_weights_of_large_layers_give_the_whole_sequence(modulation: bool) -> None:
    config = BackboneConfig(width=384, depth=1, num_heads=6, modulation=modulation)
    torch.manual_seed(0)
    backbone, cache = Backbone(config).requires_grad_(False), KeyValueCache(1, 6)
    x, vector = torch.randn(2, 6, 384), torch.randn(2, 384) if modulation else None
    with torch.no_grad():
        out = [backbone(x[:, :2], vector, causal=True, cache=cache)]
        assert not cache._transposed  # four rows
        out += [backbone(x[:, index : index + 1], vector, causal=True, cache=cache) for index in range(2, 6)]
        slow = backbone(x, vector, causal=True)
    assert len(cache._transposed) == 2
    torch.testing.assert_close(torch.cat(out, dim=1), slow, rtol=1e-4, atol=1e-4)


def test_a_cache_of_fixed_shapes_gives_the_whole_sequence() -> None:
    """Positions at places that a tensor names, as a graph of kernels decodes; each place twice, as its capture does."""
    backbone = shaken_backbone()
    x, vector = torch.randn(3, 30, 64), torch.randn(3, 64)
    cache, places = KeyValueCache(BACKBONE.depth, 32), torch.arange(32)
    with torch.no_grad():
        out = [backbone(x[:, :7], vector, causal=True, cache=cache)]
        for index in range(7, 30):
            cache.place = places[index : index + 1]
            backbone(torch.zeros(3, 1, 64), vector, causal=True, cache=cache)
            out.append(backbone(x[:, index : index + 1], vector, causal=True, cache=cache))
        slow = backbone(x, vector, causal=True)
    torch.testing.assert_close(torch.cat(out, dim=1), slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["raster", "random"])
def test_decoding_with_fixed_shapes_draws_the_same_codes(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU captures, run plainly."""
    torch.manual_seed(0)
    paradigm = next_token.NextToken(BACKBONE, CODES, CONDITIONS, order=order)
    shake(paradigm)
    _, condition = batch_of("next-token", dropout=False)

    def codes() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return paradigm.sample(condition, steps=None, guidance=2.0, temperature=1.0, generator=generator)

    with torch.no_grad():
        slow = codes()
        monkeypatch.setattr(next_token, "replays", lambda device: True)
        assert torch.equal(codes(), slow)


def test_nothing_is_replayed_but_on_a_gpu_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    with torch.no_grad():
        assert not replays(gpu)  # nobody asked
    monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "1")
    assert not replays(gpu)
    with torch.no_grad():
        assert replays(gpu)
        assert not any(replays(torch.device(kind)) for kind in ("cpu", "meta"))
        monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "0")
        assert not replays(gpu)
        monkeypatch.setenv("PARADIGM_BENCH_GRAPHS", "1")
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        assert not replays(gpu)


def test_a_cache_filled_by_groups_gives_the_sequence_under_their_mask() -> None:
    """A group sees itself and earlier ones, whichever way, and has a vector of its own."""
    backbone = shaken_backbone()
    groups = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    x, vectors = (torch.randn(3, num, BACKBONE.width, generator=torch.Generator().manual_seed(num)) for num in (7, 4))
    mask = groups[:, None] >= groups
    whole = backbone(x, vectors, groups=groups, mask=mask)
    cache = KeyValueCache(BACKBONE.depth, len(groups))
    pieces = [backbone(x[:, groups == g], vectors[:, g], cache=cache) for g in range(4)]
    assert difference(torch.cat(pieces, dim=1), whole) < 1e-5
    later = torch.where(groups[:, None] > 1, x + 1, x)
    assert torch.equal(backbone(later, vectors, groups=groups, mask=mask)[:, :3], whole[:, :3])


def test_hooks_of_the_backbone_agree_where_they_mean_the_same() -> None:
    """A triangle as a mask is causal; equal vectors of all groups are the image's."""
    backbone = shaken_backbone()
    x, vector = torch.randn(3, 7, BACKBONE.width), torch.randn(3, BACKBONE.width)
    causal = backbone(x, vector, causal=True)
    assert difference(backbone(x, vector, mask=torch.ones(7, 7, dtype=torch.bool).tril()), causal) < 1e-5
    assert difference(backbone(x, vector[:, None].expand(-1, 2, -1), groups=torch.arange(7) % 2, causal=True), causal) < 1e-5


def test_averaging_in_one_call_is_the_formula() -> None:
    paradigm = make("diffusion")
    average = ExponentialMovingAverage(paradigm, 0.1)
    slow = [p.detach().double().clone() for p in paradigm.parameters()]
    for step in range(1, 6):
        shake(paradigm)
        weight = 1 - (1 - 1 / step) ** (average.exponent + 1)
        slow = [mine + weight * (p.detach().double() - mine) for mine, p in zip(slow, paradigm.parameters(), strict=True)]
        average.update(step)
    for ours, theirs in zip(average.averages, slow, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["diffusion", "next-token"])
def test_compiled_blocks_give_the_same_losses_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU here, which needs a C++ compiler; on a GPU the same call."""
    tokens, condition = batch_of(name, dropout=True)
    slow = make(name)
    monkeypatch.setenv("PARADIGM_BENCH_COMPILE", "1")
    fast = compile_on_gpu(make(name))
    assert fast.state_dict().keys() == slow.state_dict().keys()
    losses = [loss_of(paradigm, tokens, condition) for paradigm in (fast, slow)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for loss in losses:
        loss.mean().backward()
    for ours, theirs in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fast", ["bf16", pytest.param("compiled", marks=pytest.mark.slow)])
def test_fast_paths_are_billed_as_their_slow_twins(fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as two products on a CPU in bf16, and blocks that a compiler has taken, whose inside nobody watches."""
    tokens, condition = batch_of("next-token", dropout=True)
    with torch.device("meta"):
        torch.manual_seed(0)
        meters = [FlopMeter(load("next-token")(BACKBONE, CODES, CONDITIONS), CONDITIONS, "meta-v2") for _ in range(2)]
    monkeypatch.setenv("PARADIGM_BENCH_COMPILE", "1" if fast == "compiled" else "0")
    paradigm = compile_on_gpu(make("next-token"))
    meters[0].attach(paradigm)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast == "bf16"), meters[0].watching():
        loss = paradigm.loss(tokens, condition)[0].mean()
    loss.backward()
    assert meters[0].bill(len(tokens), 3) == meters[1].count(len(tokens), 3)
    assert len(torch.overrides._get_current_function_mode_stack()) == 0
