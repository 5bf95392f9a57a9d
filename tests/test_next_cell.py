"""Next-cell prediction's known answers: one cell is diffusion, cells see no later ones, the cache is the mask."""

import pytest
import torch
from spaces import CONDITIONS, LATENTS

from bench.backbone import BackboneConfig
from bench.conditioning import Condition, Guidance
from bench.testing import shake
from paradigms.diffusion import Diffusion
from paradigms.next_cell import NextCell, cells_of

BACKBONE = BackboneConfig(width=32, depth=2, num_heads=2)


def build(cls: type = NextCell, **options):
    torch.manual_seed(0)
    return cls(BACKBONE, LATENTS, CONDITIONS, **options).eval()


def conditions(size: int) -> Condition:
    return Condition.of(torch.randint(1, 14, (size, CONDITIONS.num_tokens), generator=torch.Generator().manual_seed(1)))


def draw(paradigm, guidance: float = 1.0, steps: int | None = 3):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return paradigm.sample(conditions(4), steps=steps, guidance=guidance, temperature=1.0, generator=generator)


def test_cells() -> None:
    assert cells_of(4, 2) == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert cells_of(3, 2) == [[0, 1, 3, 4], [2, 5], [6, 7], [8]]
    assert build().sizes == [4] * 4
    with pytest.raises(ValueError, match="1 to 4"):
        build(cell=5)


def test_one_cell_is_diffusion() -> None:
    """Loss and samples, on equal weights."""
    ours, theirs = build(cell=4), build(Diffusion)
    shake(ours)
    theirs.load_state_dict(ours.state_dict())
    losses = []
    for paradigm in (ours, theirs):
        torch.manual_seed(5)
        losses.append(paradigm.loss(LATENTS.example(8, torch.Generator().manual_seed(2)), conditions(8))[0])
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(draw(ours, 3.0), draw(theirs, 3.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", [1, 2])
def test_a_cell_sees_itself_and_earlier_ones(cell: int) -> None:
    """Neither tokens nor times of later cells change its output; its own do, through every token of it."""
    paradigm, condition, x = build(cell=cell), conditions(2), LATENTS.example(2)
    shake(paradigm)
    times = torch.rand(2, len(paradigm.sizes))
    before = paradigm.predict(x, times, condition)
    for number in range(len(paradigm.sizes)):
        start = sum(paradigm.sizes[:number])
        changed, later = x.clone(), times.clone()
        changed[:, start], later[:, number] = x[:, start] + 1, 1 - times[:, number]
        for after in (paradigm.predict(changed, times, condition), paradigm.predict(x, later, condition)):
            assert torch.equal(after[:, :start], before[:, :start])
            assert ((after - before)[:, start:].abs().amax((0, 2)) > 1e-4).all()


def test_every_cell_has_its_time() -> None:
    """With a velocity of zero the loss is that of noise - x; the network is shown (1 - t) x + t noise cell by cell."""
    paradigm = build()
    seen = []
    paradigm.predict = lambda x, times, condition: seen.append((x, times)) or torch.zeros_like(x)
    tokens = torch.ones(500, LATENTS.num_tokens, LATENTS.channels)
    loss = paradigm.loss(tokens, conditions(500))[0]
    assert float(loss.mean()) == pytest.approx(2.0, rel=0.02)
    x, times = seen[0]
    assert times.shape == (500, 4)
    assert float(torch.corrcoef(times.T).fill_diagonal_(0).abs().max()) < 0.15
    means = x.unflatten(1, (4, 4)).mean((2, 3))  # of 32 values each
    torch.testing.assert_close(means, 1 - times, rtol=0, atol=4.5 * 32**-0.5)
    assert float((means - (1 - times)).std()) == pytest.approx(float(times.square().mean().sqrt()) * 32**-0.5, rel=0.1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cached_cells_equal_masked_ones(guidance: float) -> None:
    """Every velocity of the sampler, against one uncached pass over finished cells at time 0 and the noisy one."""
    paradigm = build()
    shake(paradigm)
    reads = []
    original = paradigm.read
    paradigm.read = lambda x, where, time, *rest: reads.append((x, time, original(x, where, time, *rest))) or reads[-1][2]
    drawn = draw(paradigm, guidance)
    assert len(reads) == 4 * 3 + 3
    finished = drawn[:, paradigm.places]
    guide = Guidance(conditions(4), guidance)
    number = 0
    for x, time, velocity in reads:
        here = slice(4 * number, 4 * number + 4)
        sequence, times = finished.clone(), torch.zeros(4, 4)
        sequence[:, here], times[:, number] = x, time
        with torch.no_grad():
            whole = guide.mix(paradigm.predict(guide.double(sequence), guide.double(times), guide.condition))
        torch.testing.assert_close(velocity, whole[:, here], rtol=1e-4, atol=1e-4)
        number += time == 0


def test_tokens_return_to_their_places() -> None:
    """Untrained, the velocity is zero and the noise stays, in raster order."""
    noise = torch.randn(4, LATENTS.num_tokens, LATENTS.channels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(build(), steps=None), noise)
