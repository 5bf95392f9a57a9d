"""Data sets of images, pretrained autoencoders, text encoders and judges: small sets and seeded networks, by the real paths."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_sets
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bench.config.data import ImageData, JudgeConfig, TextEncoderConfig
from bench.config.experiment import Evaluation
from bench.config.tokenizers import PretrainedConfig, TokenizerConfig
from bench.data import image_files, latents
from bench.data.image_data import TokenizedImages
from bench.data.image_files import ImageSet, UnreadableError, decode_image
from bench.data.latents import Encoded, TrainingData, fill_cache
from bench.data.text_encoder import TextEncoder
from bench.evaluate import pretrained
from bench.evaluate.fidelity import frechet_distance
from bench.evaluate.judge import Judge
from bench.evaluate.open import check_judge, open_judge
from bench.results.folder import Results
from bench.tokenizers.pretrained import load_pretrained, pretrained_hash

NUM_EACH = 12
KINDS: dict[str, tuple[Callable[[Path, int], Path], dict[str, object]]] = {
    "imagefolder": (small_sets.write_imagefolder, {}),
    "webdataset": (small_sets.write_webdataset, {"image_column": "jpg", "condition_column": "txt"}),
    "parquet": (small_sets.write_parquet, {"image_column": "picture", "condition_column": "kind"}),
    "coco": (small_sets.write_coco, {"split": "train2017", "condition_column": "caption"}),
}
CAPTIONED = ("webdataset", "coco")


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARADIGM_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def image_data(kind: str, folder: Path, **changes: object) -> ImageData:
    """A small set of a kind with a tiny pretrained autoencoder."""
    text = TextEncoderConfig(source=str(folder / "t5"), num_tokens=5, feature_dim=16)
    condition = {"condition": "caption", "text": text} if kind in CAPTIONED else {"condition": "class", "num_classes": 3}
    tiny = PretrainedConfig(architecture="AutoencoderKL", source=str(folder / "vae"), stride=4, num_channels=4)
    content = {"name": "small", "source": kind, "path": str(folder / kind), "resolution": small_sets.SIDE, "max_corrupt": 0.05}
    return ImageData(**{**content, "autoencoders": {"kl": tiny}, **condition, **KINDS[kind][1], **changes})


FEW_IMAGES = Evaluation(num_samples=24, num_validation=24, num_reference=24)


def judged_images(folder: Path, statistics: Path | str, **changes: object) -> TokenizedImages:
    """The small set of classes, judged by the seeded Inception and, where given, published statistics."""
    judge = JudgeConfig(inception=str(folder / "inception.pth"), reference_statistics=str(statistics))
    return TokenizedImages(image_data("imagefolder", folder, judge=judge, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for kind, (write, _) in KINDS.items():
        write(root / kind, NUM_EACH)
    small_sets.save_autoencoder(root / "vae")
    small_sets.save_t5(root / "t5")
    small_sets.save_clip(root / "clip")
    small_sets.save_dinov2(root / "dinov2")
    small_sets.save_inception(root / "inception.pth")
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_pictures(folder: Path, kind: str) -> None:
    """All odd images are read in their colors; the broken one is named and skipped."""
    found = ImageSet(image_data(kind, folder), KINDS[kind][1].get("split", "train"))
    pixels, conditions, skipped = found.read(range(len(found)))
    assert len(skipped) == 1
    assert len(pixels) == 3 * NUM_EACH - (kind == "webdataset")
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (3, small_sets.SIDE, small_sets.SIDE)
    names = sorted(small_sets.COLORS)
    for image, condition in zip(pixels, conditions, strict=True):
        color = names[condition] if kind not in CAPTIONED else condition.split()[1]
        expected, corner = np.array(small_sets.COLORS[color]), image[:, :2, -2:].mean((1, 2))
        grey = np.ptp(image.astype(int), axis=0).max() < 10
        assert grey or np.abs(corner - expected).max() < 60
    if kind == "coco":
        assert all(condition.startswith("a ") for condition in conditions)  # the first of two captions
    assert ImageSet(found.data, KINDS[kind][1].get("split", "train")).fingerprint() == found.fingerprint()


def test_pixels_of_odd_files() -> None:
    """Transparency over white, 16-bit grey scaled, the first frame of an animation; sizes cropped in the center."""
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 8, 16))
    pixels = decode_image(small_sets.encoded(half), 16)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert pixels[:, 0, 15].tolist() == [255, 255, 255]
    deep = Image.fromarray(np.full((16, 16), 257 * 100, np.uint16))
    assert (decode_image(small_sets.encoded(deep), 16) == 100).all()
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    assert decode_image(buffer.getvalue(), 16)[:, 8, 8].tolist() == [255, 0, 0]
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste((0, 255, 0), (24, 0, 40, 16))
    assert (decode_image(small_sets.encoded(wide), 16)[1] == 255).all()
    assert decode_image(small_sets.encoded(Image.new("RGB", (3, 5), "red")), 16).shape == (3, 16, 16)


@pytest.mark.parametrize("raw", [b"", b"nope", small_sets.BROKEN[1], b"GIF89a" + b"\0" * 20, "/does/not/exist.png"])
def test_unreadable_images_are_named(raw: bytes | str) -> None:
    with pytest.raises(UnreadableError):
        decode_image(raw, 16)


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1000)
    with pytest.raises(UnreadableError, match="pixels"):
        decode_image(small_sets.encoded(Image.new("L", (40, 40))), 16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "/nowhere"}, "does not exist"),
        ({"path": ""}, "--data"),
        ({"condition_column": "lable"}, "no column 'lable'"),
        ({"num_classes": 4}, "has 3 classes"),
    ],
)
def test_wrong_data_is_one_line(folder: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageSet(image_data("imagefolder", folder, **changes), "train")


def test_hub_names_need_the_download_flag(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    data = image_data("imagefolder", folder, source="huggingface", path="someone/pictures")
    with pytest.raises(ValueError, match="--download"):
        ImageSet(data, "train")


# -- the latent cache


def encoder(seen: list[int]) -> Callable[[range], Encoded]:
    def encode(indices: range) -> Encoded:
        seen.extend(indices)
        kept = [index for index in indices if index % 7]
        tokens = np.array(kept, np.float16)[:, None, None, None] * np.ones((1, 2, 3, 4), np.float16)
        return Encoded(tokens, np.array(kept, np.int32)[:, None], [f"image {i}" for i in indices if i % 7 == 0])

    return encode


def test_a_killed_encoding_resumes_at_the_first_missing_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD_BYTES", 1000)
    whole, resumed, seen = tmp_path / "whole", tmp_path / "resumed", []
    fill_cache(whole, 100, 50, encoder(seen), lambda _: None, chunk=8, max_skipped=20)
    assert seen == list(range(100))

    def dies(indices: range) -> Encoded:
        if indices.start >= 60:
            raise KeyboardInterrupt
        return encoder([])(indices)

    with pytest.raises(KeyboardInterrupt):
        fill_cache(resumed, 100, 50, dies, lambda _: None, chunk=8, max_skipped=20)
    assert not (resumed / "index.json").exists()
    seen.clear()
    fill_cache(resumed, 100, 50, encoder(seen), lambda _: None, chunk=8, max_skipped=20)
    assert seen == list(range(60, 100))
    for path in whole.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()
    data = TrainingData(resumed)
    assert len(data) == 85
    indices = np.array([84, 0, 50, 17, 51])
    assert data.rows("condition", indices)[:, 0].tolist() == [[i for i in range(100) if i % 7][k] for k in indices]
    assert json.loads((resumed / "index.json").read_text())["skipped"][:2] == ["image 0", "image 7"]


def test_too_many_broken_images_stop_the_encoding(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image 0; image 7; image 14.*max_corrupt"):
        fill_cache(tmp_path, 100, 50, encoder([]), lambda _: None, chunk=8, max_skipped=2)


def test_a_small_disk_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(ValueError, match="free; make room"):
        fill_cache(tmp_path, 1000, 10**12, encoder(seen), lambda _: None, chunk=8)
    assert not seen


def test_both_views_are_drawn_and_repeat(tmp_path: Path) -> None:
    def encode(indices: range) -> Encoded:
        tokens = np.zeros((len(indices), 2, 3, 4), np.float16)
        tokens[:, 1, :, :2] = 1.0  # the mean of the mirrored view
        return Encoded(tokens, np.zeros((len(indices), 1), np.int32))

    fill_cache(tmp_path, 64, 50, encode, lambda _: None, chunk=8)
    data = TrainingData(tmp_path)
    drawn = torch.cat([data.batch(0, step, 32)[0][:, 0, 0] for step in range(8)])
    assert 0.3 < float(drawn.mean()) < 0.7
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert torch.equal(drawn[:32], TrainingData(tmp_path).batch(0, 0, 32)[0][:, 0, 0])


def test_features_of_both_views_lie_beside_the_tokens(folder: Path, tmp_path: Path) -> None:
    """Of one tokenizer for both, features are the means that its moments begin with; the broken image has none."""
    dataset = TokenizedImages(image_data("imagefolder", folder))
    whole = dataset.encoder("kl+kl")(range(3 * NUM_EACH + 1))
    assert len(whole.skipped) == 1
    assert (whole.features == np.split(whole.tokens, 2, axis=3)[0]).all()
    assert whole.features.shape[:2] == (3 * NUM_EACH, 2)
    assert (whole.features[:, 0] != whole.features[:, 1]).any()
    space = dataset.space("kl+kl").features
    assert whole.features.shape[2:] == (space.num_vectors, space.channels)
    assert space.flops == dataset.autoencoder("kl").encoder_flops() > 0
    assert dataset.tokenizer_hash("kl+kl") not in {"", dataset.tokenizer_hash("kl")}
    fill_cache(tmp_path, 12, dataset.row_bytes("kl+kl"), dataset.encoder("kl+kl"), lambda _: None, chunk=8, max_skipped=1)
    assert TrainingData(tmp_path).batch(0, 0, 4)[2].shape == (4, space.num_vectors, space.channels)


# -- autoencoders


def small_diffusers(name: str) -> tuple[object, PretrainedConfig]:
    """A seeded autoencoder of each class, with what its config must say."""
    import diffusers

    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 4}
    blocks |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    twin = {f"{side}_block_out_channels": (8, 16) for side in ("encoder", "decoder")}
    twin |= {f"{side}_block_types": ("ResBlock", "EfficientViTBlock") for side in ("encoder", "decoder")}
    twin |= {f"{side}_layers_per_block": (1, 1) for side in ("encoder", "decoder")}
    twin |= {f"{side}_qkv_multiscales": ((), (5,)) for side in ("encoder", "decoder")}
    consistency = {"encoder_block_out_channels": (8,) * 4, "encoder_down_block_types": ("DownEncoderBlock2D",) * 4}
    consistency |= {"encoder_layers_per_block": 1, "encoder_norm_num_groups": 4, "decoder_block_out_channels": (8, 8)}
    consistency |= {"decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2, "decoder_layers_per_block": 1}
    consistency |= {"decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2, "decoder_norm_num_groups": 4}
    options, sizes = {
        "AutoencoderKL": (blocks, (2, 4, 0)),
        "VQModel": ({**blocks, "num_vq_embeddings": 32, "vq_embed_dim": 3}, (2, 3, 32)),
        "AutoencoderDC": ({**twin, "latent_channels": 4, "attention_head_dim": 8}, (2, 4, 0)),
        "ConsistencyDecoderVAE": ({**consistency, "latent_channels": 4}, (8, 4, 0)),
    }[name]
    stride, channels, codes = sizes
    config = PretrainedConfig(architecture=name, source="", stride=stride, num_channels=channels, num_codes=codes, resolution=16)
    return getattr(diffusers, name)(**options), config


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderDC", "VQModel", "ConsistencyDecoderVAE"])
def test_diffusers_autoencoders_load_and_decode_what_they_encode(tmp_path: Path, name: str) -> None:
    from dataclasses import replace

    model, config = small_diffusers(name)
    model.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    config = replace(config, source=str(tmp_path))
    loaded = load_pretrained(config)
    pixels = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loaded.measure_whitening(pixels.split(3))
    mean, std = loaded.encode_moments(pixels).chunk(2, dim=2)
    power = mean.square().mean((0, 1)) + std.square().mean((0, 1))
    assert torch.allclose(mean.mean((0, 1)), torch.zeros(config.num_channels), atol=1e-4)
    assert torch.allclose(power, torch.ones(config.num_channels), atol=1e-3)
    decoded = loaded.decode(mean)
    assert decoded.shape == pixels.shape
    assert torch.equal(decoded, loaded.decode(mean))
    if config.num_codes:
        codes = loaded.encode_codes(pixels)
        assert int(codes.max()) < config.num_codes
        assert torch.equal(loaded.decode(codes), decoded)
        nearest = model.quantize(model.encode(pixels / 127.5 - 1.0).latents)[2][2]  # type: ignore[attr-defined]
        assert torch.equal(codes.flatten(), nearest.flatten())
    assert loaded.decoder_flops() > 1e5
    assert len(pretrained_hash(config)) == 12
    with pytest.raises(ValueError, match="correct stride, num_channels or num_codes"):
        load_pretrained(replace(config, num_channels=config.num_channels + 1))
    with pytest.raises(ValueError, match="not the pinned"):
        load_pretrained(replace(config, sha256="0" * 64))


def group_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def convolution(x: Tensor, weights: dict[str, Tensor], name: str, **options: int) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights[f"{name}.bias"], padding=options.pop("padding", kernel.shape[-1] // 2), **options)


def residual(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    h = convolution(F.silu(group_norm(x, weights, f"{name}.norm1")), weights, f"{name}.conv1")
    h = convolution(F.silu(group_norm(h, weights, f"{name}.norm2")), weights, f"{name}.conv2")
    return h + (convolution(x, weights, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in weights else x)


def attention(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    h = group_norm(x, weights, f"{name}.norm")
    q, k, v = (convolution(h, weights, f"{name}.{part}").flatten(2) for part in "qkv")
    mixed = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2) @ v.transpose(1, 2)
    return x + convolution(mixed.transpose(1, 2).view_as(x), weights, f"{name}.proj_out")


class LatentDiffusionAutoencoder:
    """The autoencoder of Rombach et al. 2022 on seeded weights, under MAR's or LlamaGen's names: written a second time."""

    def __init__(self, llamagen: bool, widths: tuple[int, ...], channels: int, embedded: int) -> None:
        self.llamagen, self.widths, self.weights = llamagen, widths, {}
        self.generator = torch.Generator().manual_seed(0)
        last = len(widths) - 1
        self.add("encoder.conv_in", widths[0], 3, 3)
        before = widths[0]
        for level, width in enumerate(widths):
            for block in range(2):
                self.add_residual(f"{self.down(level)}.{self.block}.{block}", before, width)
                before = width
                if level == last:
                    self.add_attention(f"{self.down(level)}.attn.{block}", width)
            if level < last:
                self.add(f"{self.down(level)}.downsample.conv", width, width, 3)
        for side in ("encoder", "decoder"):
            for name in self.mid[::2]:
                self.add_residual(f"{side}.mid.{name}", widths[-1], widths[-1])
            self.add_attention(f"{side}.mid.{self.mid[1]}", widths[-1])
        self.add_norm("encoder.norm_out", widths[-1])
        self.add("encoder.conv_out", channels if llamagen else 2 * channels, widths[-1], 3)
        self.add("quant_conv", embedded if llamagen else 2 * embedded, channels if llamagen else 2 * channels, 1)
        self.add("post_quant_conv", channels, embedded, 1)
        self.add("decoder.conv_in", widths[-1], channels, 3)
        for level in range(last, -1, -1):
            for block in range(3):
                self.add_residual(f"{self.up(level)}.{self.block}.{block}", before, widths[level])
                before = widths[level]
                if level == last and llamagen:
                    self.add_attention(f"{self.up(level)}.attn.{block}", before)
            if level:
                self.add(f"{self.up(level)}.upsample.conv", before, before, 3)
        self.add_norm("decoder.norm_out", before)
        self.add("decoder.conv_out", 3, before, 3)
        if llamagen:
            self.weights["quantize.embedding.weight"] = torch.randn(32, embedded, generator=self.generator)

    @property
    def block(self) -> str:
        return "res" if self.llamagen else "block"

    @property
    def mid(self) -> tuple[str, str, str]:
        return ("0", "1", "2") if self.llamagen else ("block_1", "attn_1", "block_2")

    def down(self, level: int) -> str:
        return f"encoder.{'conv_blocks' if self.llamagen else 'down'}.{level}"

    def up(self, level: int) -> str:
        """LlamaGen numbers the decoder's levels from its input, MAR from its output."""
        return f"decoder.conv_blocks.{len(self.widths) - 1 - level}" if self.llamagen else f"decoder.up.{level}"

    def add(self, name: str, out: int, into: int, side: int) -> None:
        self.weights[f"{name}.weight"] = torch.randn(out, into, side, side, generator=self.generator) / (into * side**2) ** 0.5
        self.weights[f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.generator)

    def add_norm(self, name: str, width: int) -> None:
        self.weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=self.generator)
        self.weights[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.generator)

    def add_residual(self, name: str, before: int, width: int) -> None:
        self.add_norm(f"{name}.norm1", before)
        self.add(f"{name}.conv1", width, before, 3)
        self.add_norm(f"{name}.norm2", width)
        self.add(f"{name}.conv2", width, width, 3)
        if before != width:
            self.add(f"{name}.nin_shortcut", width, before, 1)

    def add_attention(self, name: str, width: int) -> None:
        self.add_norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self.add(f"{name}.{part}", width, width, 1)

    def middle(self, x: Tensor, side: str) -> Tensor:
        x = residual(x, self.weights, f"{side}.mid.{self.mid[0]}")
        x = attention(x, self.weights, f"{side}.mid.{self.mid[1]}")
        return residual(x, self.weights, f"{side}.mid.{self.mid[2]}")

    def level(self, x: Tensor, name: str, blocks: int) -> Tensor:
        for block in range(blocks):
            x = residual(x, self.weights, f"{name}.{self.block}.{block}")
            if f"{name}.attn.{block}.q.weight" in self.weights:
                x = attention(x, self.weights, f"{name}.attn.{block}")
        return x

    def encode(self, pixels: Tensor) -> Tensor:
        x = convolution(pixels, self.weights, "encoder.conv_in")
        for level in range(len(self.widths)):
            x = self.level(x, self.down(level), 2)
            if level < len(self.widths) - 1:
                x = convolution(F.pad(x, (0, 1, 0, 1)), self.weights, f"{self.down(level)}.downsample.conv", stride=2, padding=0)
        x = F.silu(group_norm(self.middle(x, "encoder"), self.weights, "encoder.norm_out"))
        return convolution(convolution(x, self.weights, "encoder.conv_out"), self.weights, "quant_conv")

    def decode(self, latents: Tensor) -> Tensor:
        x = convolution(convolution(latents, self.weights, "post_quant_conv"), self.weights, "decoder.conv_in")
        x = self.middle(x, "decoder")
        for level in range(len(self.widths) - 1, -1, -1):
            x = self.level(x, self.up(level), 3)
            if level:
                x = convolution(F.interpolate(x, scale_factor=2.0), self.weights, f"{self.up(level)}.upsample.conv")
        x = F.silu(group_norm(x, self.weights, "decoder.norm_out"))
        return convolution(x, self.weights, "decoder.conv_out")


