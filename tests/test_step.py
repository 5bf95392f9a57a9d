"""FLOP rule "meta-v2": the whole training step, every product that runs and none that does not."""

import pytest
import torch
import torch.nn.functional as F
from spaces import CODES, CONDITIONS, LATENTS, SCALES, space_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.backbone import BackboneConfig
from bench.config.file import load_experiment
from bench.data.open import open_data
from bench.flops.count import UncountedOperatorError, count_forward
from bench.flops.meter import FlopMeter, LossForward, meta_batch
from bench.flops.step import count_step
from bench.model import build_meta
from bench.plan.cells import first_run
from bench.registry import load
from bench.testing import example_batch, paradigm_checks
from paradigms.diffusion import Diffusion
from paradigms.next_token import NextToken

CONFIG = BackboneConfig(width=64, depth=2, num_heads=2)
BATCH = 4
CHECKS = dict(paradigm_checks())
HEAD = {"width": 48, "depth": 2, "time_features": 32, "multiplier": 3, "steps": 4}
FIRST_LAYERS = {
    "diffusion": lambda d, hidden: LATENTS.num_tokens * LATENTS.channels * d + 256 * d,
    "masked-token": lambda d, hidden: 0,
    "next-token": lambda d, hidden: 0,
    "mar-discrete": lambda d, hidden: 0,
    "uniform-diffusion": lambda d, hidden: 256 * d,
    "block-diffusion": lambda d, hidden: 0,
    "next-scale": lambda d, hidden: SCALES.num_tokens * 3 * d,
    "mar": lambda d, hidden: (LATENTS.num_tokens - hidden) * LATENTS.channels * d + 3 * hidden * 48 * (LATENTS.channels + 32),
    "next-token-continuous": lambda d, hidden: 15 * LATENTS.channels * d + 3 * 16 * 48 * (LATENTS.channels + 32),
}
"""Multiply-adds per image of the layers whose inputs need no gradient: latents, noise and features of times."""


def build(cls, device: str = "meta", config: BackboneConfig = CONFIG, **options):
    with torch.device(device):
        torch.manual_seed(0)
        return cls(config, space_of(cls), CONDITIONS, **options)


def meter_of(cls, **options) -> FlopMeter:
    return FlopMeter(build(cls, **options), CONDITIONS, "meta-v2")


def ran(cls, seed: int = 0, **options) -> int:
    """FLOPs of a real step, as torch's counter sees them on the CPU."""
    paradigm = build(cls, "cpu", **options)
    tokens, _ = example_batch(paradigm.space, BATCH)
    words = torch.ones(BATCH, CONDITIONS.num_tokens, dtype=torch.int64)
    torch.manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):
        return count_step(LossForward(paradigm), (tokens, words, torch.zeros(BATCH, dtype=torch.bool)), CONFIG.width)


def forward_of(cls, seed: int = 0) -> int:
    """FLOPs of the forward pass by fvcore."""
    torch.manual_seed(seed)
    paradigm = build(cls)
    return count_forward(LossForward(paradigm), meta_batch(paradigm, CONDITIONS, BATCH)).dense


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_fvcore_closed_form_and_the_real_step_agree(name: str) -> None:
    """The whole step is 3 x fvcore's forward pass less the gradients of inputs that need none."""
    cls = load(name)
    options = {"head_options": HEAD} if name in ("mar", "next-token-continuous") else {}
    meter = meter_of(cls, **options)
    paradigm = build(cls, **options)
    for seed in (0, 5):
        torch.manual_seed(seed)
        hidden = paradigm.draw_num_hidden() if name.startswith("mar") else 0
        torch.manual_seed(seed)
        forward = count_forward(LossForward(paradigm), meta_batch(paradigm, CONDITIONS, BATCH))
        counted = meter.count(BATCH, seed)
        assert counted.dense == 3 * forward.dense - 2 * BATCH * FIRST_LAYERS[name](CONFIG.width, hidden)
        assert counted.dense - counted.causal == 3 * (forward.dense - forward.causal)
        assert counted.dense == ran(cls, seed, **options)


def test_the_default_experiment_moves_by_less_than_a_percent() -> None:
    experiment = load_experiment("shapes")
    dataset = open_data(experiment.data)
    for method in experiment.methods:
        run = first_run(experiment, method, experiment.sizes[-1], 10**12, dataset)
        meta = build_meta(run, dataset.space(method.tokenizer), dataset.conditions)
        old, new = (FlopMeter(meta, dataset.conditions, rule).count(BATCH, 0).dense for rule in ("meta-v1", "meta-v2"))
        assert -0.01 <= new / old - 1 <= 0


