"""CC12M captions at 256x256: the comparison of Kilian et al. 2024 on public data, with a frozen T5 and CLIP as judge.

Expects WebDataset shards with .jpg and .txt (pixparse/cc12m-wds): `--data 'cc12m/*.tar'`, or `--data` their folder. The last
percent of the rows gives evaluation captions and reference images. Sizes, rates and autoencoders are those of `imagenet256.py`.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import JudgeConfig, TextEncoderConfig

IMAGENET = runpy.run_path(str(Path(__file__).with_name("imagenet256.py")))
DATA = replace(
    IMAGENET["DATA"],
    name="cc12m",
    source="webdataset",
    split="train[:99%]",
    evaluation_split="train[99%:]",
    image_column="jpg",
    condition_column="txt",
    condition="caption",
    num_classes=0,
    text=TextEncoderConfig(source="google-t5/t5-base", num_tokens=32, feature_dim=768),
    flip=False,
    max_corrupt=0.01,
    judge=JudgeConfig(features="inception", clip="openai/clip-vit-base-patch32"),
)
"""Captions name sides, so nothing is mirrored. Of images that were scraped, one in a hundred may be broken."""

EXPERIMENT = replace(
    IMAGENET["EXPERIMENT"],
    name="cc12m",
    data=DATA,
    recipe=replace(IMAGENET["RECIPE"], num_training_images=10_000_000),
)