@pytest.mark.parametrize("architecture", ["mar-kl16", "llamagen-vq16"])
def test_published_checkpoints_become_the_same_network(tmp_path: Path, architecture: str) -> None:
    llamagen = architecture == "llamagen-vq16"
    theirs = LatentDiffusionAutoencoder(llamagen, (32, 64), channels=16 if llamagen else 4, embedded=8 if llamagen else 4)
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": theirs.weights}, path)
    channels, codes = (8, 32) if llamagen else (4, 0)
    config = PretrainedConfig(
        architecture=architecture, source=str(path), stride=2, num_channels=channels, num_codes=codes, resolution=16
    )
    ours = load_pretrained(config)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded = theirs.encode(pixels / 127.5 - 1.0).flatten(2).transpose(1, 2)
        mean, std = ours.moments(pixels)
        assert torch.allclose(mean, encoded[..., :channels], atol=1e-4)
        if llamagen:
            book = F.normalize(theirs.weights["quantize.embedding.weight"], dim=1)
            codes_theirs = (F.normalize(encoded, dim=2) @ book.T).argmax(2)  # on the sphere the nearest has the largest product
            assert torch.equal(ours.encode_codes(pixels), codes_theirs)
            latents = book[codes_theirs]
        else:
            assert torch.allclose(std, (0.5 * encoded[..., channels:]).exp(), rtol=1e-4)
            latents = mean
        decoded = theirs.decode(latents.transpose(1, 2).unflatten(2, (8, 8)))
        assert torch.allclose(ours.decode_raw(latents), decoded, atol=1e-4)
        assert float(decoded.std()) > 0.1


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("read", ["checkpoint", "inception"])
def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"model": Payload()}))
    config = PretrainedConfig(architecture="mar-kl16", source=str(path), stride=16, num_channels=16, resolution=16)
    load = {"inception": lambda: pretrained.inception(str(path), "cpu"), "checkpoint": lambda: load_pretrained(config)}[read]
    with pytest.raises(ValueError, match="not executed"):
        load()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["kl16.ckpt", "someone/autoencoder"])