class SelfConditioning(Diffusion):
    """A first pass without gradients, the second with them."""

    def loss(self, tokens, condition):
        state = torch.get_rng_state()
        with torch.no_grad():
            super().loss(tokens, condition)
        torch.set_rng_state(state)
        return super().loss(tokens, condition)


def test_a_pass_without_gradients_is_billed_once() -> None:
    plain = meter_of(Diffusion).count(BATCH, 0).dense
    assert meter_of(SelfConditioning).count(BATCH, 0).dense == plain + forward_of(Diffusion) == ran(SelfConditioning)


class MeanFlow(Diffusion):
    """The derivative of the prediction along the path, by forward mode (Geng et al. 2025, equation 6), stopped."""

    def loss(self, tokens, condition):
        t = torch.rand(len(tokens), device=tokens.device)
        noise = torch.randn_like(tokens)
        velocity = noise - tokens
        path = lambda x, t: self.predict(x, t, condition)  # noqa: E731
        with sdpa_kernel(SDPBackend.MATH):
            out, slope = torch.func.jvp(path, (tokens + t[:, None, None] * velocity, t), (velocity, torch.ones_like(t)))
        return (out - (velocity - t[:, None, None] * slope).detach()).square().mean((1, 2)), {}


class DualNumbers(Diffusion):
    def loss(self, tokens, condition):
        noise = torch.randn_like(tokens)
        with torch.autograd.forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            dual = torch.autograd.forward_ad.make_dual(tokens, noise)
            out = self.predict(dual, torch.ones(len(tokens), device=tokens.device), condition)
            value, slope = torch.autograd.forward_ad.unpack_dual(out)
        return (value - slope.detach()).square().mean((1, 2)), {}


@pytest.mark.parametrize("cls", [MeanFlow, DualNumbers])
def test_forward_mode_is_billed(cls: type) -> None:
    counted = meter_of(cls).count(BATCH, 0).dense
    assert counted == ran(cls)
    plain = meter_of(Diffusion).count(BATCH, 0).dense
    assert 1.6 < counted / plain < 1.7  # torch multiplies by the zero derivatives of the weights too: 2 x forward beside 3


class GradientPenalty(Diffusion):
    """The gradient of the energy with respect to the tokens, and the gradient of that."""

    def loss(self, tokens, condition):
        tokens = tokens.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            out = self.predict(tokens, torch.ones(len(tokens), device=tokens.device), condition)
            (slope,) = torch.autograd.grad(out.square().sum(), tokens, create_graph=True)
        return slope.square().mean((1, 2)) + out.square().mean((1, 2)), {}


def test_gradients_of_gradients_are_billed() -> None:
    counted = meter_of(GradientPenalty).count(BATCH, 0).dense
    assert counted == ran(GradientPenalty)
    assert counted > 1.5 * meter_of(Diffusion).count(BATCH, 0).dense


class Convolutional(Diffusion):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.conv = nn.Conv2d(self.space.channels, self.space.channels, 3, padding=1)

    def predict(self, x, t, condition):
        image = x.transpose(1, 2).unflatten(2, (self.space.grid, self.space.grid))
        return super().predict(x + self.conv(image).flatten(2).transpose(1, 2), t, condition)


def test_convolutions_are_billed() -> None:
    counted = meter_of(Convolutional).count(BATCH, 0).dense
    conv = 2 * 9 * LATENTS.channels**2 * BATCH * LATENTS.num_tokens
    first = 2 * BATCH * LATENTS.num_tokens * LATENTS.channels * CONFIG.width  # whose input needs a gradient now
    assert counted == meter_of(Diffusion).count(BATCH, 0).dense + first + 2 * conv == ran(Convolutional)


class WorksInBackward(Diffusion):
    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        weight = self.head.weight
        found.register_hook(lambda grad: grad + 0 * (weight.detach() @ weight.detach().T).sum())
        return found, scalars


def test_work_in_hooks_is_billed() -> None:
    plain = meter_of(Diffusion).count(BATCH, 0).dense
    product = 2 * LATENTS.channels**2 * CONFIG.width
    assert meter_of(WorksInBackward).count(BATCH, 0).dense == plain + product == ran(WorksInBackward)
    big = torch.empty(32, 32, device="meta")

    def multiply(*_: object) -> None:
        big @ big

    handle = register_optimizer_step_pre_hook(multiply)
    try:
        assert meter_of(Diffusion).count(BATCH, 0).dense == plain + 2 * 32**3
    finally:
        handle.remove()


def test_values_that_an_optimizer_hook_touches_are_held_to_the_ceiling() -> None:
    x, y = torch.empty(512, 512, 64, device="meta"), torch.empty(512, 1, 64, device="meta")

    def multiply(*_: object) -> None:
        (x * y).sum(-1)

    handle = register_optimizer_step_pre_hook(multiply)
    try:
        with pytest.raises(UncountedOperatorError, match="operators that cost nothing touch"):
            meter_of(Diffusion).count(BATCH, 0)
    finally:
        handle.remove()


