"""Three counts that must agree as integers: fvcore with our handles, closed forms, and torch's FlopCounterMode, all on meta."""

import pytest
import torch
from spaces import CODES, CONDITIONS, LATENTS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone import Backbone, BackboneConfig
from bench.conditioning import ConditionSpace
from bench.flops.count import UncountedOperatorError, count_forward, num_parameters
from bench.flops.meter import FlopMeter, LossForward, meta_batch
from bench.flops.sampling import count_sampling
from bench.key_value_cache import KeyValueCache
from bench.paradigm import TokenSpace
from bench.registry import load
from paradigms.diffusion import Diffusion
from paradigms.diffusion_loss import DiffusionLoss
from paradigms.mar import MAR

SIZES = [
    BackboneConfig(width=32, depth=2, num_heads=2),
    BackboneConfig(width=64, depth=4, num_heads=2),
    BackboneConfig(width=128, depth=6, num_heads=4),
]
PREFIX = CONDITIONS.num_tokens
N = LATENTS.num_tokens


def backbone_flops(config: BackboneConfig, length: int, blocks: int, final: bool = True) -> int:
    """Forward FLOPs of `blocks` blocks on a sequence: 24 T d^2 + 4 T^2 d each, 12 d^2 modulation, 4 d^2 final modulation."""
    d = config.width
    per_block = 24 * length * d * d + 4 * length * length * d + 12 * d * d
    return blocks * per_block + (4 * d * d if final else 0)


def closed_form(name: str, config: BackboneConfig, hidden: int) -> int:
    d, depth = config.width, config.depth
    pool, length = 2 * d * d, PREFIX + N
    if name == "diffusion":
        time = 2 * (256 * d + d * d)
        return pool + time + 2 * N * d * LATENTS.channels * 2 + backbone_flops(config, length, depth)
    if name == "masked-token":
        return pool + backbone_flops(config, length, depth) + 2 * N * d * CODES.vocabulary
    if name == "next-token":
        return pool + backbone_flops(config, length - 1, depth) + 2 * N * d * CODES.vocabulary
    kept, half, w, c = N - hidden, depth // 2, 48, LATENTS.channels
    encoder = backbone_flops(config, PREFIX + kept, half, final=False) + 2 * kept * c * d + 2 * (PREFIX + kept) * d * d
    decoder = backbone_flops(config, length, depth - half)
    per_row = 2 * (w * (c + 32 + c) + w * w * (1 + 5 * 2 + 2))
    head = hidden * (2 * d * w + 3 * per_row)
    return pool + encoder + decoder + head


OPTIONS = {"mar": {"head_options": {"width": 48, "depth": 2, "time_features": 32, "multiplier": 3, "steps": 4}}}