def test_missing_autoencoders_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    kind = "mar-kl16" if name.endswith(".ckpt") else "AutoencoderKL"
    config = PretrainedConfig(architecture=kind, source=name, stride=16, num_channels=16, resolution=16)
    assert pretrained_hash(config) == ""
    with pytest.raises(ValueError, match=rf"{name}.*(put the mar-kl16 checkpoint there|--download)"):
        load_pretrained(config)


# -- conditions and judges


def test_captions_become_features_whose_padding_is_zero(folder: Path) -> None:
    encode = TextEncoder(TextEncoderConfig(source=str(folder / "t5"), num_tokens=5, feature_dim=16), "cpu")
    found = encode(["a red picture", "a blue picture", "red"])
    assert found.shape == (3, 5, 16)
    assert float((found[0] - found[1]).abs().max()) > 0.1
    assert float(found[2, 2:].abs().max()) == 0
    assert float(found[2, :2].abs().min()) > 0
    assert torch.allclose(encode(["red"]), found[2:], atol=1e-5)
    with pytest.raises(ValueError, match="has 16 channels"):
        TextEncoder(TextEncoderConfig(source=str(folder / "t5"), num_tokens=5, feature_dim=32), "cpu")


@pytest.mark.slow
def test_inception_twice_gives_equal_numbers(folder: Path) -> None:
    """The real network with seeded weights, by torch-fidelity's own path: one file gives the same features, score and name."""
    pixels = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, second = (pretrained.inception(str(folder / "inception.pth"), "cpu") for _ in range(2))
    features, logits = first.read(pixels)
    assert features.shape == (24, 2048)
    assert logits.shape == (24, 1008)
    assert features.std() > 0.1
    for ours, theirs in zip((features, logits), second.read(pixels), strict=True):
        assert np.array_equal(ours, theirs)
    assert first.name == second.name
    assert "299" in first.name


