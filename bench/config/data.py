"""A data set of images, its text encoder and the networks that judge, as an experiment states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.config.tokenizers import AutoencoderConfig, PixelConfig, PretrainedConfig, TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A frozen text encoder of transformers (T5 or CLIP) that turns captions into condition features once."""

    source: str
    """Name on the Hugging Face hub, or a folder."""
    num_tokens: int
    """Captions are cut or padded to this many tokens; features of padding are zero."""
    feature_dim: int


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The networks that judge generated images."""

    features: Literal["inception", "classifier"] = "inception"
    """Whose features FID, KID, precision, recall, density and coverage compare: torch-fidelity's Inception-v3, or the suite's own
    classifier of the data set's classes (`paradigm-bench prepare`), which needs no download and compares within one data set."""
    inception: str = "weights-inception-2015-12-05-6726825d.pth"
    """The file of the Inception weights: a path, or its name in torch's hub cache."""
    dinov2: str = ""
    """A DINOv2 of transformers for a second Frechet distance, such as facebook/dinov2-large; empty leaves it out."""
    clip: str = ""
    """A CLIP of transformers, or `open_clip:ARCHITECTURE:PRETRAINED` (extra open-clip), for the score of image and caption."""
    clip_prompt: str = "a photo of a {}"
    """How a class is put to CLIP; captions are taken as they are."""
    reference_statistics: str = ""
    """An .npz with mu and sigma of the reference (the ADM evaluator's format) that FID uses instead of `num_reference` images."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set of images with classes or captions, and the autoencoders that turn them into tokens.

    Its sizes are stated, so that planning needs no data; they are checked when the data is read.
    """

    name: str
    source: Literal["huggingface", "imagefolder", "webdataset", "parquet", "coco", "digits"]
    path: str = ""
    """A hub name, a folder, or a pattern of shard files; `--data` replaces it. No part of a run's identity."""
    split: str = "train"
    """A split, or a slice of one such as "train[:99%]" (not for coco and digits)."""
    evaluation_split: str = ""
    """Where evaluation captions and the reference images come from; empty takes the training split."""
    image_column: str = "image"
    condition: Literal["class", "caption"]
    condition_column: str = "label"
    num_classes: int = 0
    text: TextEncoderConfig | None = None
    resolution: int
    flip: bool = True
    """Whether each image is cached mirrored too, and a training step draws one of the two."""
    max_corrupt: float = 0.001
    """Largest share of images that may fail to decode; each is named."""
    autoencoders: Mapping[str, AutoencoderConfig | PretrainedConfig | PixelConfig]
    tokenizers: Mapping[str, TokenizerConfig] = field(default_factory=dict)
    """Which tokens of them the methods read; each autoencoder's own tokens always go by its name."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        if (self.condition == "class") != (self.num_classes > 0) or (self.condition == "caption") != (self.text is not None):
            raise ValueError(f"data {self.name}: give num_classes for condition='class', a text encoder for condition='caption'")
        if self.judge.features == "classifier" and self.condition != "class":
            raise ValueError(f"data {self.name}: only images with classes have a classifier; use features='inception'")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ImageData:
        """Inverse of dataclasses.asdict, also after a JSON round trip."""

        def autoencoder(part: dict[str, Any]) -> AutoencoderConfig | PretrainedConfig | PixelConfig:
            if "architecture" in part:
                return PretrainedConfig(**part)
            if "levels" not in part:
                return PixelConfig(**part)
            return AutoencoderConfig(**{**part, "levels": tuple(part["levels"]), "scales": tuple(part.get("scales", ()))})

        return cls(
            **{
                **content,
                "text": TextEncoderConfig(**content["text"]) if content["text"] else None,
                "autoencoders": {name: autoencoder(part) for name, part in content["autoencoders"].items()},
                "tokenizers": {name: TokenizerConfig(**part) for name, part in content["tokenizers"].items()},
                "judge": JudgeConfig(**content["judge"]),
            }
        )