def build(name: str, config: BackboneConfig):
    cls = load(name)
    with torch.device("meta"):
        return cls(config, LATENTS if cls.reads == "latents" else CODES, CONDITIONS, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("config", SIZES, ids=lambda c: f"{c.width}x{c.depth}")
@pytest.mark.parametrize("name", ["diffusion", "masked-token", "next-token", "mar"])
def test_three_counts_agree(name: str, config: BackboneConfig) -> None:
    paradigm = build(name, config)
    hidden = N
    if name == "mar":
        torch.manual_seed(5)
        hidden = paradigm.draw_num_hidden()
    forward = LossForward(paradigm)
    for batch in (1, 3):
        inputs = meta_batch(paradigm, CONDITIONS, batch)
        torch.manual_seed(5)
        counted = count_forward(forward, inputs)
        torch.manual_seed(5)
        with FlopCounterMode(display=False) as referee:
            loss = forward(*inputs)
        assert counted.dense == referee.get_total_flops() == batch * closed_form(name, config, hidden)
        with FlopCounterMode(display=False) as both:
            torch.manual_seed(5)
            loss = forward(*inputs)
            loss.sum().backward()
        assert both.get_total_flops() / counted.dense == pytest.approx(3, rel=0.025)


def test_causal_discount_is_exact() -> None:
    config = SIZES[1]
    paradigm = build("next-token", config)
    count = count_forward(LossForward(paradigm), meta_batch(paradigm, CONDITIONS, 1))
    length, d = PREFIX + N - 1, config.width
    assert count.dense - count.causal == config.depth * (4 * length**2 * d - 2 * length * (length + 1) * d)


def test_cached_decoding_costs_the_exact_causal_forward() -> None:
    """Prefill plus one-token steps add up to the dense causal forward with only the visible pairs billed."""
    config = SIZES[1]
    paradigm = build("next-token", config)
    sampled = count_sampling(paradigm, CONDITIONS, steps=None, guidance=1.0).total
    length, d, depth = PREFIX + N - 1, config.width, config.depth
    linear = depth * 24 * length * d * d
    modulation = depth * 12 * d * d + 4 * d * d  # by the image's vector, once for all steps
    pairs = PREFIX**2 + sum(range(PREFIX + 1, length + 1))
    expected = linear + modulation + depth * 4 * pairs * d + 2 * d * d + 2 * N * d * CODES.vocabulary
    assert sampled == expected


def test_guidance_doubles_the_network() -> None:
    paradigm = build("masked-token", SIZES[0])
    plain = count_sampling(paradigm, CONDITIONS, steps=8, guidance=1.0).total
    assert count_sampling(paradigm, CONDITIONS, steps=8, guidance=3.0).total == 2 * plain


class LanguageModel(nn.Module):
    def __init__(self, width: int, depth: int, num_heads: int, vocabulary: int) -> None:
        super().__init__()
        plain = BackboneConfig(width=width, depth=depth, num_heads=num_heads, modulation=False, qk_norm=False)
        self.backbone = Backbone(plain)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x, causal=True))


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "flops"),
    [
        (768, 12, 12, 291_648_307_200),
        (1024, 24, 16, 826_951_073_792),
        (1280, 36, 20, 1_774_570_700_800),
        (1600, 48, 25, 3_506_703_564_800),
    ],
)
def test_gpt2(width: int, depth: int, num_heads: int, flops: int) -> None:
    """nanoGPT's count for 1,024 positions and 50,257 tokens."""
    with torch.device("meta"):
        model = LanguageModel(width, depth, num_heads, 50_257)
        assert count_forward(model, (torch.empty(1, 1024, width),)).dense == flops


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021 on our backbone: linear patch embedding, class token, 1,000 classes."""

    def __init__(self, width: int, depth: int, num_heads: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * patch**2, width)
        self.start = nn.Parameter(torch.empty(1, 1, width))
        plain = BackboneConfig(width=width, depth=depth, num_heads=num_heads, modulation=False, qk_norm=False)
        self.backbone = Backbone(plain)
        self.head = nn.Linear(width, 1000)

    def forward(self, patches: Tensor) -> Tensor:
        return self.head(self.backbone(torch.cat([self.start, self.embed(patches)], dim=1))[:, 0])


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "patch", "macs"),
    [
        (768, 12, 12, 16, 17_563_828_224),
        (768, 12, 12, 32, 4_409_186_304),
        (1024, 24, 16, 16, 61_554_712_576),
        (1024, 24, 16, 32, 15_377_539_072),
        (1280, 32, 16, 14, 167_295_109_120),
    ],
)
def test_vision_transformers_at_224_pixels(width: int, depth: int, num_heads: int, patch: int, macs: int) -> None:
    """torchvision's published operation counts."""
    with torch.device("meta"):
        model = VisionTransformer(width, depth, num_heads, patch)
        assert count_forward(model, (torch.empty(1, (224 // patch) ** 2, 3 * patch**2),)).dense == 2 * macs


class DiT(nn.Module):
    """Peebles & Xie 2023 on our backbone: 4-channel latents, learned variance."""

    def __init__(self, width: int, depth: int, num_heads: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4 * patch**2, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.backbone = Backbone(BackboneConfig(width=width, depth=depth, num_heads=num_heads))
        self.head = nn.Linear(width, 2 * 4 * patch**2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.head(self.backbone(self.embed(x), self.time(t)))


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "patch", "macs"),
    [
        (384, 12, 6, 2, 6_055_673_856),
        (768, 12, 12, 2, 23_005_102_080),
        (1024, 24, 16, 2, 80_697_622_528),
        (1152, 28, 16, 2, 118_621_421_568),
        (384, 12, 6, 4, 1_412_579_328),
        (1152, 28, 16, 8, 7_392_411_648),
    ],
)
def test_dit_at_256_pixels(width: int, depth: int, num_heads: int, patch: int, macs: int) -> None:
    with torch.device("meta"):
        model = DiT(width, depth, num_heads, patch)
        tokens = torch.empty(1, (32 // patch) ** 2, 4 * patch**2)
        assert count_forward(model, (tokens, torch.empty(1, 256))).dense == 2 * macs


@pytest.mark.parametrize(
    ("depth", "width", "condition", "flops"),
    [(6, 1024, 768, 71_401_472), (8, 1280, 1024, 144_302_080), (12, 1536, 1280, 302_137_344)],
)
def test_diffusion_head_of_mar(depth: int, width: int, condition: int, flops: int) -> None:
    """Per token and draw, with the published head's 2 x 16 outputs (noise and variance)."""

    class OneToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = DiffusionLoss(LATENTS_16, condition, width=width, depth=depth, learned_variance=True)

        def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
            return self.head.predict(x, t, self.head.embed_condition(z))

    with torch.device("meta"):
        inputs = (torch.empty(1, 16), torch.empty(1), torch.empty(1, condition))
        assert count_forward(OneToken(), inputs).dense == flops


IMAGENET_CLASS = ConditionSpace(num_tokens=1, vocabulary=1000)
LATENTS_16 = TokenSpace(kind="latents", grid=16, channels=16)
PUBLISHED_MAR = {  # Li et al. 2024, section 4 and the MAR code: width, blocks, heads, head blocks, head width
    "B": (768, 24, 12, 6, 1024),
    "L": (1024, 32, 16, 8, 1280),
    "H": (1280, 40, 16, 12, 1536),
}


def published_mar(size: str) -> MAR:
    """Plain blocks without QK-norm or adaLN, 64 buffer slots, learned variance, 4 noise draws, ImageNet classes."""
    width, depth, num_heads, head_depth, head_width = PUBLISHED_MAR[size]
    config = BackboneConfig(width=width, depth=depth, num_heads=num_heads, modulation=False, qk_norm=False)
    head = {"width": head_width, "depth": head_depth, "learned_variance": True}
    with torch.device("meta"):
        return MAR(config, LATENTS_16, IMAGENET_CLASS, num_buffer_slots=64, head_options=head)


@pytest.mark.parametrize(
    ("size", "flops", "head_row"),
    [
        ("B", 149_084_979_200, 71_401_472),
        ("L", 325_299_994_624, 144_302_080),
        ("H", 653_158_793_216, 302_137_344),
    ],
)
def test_published_mar(size: str, flops: int, head_row: int) -> None:
    """MAR at 38 kept tokens. The published code embeds hidden tokens, runs its head on kept ones and drops both afterwards,
    and embeds the head's condition anew for each noise draw; ours does none of these."""
    mar = published_mar(size)
    mar.draw_num_hidden = lambda: 218
    inputs = meta_batch(mar, IMAGENET_CLASS, 1)
    ours = count_forward(LossForward(mar), inputs).dense
    width, head_width = mar.backbone.config.width, mar.head.out.in_features
    dropped = 218 * 2 * 16 * width + 38 * 4 * head_row
    repeated = 3 * 218 * 2 * width * head_width
    assert ours + dropped + repeated == flops


@pytest.mark.parametrize(("size", "millions"), [("B", 207.9), ("L", 478.3), ("H", 942.4)])
def test_published_mar_parameters(size: str, millions: float) -> None:
    """Within 0.5 % without the layer that pools the condition for adaLN, which the published network lacks."""
    mar = published_mar(size)
    found = num_parameters(mar) - num_parameters(mar.embed_condition.pool)
    assert found / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "millions"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
    ids=["S", "B", "L", "XL"],
)
def test_published_dit_parameters(width: int, depth: int, num_heads: int, millions: int) -> None:
    """DiT/2 (Peebles & Xie 2023, tables 1 and 4): 32x32x4 latents in 2x2 patches, 16 channels per token, learned variance,
    classes; without QK-norm and the layer that pools the condition."""
    config = BackboneConfig(width=width, depth=depth, num_heads=num_heads, qk_norm=False)
    with torch.device("meta"):
        dit = Diffusion(config, LATENTS_16, IMAGENET_CLASS, objective="ddpm", schedule="linear", learned_variance=True)
    found = num_parameters(dit) - num_parameters(dit.embed_condition.pool)
    assert found / 1e6 == pytest.approx(millions, rel=0.005)


class Calls(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call(x, y)


@pytest.mark.parametrize(
    ("call", "x", "y", "macs"),
    [
        (torch.matmul, (4, 5), (7, 5, 6), 840),
        (torch.matmul, (5,), (5,), 5),
        (torch.bmm, (2, 3, 4), (2, 4, 5), 120),
        (lambda x, y: torch.einsum("bij,bkj->bik", x, y), (3, 11, 7), (3, 13, 7), 3003),
        (lambda x, y: x @ y, (2, 1, 3, 4), (5, 4, 6), 2 * 5 * 3 * 4 * 6),
    ],
)
def test_products_that_fvcore_gets_wrong(call, x: tuple, y: tuple, macs: int) -> None:
    with torch.device("meta"):
        assert count_forward(Calls(call), (torch.empty(x), torch.empty(y))).dense == 2 * macs


def test_unknown_operators_are_an_error() -> None:
    with torch.device("meta"), pytest.raises(UncountedOperatorError, match="aten::"):
        count_forward(Calls(lambda x, y: torch.linalg.pinv(x) + y), (torch.empty(3, 3), torch.empty(3, 3)))


def test_python_functions_cannot_hide() -> None:
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
            return x @ y

        @staticmethod
        def backward(ctx, grad: Tensor):
            return grad, grad

    with torch.device("meta"):
        inputs = (torch.empty(3, 3), torch.empty(3, 3))
        with pytest.raises(UncountedOperatorError, match="PythonOp"):
            count_forward(Calls(Hidden.apply), inputs)


def test_real_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="meta"):
        count_forward(nn.Linear(3, 3), (torch.empty(1, 3),))


def build_real() -> nn.Module:
    """Diffusion with weights."""
    return load("diffusion")(SIZES[0], LATENTS, CONDITIONS)


def test_meter_bills_the_shapes_that_ran() -> None:
    """MAR hides a random number of tokens: the bills of real steps equal fresh counts under the same seeds, and differ."""
    meter = FlopMeter(build("mar", SIZES[0]), CONDITIONS, "meta-v1")
    real = load("mar")(SIZES[0], LATENTS, CONDITIONS, **OPTIONS["mar"])
    meter.attach(real)
    tokens, words, null = torch.randn(2, N, LATENTS.channels), torch.ones(2, PREFIX, dtype=torch.long), torch.zeros(2).bool()
    bills = []
    for seed in range(12):
        torch.manual_seed(seed)
        with meter.watching():
            LossForward(real)(tokens, words, null)
        bills.append(meter.bill(2, seed).dense)
        torch.manual_seed(seed)
        hidden = real.draw_num_hidden()
        assert bills[-1] == 3 * 2 * closed_form("mar", SIZES[0], hidden)
    assert len(set(bills)) > 1


@pytest.mark.parametrize("rule", ["meta-v1", "meta-v2"])
def test_meter_refuses_products_it_cannot_reproduce(rule: str) -> None:
    class Fickle(load("diffusion")):
        def loss(self, tokens, condition):
            if tokens.device.type != "meta":
                tokens = torch.cat([tokens, tokens])
                condition = type(condition)(condition.tokens.repeat(2, 1), condition.null.repeat(2))
            return super().loss(tokens, condition)

    with torch.device("meta"):
        meter = FlopMeter(Fickle(SIZES[0], LATENTS, CONDITIONS), CONDITIONS, rule)
    real = Fickle(SIZES[0], LATENTS, CONDITIONS)
    meter.attach(real)
    with meter.watching():
        LossForward(real)(torch.randn(2, N, 8), torch.ones(2, PREFIX, dtype=torch.long), torch.zeros(2).bool())
    with pytest.raises(ValueError, match="other products"):
        meter.bill(2, 0)


def watched(meter: FlopMeter, real: nn.Module) -> int:
    """Runs the loss of a step with seed 0 and says how many notes were taken."""
    torch.manual_seed(0)
    with meter.watching():
        LossForward(real)(torch.randn(2, N, LATENTS.channels), torch.ones(2, PREFIX, dtype=torch.long), torch.zeros(2).bool())
    return len(meter._watch.seen)


def test_a_block_is_noted_as_a_whole_and_billed_as_before() -> None:
    notes, bills = [], []
    for attached in (False, True):
        meter, real = FlopMeter(build("diffusion", SIZES[0]), CONDITIONS, "meta-v2"), build_real()
        if attached:
            meter.attach(real)
        notes.append(watched(meter, real))
        bills.append(meter.bill(2, 0))
    assert bills[0] == bills[1]
    assert notes[1] <= notes[0] - 5 * SIZES[0].depth  # a block has seven products or more


def test_work_that_is_hung_into_a_block_is_seen() -> None:
    """Hooks, and parts that are put in place of others, after the meter was attached."""

    def multiply(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        return out + 0 * (out @ out.transpose(-1, -2)).sum()

    class Twice(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + super().forward(x)

    for change in (
        lambda block: block.mlp[0].register_forward_hook(multiply),
        lambda block: setattr(block.attention, "out", Twice(*block.attention.out.weight.shape)),
    ):
        meter, real = FlopMeter(build("diffusion", SIZES[0]), CONDITIONS, "meta-v2"), build_real()
        meter.attach(real)
        watched(meter, real)
        meter.bill(2, 0)
        change(real.backbone.blocks[0])
        watched(meter, real)
        with pytest.raises(ValueError, match="other products"):
            meter.bill(2, 0)


def test_cache_grows_only_by_what_it_gets() -> None:
    backbone = Backbone(SIZES[0])
    cache = KeyValueCache(2, 6)
    vector = torch.randn(1, 32)
    x = torch.randn(1, 6, 32)
    for layer in backbone.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.2)
    dense = backbone(x, vector, causal=True)
    parts = [backbone(part, vector, causal=True, cache=cache) for part in x.split([2, 1, 3], dim=1)]
    assert cache.length == 6
    torch.testing.assert_close(torch.cat(parts, dim=1), dense, rtol=1e-5, atol=1e-5)
