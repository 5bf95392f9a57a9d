"""Tokenizers of other packages: found by entry point, planned without weights, whitened, checked, named in run_id."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import EXPERIMENT

from bench import registry
from bench.backbone import BackboneConfig
from bench.conditioning import Condition
from bench.data.open import open_data
from bench.paradigm import TokenSpace
from bench.plan.cells import first_run
from bench.plan.plan import make_plan
from bench.registry import load
from bench.testing import check_tokenizer
from bench.tokenizers.plugin import plugin_class

SOURCE = """
from dataclasses import replace
import torch
from bench.config.tokenizers import PluginConfig
from bench.tokenizers.pixels import from_patches, to_patches
from bench.tokenizers.plugin import PluginAutoencoder
from bench.tokenizers.residual import ResidualQuantizer, code_vectors

PATCH = 8

class Mean(PluginAutoencoder):
    'The mean color of each patch.'

    levels = 0

    @classmethod
    def sizes(cls, resolution):
        if resolution % PATCH:
            raise ValueError(f"resolution must be a multiple of {PATCH}, not {resolution}")
        return PluginConfig(name="", resolution=resolution, grid=resolution // PATCH, num_channels=3, num_codes=cls.levels**3)

    @classmethod
    def load(cls, config):
        return cls(config)

    @classmethod
    def weights_hash(cls):
        return "none"

    def moments(self, images):
        mean = to_patches(images.float() / 127.5 - 1, PATCH).unflatten(2, (3, -1)).mean(3)
        return mean, torch.zeros_like(mean)

    def quantize(self, latents):
        digits = ((latents + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1).long()
        codes = (digits * torch.tensor([self.levels**2, self.levels, 1])).sum(2)
        return self.lookup(codes), codes

    def lookup(self, codes):
        digits = torch.stack([codes // self.levels**2, codes // self.levels % self.levels, codes % self.levels], 2)
        return digits / (self.levels - 1) * 2 - 1

    def decode_raw(self, latents):
        return from_patches(latents.repeat_interleave(PATCH**2, 2), PATCH)

class Coded(Mean):
    levels = 8

class Scaled(Mean):
    "Codes of grids of 1, 3 and 4 tokens a side, which share a codebook."

    @classmethod
    def sizes(cls, resolution):
        return replace(super().sizes(resolution), num_codes=1024, scales=(1, 3, 4))

    @classmethod
    def code_vectors(cls):
        return code_vectors((16, 8, 8))

    quantizer = ResidualQuantizer((16, 8, 8), (1, 3, 4))

    def quantize(self, latents):
        return self.quantizer(latents)

    def lookup(self, codes):
        return self.quantizer.indices_to_codes(codes)
"""


CODED = replace(EXPERIMENT, methods=(replace(EXPERIMENT.methods[2], tokenizer="coded"),))
"""The miniature's masked-token on the plugin's codes."""


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A module that two entry points name."""
    module = tmp_path / "mean_tokens.py"
    module.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mean_tokens", raising=False)
    found = [EntryPoint(name, f"mean_tokens:{name.title()}", registry.TOKENIZER_GROUP) for name in ("mean", "coded", "scaled")]

    monkeypatch.setattr(registry, "installed", lambda group: [point for point in found if point.group == group])
    return module


@pytest.mark.usefixtures("plugins")
def test_it_stands_beside_the_suites_own() -> None:
    data = open_data("shapes32")
    assert data.space("mean") == TokenSpace(kind="latents", grid=4, channels=3)
    assert data.space("coded") == TokenSpace(kind="codes", grid=4, vocabulary=512)
    images = torch.from_numpy(data.render_split(np.arange(64), "train")[0])
    latents, codes = data.tokenizer("mean").encode(images), data.tokenizer("coded").encode(images)
    assert latents.shape == (64, 16, 6)
    assert latents[..., :3].flatten(0, 1).mean(0).abs().max() < 0.2
    assert latents[..., :3].flatten(0, 1).std(0) == pytest.approx(1, abs=0.2)
    assert codes.shape == (64, 16)
    rebuilt = data.tokenizer("mean").reconstruct(images).float()
    assert rebuilt.unfold(2, 8, 8).unfold(3, 8, 8).std((-1, -2)).max() == 0
    assert (rebuilt.mean((2, 3)) - images.float().mean((2, 3))).abs().max() < 1


@pytest.mark.usefixtures("plugins")
def test_codes_of_several_grids_are_read_by_next_scale() -> None:
    """Sides need not divide the grid; the vectors are known without the network."""
    data = open_data("shapes32")
    space = data.space("scaled")
    assert (space.scales, space.num_tokens) == ((1, 3, 4), 26)
    assert space.code_vectors is not None
    assert space.code_vectors.shape == (1024, 3)
    images = torch.from_numpy(data.render_split(np.arange(8), "train")[0])
    paradigm = load("next-scale")(BackboneConfig(width=32, depth=2, num_heads=2), space, data.conditions)
    condition = Condition.of(torch.ones(8, data.conditions.num_tokens, dtype=torch.long))
    assert torch.isfinite(paradigm.loss(data.tokenizer("scaled").encode(images), condition)[0]).all()
    assert data.tokenizer("scaled").reconstruct(images).shape == images.shape


def test_wrong_vectors_are_found(plugins: Path) -> None:
    plugins.write_text(SOURCE.replace("code_vectors((16, 8, 8))\n", "code_vectors((16, 8))\n"))
    assert check_tokenizer(plugin_class("scaled"), 32) == [
        "code_vectors must be float32 (1024, channels), not torch.float32 (128, 2)"
    ]
    plugins.write_text(SOURCE.replace("def code_vectors(", "def others("))
    sys.modules.pop("mean_tokens")
    (found,) = check_tokenizer(plugin_class("scaled"), 32)
    assert "Scaled has codes of several scales and says no code_vectors" in found


@pytest.mark.usefixtures("plugins")
def test_a_plan_names_it() -> None:
    plan = make_plan(CODED, round(CODED.budget), open_data(CODED.data))
    (run, *_) = (planned.run for planned in plan.runs)
    assert run.tokenizer == "coded"
    assert len(run.tokenizer_hash) == 12
    assert plan.cache_bytes["coded"] > 0


def test_its_source_and_weights_are_part_of_run_id(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data("shapes32")
    (method,), (size, *_) = CODED.methods, CODED.sizes
    names = [first_run(CODED, method, size, 10**9, data).run_id]
    monkeypatch.setattr(plugin_class("coded"), "weights_hash", classmethod(lambda cls: "others"))
    names.append(first_run(CODED, method, size, 10**9, data).run_id)
    plugins.write_text(SOURCE + "\n# changed\n")
    names.append(first_run(CODED, method, size, 10**9, data).run_id)
    assert len(set(names)) == 3


@pytest.mark.usefixtures("plugins")
def test_names_and_resolutions_that_nobody_has_are_refused() -> None:
    data = open_data("shapes32")
    with pytest.raises(ValueError, match="unknown tokenizer 'means'; did you mean 'mean'"):
        data.space("means")
    with pytest.raises(ValueError, match="resolution must be a multiple of 8, not 30"):
        plugin_class("mean").sizes(30)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("name", ["mean", "coded", "scaled"])
def test_the_conformance_test_passes_what_conforms(name: str) -> None:
    assert check_tokenizer(plugin_class(name), 32) == []
    assert check_tokenizer(plugin_class(name), 30) == ["ValueError: resolution must be a multiple of 8, not 30"]


FAULTS = {
    "no image may see another": ("return mean, torch", "mean = mean - mean.mean(0); return mean, torch"),
    "have the same latents": ("return mean, torch.zeros_like(mean)", "return mean[:1].expand_as(mean) * 0 + 1, 0 * mean"),
    "a standard deviation of the latents is negative": ("torch.zeros_like(mean)", "torch.zeros_like(mean) - 1"),
    "moments must give a finite float32 mean": ("return mean, torch", "mean = mean.double(); return mean, torch"),
    "codes must be 0 to 511": ("codes = (digits", "codes = 500 + (digits"),
    "lookup of the codes is not what quantize gives": ("return self.lookup(codes), codes", "return latents, codes"),
    "decode_raw must give finite pixels": (
        "repeat_interleave(PATCH**2, 2), PATCH)",
        "repeat_interleave(PATCH**2, 2), PATCH)[:, :1]",
    ),
    "weights_hash must name the weights": ('return "none"', 'return ""'),
}


@pytest.mark.parametrize("finding", FAULTS)
def test_the_conformance_test_finds_faults(plugins: Path, finding: str) -> None:
    wrong = SOURCE.replace(*FAULTS[finding])
    assert wrong != SOURCE
    plugins.write_text(wrong)
    (found, *_) = check_tokenizer(plugin_class("coded"), 32)
    assert finding in found