def test_missing_inception_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=rf"weights-inception-2015.*at {tmp_path}.*--download"):
        pretrained.inception("weights-inception-2015-12-05-6726825d.pth", "cpu")


def test_clip_and_dinov2_see_images_and_captions(folder: Path) -> None:
    names = sorted(small_sets.COLORS)
    pixels = torch.from_numpy(np.stack([decode_image(small_sets.encoded(small_sets.picture(c, 3)), 16) for c in names]))
    score = pretrained.ClipScore(str(folder / "clip"), "cpu")
    both = np.array([score(pixels, [f"a {color} picture"] * 3) for color in names])
    assert np.abs(both).max() <= 1
    assert np.ptp(both, axis=0).min() > 1e-3  # depends on the caption
    assert np.ptp(both, axis=1).min() > 1e-6  # and on the image
    dinov2 = pretrained.dinov2(str(folder / "dinov2"), "cpu")
    assert dinov2.features(pixels).shape == (3, 16)
    with pytest.raises(ValueError, match=r"open_clip:ARCHITECTURE:PRETRAINED|open-clip"):
        pretrained.ClipScore("open_clip:ViT", "cpu")


def test_an_image_experiment_survives_json(folder: Path) -> None:
    from dataclasses import asdict

    data = image_data("coco", folder, tokenizers={"grouped": TokenizerConfig(part="kl", group=2)})
    assert ImageData.from_dict(json.loads(json.dumps(asdict(data)))) == data
    dataset = TokenizedImages(data)
    assert dataset.space("grouped").channels == 16
    moved = TokenizedImages(image_data("coco", folder, path="/elsewhere"))
    assert moved.data_id == TokenizedImages(image_data("coco", folder)).data_id
    assert TokenizedImages(image_data("coco", folder, flip=False)).data_id != moved.data_id