class RandomSlice(NextToken):
    """A product of a random slice, by the function and not by a layer."""

    @staticmethod
    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return F.linear(left, right)

    def loss(self, tokens, condition):
        rows = 1 + int(torch.randint(CODES.vocabulary, ()))
        found, scalars = super().loss(tokens, condition)
        weight = self.head.logits.weight
        return found + 0 * self.multiply(weight[:rows], weight).sum() / len(tokens), scalars


class SlicesByLinearAlgebra(RandomSlice):
    @staticmethod
    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return torch.linalg.matmul(left, right.T)


class SlicesByChain(RandomSlice):
    @staticmethod
    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return torch.linalg.multi_dot((left, right.T, right))


class LazyPenalty(NextToken):
    """A gradient of the weights in some steps: the products of the forward pass are those of every step."""

    def loss(self, tokens, condition):
        lazy = int(torch.randint(3, ()))
        found, scalars = super().loss(tokens, condition)
        if not lazy:
            (grad,) = torch.autograd.grad(found.sum(), self.embed_tokens.weight, create_graph=True)
            found = found + 0 * grad.square().sum()
        return found, scalars


@pytest.mark.parametrize("cls", [RandomSlice, SlicesByLinearAlgebra, SlicesByChain, LazyPenalty])
def test_random_slices_are_billed_by_what_ran(cls: type) -> None:
    meter = meter_of(cls)
    real = build(cls, "cpu")
    tokens, _ = example_batch(real.space, BATCH)
    inputs = tokens, torch.ones(BATCH, CONDITIONS.num_tokens, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.bool)
    bills = []
    for seed in range(8):
        torch.manual_seed(seed)
        with meter.watching():
            LossForward(real)(*inputs)
        bills.append(meter.bill(BATCH, seed).dense)
        assert bills[-1] == ran(cls, seed)
    assert len(set(bills)) > (1 if cls is LazyPenalty else 4)


def test_a_loss_that_looks_into_the_graph_in_some_steps_is_planned() -> None:
    counts = meter_of(LazyPenalty).expected(list(range(12)), BATCH)
    assert [count.dense for count in counts] == [ran(LazyPenalty, seed) for seed in range(12)]


class CostsByChance(Diffusion):
    """Its backward pass runs more at times, and its loss does not show it."""

    def loss(self, tokens, condition):
        found, scalars = super().loss(tokens, condition)
        times, weight = int(torch.randint(4, ())), self.head.weight.detach()
        found.register_hook(lambda grad: grad + 0 * sum(((weight @ weight.T).sum() for _ in range(times)), start=0.0))
        return found, scalars


def test_a_cost_that_the_loss_does_not_show_is_refused() -> None:
    with pytest.raises(ValueError, match="run the same products cost"):
        meter_of(CostsByChance).expected(list(range(6)), BATCH)


class MultiplyAndSum(Diffusion):
    """A linear layer written as a product of expanded tensors and a sum."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        width = self.backbone.config.width
        self.weight = nn.Parameter(torch.randn(4 * width, width))

    def hidden(self, x):
        return (x[:, :, None, :] * self.weight).sum(-1)

    def predict(self, x, t, condition):
        return super().predict(x, t, condition) + 0 * self.hidden(self.embed_tokens(x)).mean()


class CumulativeSum(MultiplyAndSum):
    def hidden(self, x):
        return (x[:, :, None, :] * self.weight).cumsum(-1)[..., -1]


class BroadcastDistance(MultiplyAndSum):
    """Squared differences, reduced inside the operator."""

    def hidden(self, x):
        shape = (*x.shape[:2], *self.weight.shape)
        return F.mse_loss(x[:, :, None, :].expand(shape), self.weight.expand(shape))


@pytest.mark.parametrize("cls", [MultiplyAndSum, CumulativeSum, BroadcastDistance])
def test_products_by_free_operators_are_refused(cls: type) -> None:
    with pytest.raises(UncountedOperatorError, match="operators that cost nothing touch"):
        meter_of(cls).count(BATCH, 0)


DEAR = [pytest.param(cls, marks=pytest.mark.slow) for cls in (GradientPenalty, MeanFlow, SelfConditioning)]


@pytest.mark.parametrize("cls", [Convolutional, *DEAR])
def test_the_check_counts_what_the_rule_does(cls: type) -> None:
    assert CHECKS["training-cost"](cls) == []


@pytest.mark.slow
def test_the_check_counts_the_sampling_of_convolutions() -> None:
    assert CHECKS["sampling-cost"](Convolutional) == []


def test_the_check_refuses_what_only_looks_free() -> None:
    (said,) = CHECKS["training-cost"](MultiplyAndSum)
    assert "operators that cost nothing touch" in said


class Calls(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer(x))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions as a product of complex numbers (Su et al. 2021)."""
    turn = torch.polar(torch.ones(x.shape[1], 32, device=x.device), torch.rand(x.shape[1], 32, device=x.device))
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (32, 2))) * turn).flatten(2)


