"""Small real data sets and seeded networks, written as a user would have them on disk."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 16
COLORS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 20)}


def picture(color: str, number: int, mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A colored ground with a darker square whose place depends on the number."""
    pixels = np.full((size[1], size[0], 3), COLORS[color], np.uint8)
    place = 2 + number % 8
    pixels[place : place + 5, place : place + 5] //= 3
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def samples(num_each: int) -> Iterator[tuple[str, str, int, bytes]]:
    """Name, color, class and file of each image: JPEG and PNG in turn, and the odd cases that every scraped set has."""
    modes = {0: ("L", "JPEG"), 1: ("CMYK", "JPEG"), 2: ("RGBA", "PNG"), 3: ("P", "PNG")}
    for label, color in enumerate(sorted(COLORS)):
        for number in range(num_each):
            mode, kind = modes.get(number, ("RGB", "JPEG" if number % 2 else "PNG"))
            size = (9, 7) if number == 4 else (24, 20)  # one is smaller than the resolution
            yield (
                f"{color}-{number:03d}.{'jpg' if kind == 'JPEG' else 'png'}",
                color,
                label,
                encoded(picture(color, number, mode, size), kind),
            )


BROKEN = ("broken.jpg", encoded(picture("red", 7), "JPEG")[:200])


def write_imagefolder(root: Path, num_each: int) -> Path:
    for name, color, _, content in samples(num_each):
        folder = root / "train" / color
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (root / "train" / "red" / BROKEN[0]).write_bytes(BROKEN[1])
    return root


def write_webdataset(root: Path, num_each: int) -> Path:
    """Two shards of .jpg or .png, .txt."""
    root.mkdir(parents=True)
    found = list(samples(num_each))
    for shard in range(2):
        with tarfile.open(root / f"{shard:05d}.tar", "w") as tar:
            for number, (_, color, _, content) in enumerate(found[shard::2]):
                image = Image.open(io.BytesIO(content)).convert("RGB")
                parts = {"jpg": encoded(image, "JPEG"), "txt": f"a {color} picture".encode()}
                if shard == 1 and number == 0:
                    parts["jpg"] = BROKEN[1]
                for ending, data in parts.items():
                    entry = tarfile.TarInfo(f"{shard:02d}{number:04d}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return root


def write_parquet(root: Path, num_each: int) -> Path:
    """Raw bytes and a class name as text."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    root.mkdir(parents=True)
    found = [(content, color) for _, color, _, content in samples(num_each)] + [(BROKEN[1], "red")]
    table = pa.table({"picture": pa.array([c for c, _ in found], pa.binary()), "kind": [color for _, color in found]})
    parquet.write_table(table, root / "part-0.parquet")
    return root


def write_coco(root: Path, num_each: int) -> Path:
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        images, notes = [], []
        for number, (name, color, _, content) in enumerate(samples(num_each)):
            (root / split / name).write_bytes(content)
            images.append({"id": number, "file_name": name})
            notes += [{"id": 10 * number + k, "image_id": number, "caption": f"{w} {color} picture"} for k, w in enumerate("ab")]
        if split == "train2017":
            (root / split / BROKEN[0]).write_bytes(BROKEN[1])
            images.append({"id": -1, "file_name": BROKEN[0]})
            notes.append({"id": 99999, "image_id": -1, "caption": "a red picture"})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return root


def save_autoencoder(folder: Path) -> Path:
    """A KL autoencoder of stride 4 with 4 channels, as `save_pretrained` writes it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    ).save_pretrained(folder)
    return folder


def word_tokenizer(folder: Path, end: str) -> None:
    """A tokenizer of a few words that ends each text with a marker."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", end, "<unk>", "a", "b", "picture", "photo", "of", *sorted(COLORS)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token=end, unk_token="<unk>").save_pretrained(
        folder
    )


def save_t5(folder: Path) -> Path:
    """T5's encoder with 16 channels."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).save_pretrained(folder)
    word_tokenizer(folder, "</s>")
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP of 32-pixel images."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"max_position_embeddings": 12, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    word_tokenizer(folder, "</s>")
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2 of 16 channels with 56-pixel patches."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224, "patch_size": 56}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def save_inception(path: Path) -> Path:
    """Inception-v3 with seeded random weights in the form that torch-fidelity reads; its normalizations are measured on noise, so
    that activations neither vanish nor explode."""
    import torch_fidelity.feature_extractor_inceptionv3 as inception

    torch.manual_seed(0)
    network = inception.FeatureExtractorInceptionV3.__new__(inception.FeatureExtractorInceptionV3)
    original = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_, **__: {}
    load = inception.FeatureExtractorInceptionV3.load_state_dict
    inception.FeatureExtractorInceptionV3.load_state_dict = lambda self, *_, **__: None
    try:
        network.__init__("inception-v3-compat", ["2048", "logits_unbiased"])
    finally:
        inception.load_state_dict_from_url = original
        inception.FeatureExtractorInceptionV3.load_state_dict = load
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        network(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    torch.save(network.eval().state_dict(), path)
    return path