def test_published_statistics_replace_the_reference(folder: Path, tmp_path: Path) -> None:
    """An .npz of the reference's own mean and covariance gives the same distance as the images."""
    published = tmp_path / "published.npz"

    def judge(statistics: Path | str) -> Judge:
        return open_judge(judged_images(folder, statistics), FEW_IMAGES, Results(tmp_path))

    plain = judge("")
    features = plain.reference.features
    np.savez(published, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    other = judge(published)
    found = features[:12] + 0.1
    distances = [frechet_distance(found, each.reference.gaussian) for each in (plain, other)]
    assert distances[0] == pytest.approx(distances[1])
    assert plain.protocol != other.protocol
    assert "published.npz" in other.reference.name


def test_what_cannot_be_judged_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    """A published reference that is missing or of other features, and an evaluation split that does not exist."""
    check_judge(judged_images(folder, ""))
    path = tmp_path / "published.npz"
    with pytest.raises(ValueError, match=r"published\.npz is missing"):
        check_judge(judged_images(folder, path))
    np.savez(path, mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(ValueError, match="of 64 features"):
        check_judge(judged_images(folder, path))
    np.savez(path, arr_0=np.zeros(3))
    with pytest.raises(ValueError, match="mu and sigma"):
        check_judge(judged_images(folder, path))
    with pytest.raises(ValueError, match="validation"):
        check_judge(judged_images(folder, "", evaluation_split="validation"))


def test_run_ids_change_with_the_weights_not_with_their_place(folder: Path, tmp_path: Path) -> None:
    import shutil

    first = TokenizedImages(image_data("imagefolder", folder)).tokenizer_hash("kl")
    shutil.copytree(folder / "vae", tmp_path / "vae")
    tiny = PretrainedConfig(architecture="AutoencoderKL", source=str(tmp_path / "vae"), stride=4, num_channels=4)
    assert TokenizedImages(image_data("imagefolder", folder, autoencoders={"kl": tiny})).tokenizer_hash("kl") == first
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert TokenizedImages(image_data("imagefolder", folder, autoencoders={"kl": tiny})).tokenizer_hash("kl") != first


def test_an_imagefolder_may_have_captions(folder: Path, tmp_path: Path) -> None:
    """metadata.jsonl beside the images: file_name and a caption."""
    images = tmp_path / "train"
    images.mkdir()
    lines = []
    for name, color, _, content in small_sets.samples(3):
        (images / name).write_bytes(content)
        lines.append(json.dumps({"file_name": name, "text": f"a {color} picture"}))
    (images / "metadata.jsonl").write_text("\n".join(lines))
    text = TextEncoderConfig(source=str(folder / "t5"), num_tokens=5, feature_dim=16)
    changes = {"path": str(tmp_path), "condition": "caption", "num_classes": 0, "text": text, "condition_column": "text"}
    data = image_data("imagefolder", folder, **changes)
    pixels, captions, skipped = ImageSet(data, "train").read(range(9))
    assert len(pixels) == 9
    assert not skipped
    assert sorted(set(captions)) == [f"a {color} picture" for color in sorted(small_sets.COLORS)]
    found = TokenizedImages(data).tokens_of(captions[:2])
    assert found.shape == (2, 5, 16)