ELEMENTWISE = {
    "glu": lambda x: F.glu(x),
    "huber": lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"),
    "l1": lambda x: F.l1_loss(x, torch.zeros_like(x), reduction="none"),
    "kl_div": lambda x: F.kl_div(x.log_softmax(-1), x.detach().softmax(-1), reduction="none"),
    "prod": lambda x: x.prod(1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "lerp": lambda x: x.lerp(torch.zeros_like(x), 0.3),
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argsort(1), dim=1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (4, 4)), 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x.transpose(1, 2).unflatten(2, (4, 4)), 2),
    "complex rotation": rotated,
    "group norm": lambda x: F.group_norm(x.transpose(1, 2), 4),
    "dropout": lambda x: F.dropout(x, 0.1),
    "cumulative maximum": lambda x: x.cummax(1).values,
    "masked in place": lambda x: x.clone().masked_fill_(x.detach() > 0, 0.0),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"),
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid(), reduction="none"),
    "instance norm": lambda x: F.instance_norm(x.transpose(1, 2)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x.transpose(1, 2).unflatten(2, (4, 4)), 2),
    "unfold": lambda x: F.unfold(x.transpose(1, 2).unflatten(2, (4, 4)), 2),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_operators_that_cost_nothing(name: str) -> None:
    call = ELEMENTWISE[name]
    with torch.device("meta"):
        model = Calls(lambda x: call(x).flatten(1).mean(1))
        linear = 2 * 2 * BATCH * 16 * 64 * 64  # forward, and the weight's gradient
        assert count_step(model, (torch.empty(BATCH, 16, 64),), width=64) == linear


@pytest.mark.parametrize(
    ("call", "shapes", "multiply_adds"),
    [
        (torch.matmul, ((4, 5), (7, 5, 6)), 840),
        (torch.matmul, ((5,), (5,)), 5),
        (torch.mv, ((3, 5), (5,)), 15),
        (torch.addmv, ((3,), (3, 5), (5,)), 15),
        (torch.addbmm, ((3, 6), (2, 3, 5), (2, 5, 6)), 180),
        (lambda x, y: torch.einsum("bij,bkj->bik", x, y), ((3, 11, 7), (3, 13, 7)), 3003),
        (lambda x, y: torch.einsum("bnd,ef->bne", x, y), ((2, 3, 5), (7, 11)), 0),
        (lambda x, y, z: torch.einsum("ij,jk,kl->il", x, y, z), ((3, 4), (4, 5), (5, 6)), 3 * 4 * 5 + 3 * 5 * 6),
        (lambda x, y: F.conv2d(x, y, padding=1), ((2, 3, 8, 8), (5, 3, 3, 3)), 2 * 5 * 64 * 27),
    ],
)
def test_products_are_billed_as_they_run(call, shapes: tuple, multiply_adds: int) -> None:
    for device in ("meta", "cpu"):
        x, *rest = (nn.Parameter(torch.ones(shape, device=device)) for shape in shapes)
        others = [y.detach() for y in rest]
        model = Calls(lambda _: call(x.detach(), *others).sum() + 0 * model.layer.bias[0])
        model.layer = nn.Linear(1, 1, device=device)
        layer = 2 * BATCH
        counted = count_step(model, (torch.empty(BATCH, 1, device=device),), width=0)
        assert counted == 2 * multiply_adds + layer


class AnotherWorld(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        return x @ y

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad @ grad, None


def test_python_functions_are_seen_through() -> None:
    with torch.device("meta"):
        model = Calls(lambda x: AnotherWorld.apply(x[0], model.layer.weight.detach()).sum(-1))
        layer = 2 * 2 * 64**3
        assert count_step(model, (torch.empty(1, 64, 64),), width=64) == layer + 2 * 2 * 64**3


def flash(x: Tensor) -> Tensor:
    """Attention by the kernel that torch tags as it tags random draws."""
    heads = x.detach().view(1, 1, *x.shape)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(heads, heads, heads)[0][0, 0]


@pytest.mark.parametrize("call", [torch.linalg.pinv, torch.cholesky_inverse, lambda x: torch.fft.fft(x).abs(), flash])
def test_unknown_operators_are_refused(call) -> None:
    with torch.device("meta"), pytest.raises(UncountedOperatorError, match="does not know"):
        count_step(Calls(lambda x: call(x[0]).sum(-1)), (torch.empty(1, 64, 64),), width=64)
