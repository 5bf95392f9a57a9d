"""Pretrained networks that judge images: torch-fidelity's Inception-v3, DINOv2 and CLIP. Frozen, hashed, never fetched unasked.

Letters: B images, n images, H resolution, d feature channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.evaluate.fidelity import FeatureNetwork
from bench.files import file_hash
from bench.hub import LocalFiles, missing, weights_hash

INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
"""As torch-fidelity names it."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What DINOv2 was trained with (Oquab et al. 2023)."""
DINOV2_SIDE = 224
SAFETENSORS = "model.safetensors"


def hub_file(name: str) -> Path:
    """Where torch's hub cache keeps a file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def inception_file(name: str) -> Path:
    """The file of Inception's weights: a path, or a name in torch's hub cache.

    Raises:
        ValueError: when it is not there and downloads are forbidden.
    """
    given, cached = Path(name), hub_file(name)
    found = next((path for path in (given, cached) if path.is_file()), None)
    if found is None and os.environ.get("HF_HUB_OFFLINE") != "1":
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(cached), hash_prefix="6726825d", progress=False)
        found = cached
    if found is None:
        raise ValueError(
            f"the Inception weights are not on this machine; put {INCEPTION_URL} at {cached}, or add --download "
            "(DOWNLOAD=1 with make)"
        )
    return found


def inception(name: str, device: str) -> FeatureNetwork:
    """Inception-v3 as torch-fidelity computes it: 2,048 pooled features, images resized to 299 as TensorFlow 1 did.

    Raises:
        ValueError: when the weights are missing or no plain tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = inception_file(name)
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would execute what a pickle holds
    except Exception as error:
        reason = f"{path} is not a file of plain tensors ({type(error).__name__}); it was not executed. Fetch it again"
        raise ValueError(reason) from error
    layers = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(path))
    network = network.eval().requires_grad_(False).to(device)
    return FeatureNetwork(
        f"inception-v3-compat-{file_hash(path)}-resized-299-tf1",
        2048,
        lambda images: tuple(found.cpu() for found in network(images.to(device))),
        batch=64,
    )


def _resized(images: Tensor, side: int, mean: Any, std: Any, device: str) -> Tensor:
    """uint8 images (B, 3, H, H) to whitened pixels (B, 3, side, side), bicubic with antialiasing."""
    pixels = F.interpolate(images.to(device).float(), (side, side), mode="bicubic", antialias=True).clamp(0, 255) / 255
    return (pixels - torch.tensor(mean, device=device).view(3, 1, 1)) / torch.tensor(std, device=device).view(3, 1, 1)


def dinov2(source: str, device: str) -> FeatureNetwork:
    """DINOv2's class token for the Frechet distance of Stein et al. 2023; images resized to 224.

    Raises:
        ValueError: when the network is not on this machine.
    """
    from transformers import AutoModel

    with LocalFiles("the DINOv2 network", source):
        network: Any = AutoModel.from_pretrained(source, use_safetensors=True).eval().requires_grad_(False).to(device)

    def forward(images: Tensor) -> tuple[Tensor]:
        pixels = _resized(images, DINOV2_SIDE, IMAGENET_MEAN, IMAGENET_STD, device)
        return (network(pixel_values=pixels).last_hidden_state[:, 0].cpu(),)

    name = f"{Path(source).name}-{weights_hash(source, SAFETENSORS)}-resized-{DINOV2_SIDE}"
    return FeatureNetwork(name, network.config.hidden_size, forward, batch=64)


class ClipScore:
    """Cosine of image and caption embeddings, unscaled: papers print 100 times it, or 2.5 times (Hessel et al. 2021)."""

    def __init__(self, source: str, device: str) -> None:
        """source: a CLIP of transformers, or open_clip:ARCHITECTURE:PRETRAINED.

        Raises:
            ValueError: when the network is not on this machine.
        """
        self.name: str
        self._images: Callable[[Tensor], Tensor]
        self._captions: Callable[[list[str]], Tensor]
        if source.startswith("open_clip:"):
            self._open(source, device)
            return
        from transformers import AutoTokenizer, CLIPModel

        with LocalFiles("the CLIP network", source):
            network: Any = CLIPModel.from_pretrained(source, use_safetensors=True).eval().requires_grad_(False).to(device)
            tokenizer: Any = AutoTokenizer.from_pretrained(source)
        side = network.config.vision_config.image_size
        longest = network.config.text_config.max_position_embeddings
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # Radford et al. 2021

        def images(part: Tensor) -> Tensor:
            pooled = network.vision_model(pixel_values=_resized(part, side, mean, std, device)).pooler_output
            return network.visual_projection(pooled)

        def captions(texts: list[str]) -> Tensor:
            found = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
            pooled = network.text_model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).pooler_output
            return network.text_projection(pooled)

        self._images, self._captions = images, captions
        self.name = f"{source}@{weights_hash(source, SAFETENSORS)}, resized to {side}"

    def _open(self, source: str, device: str) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise ValueError(f"{source} needs the extra: pip install 'paradigm-bench[open-clip]'") from error
        parts = source.split(":")
        if len(parts) != 3:
            example = "open_clip:ViT-H-14:laion2b_s32b_b79k"
            raise ValueError(f"clip {source!r} must read open_clip:ARCHITECTURE:PRETRAINED, such as {example}")
        try:
            network, _, _ = open_clip.create_model_and_transforms(parts[1], pretrained=parts[2], device=device)
        except RuntimeError as error:  # also what it raises for weights that cannot be fetched
            raise ValueError(f"{missing('the CLIP network', source)} ({' '.join(str(error).split())[:120]})") from error
        network.eval().requires_grad_(False)
        tokenizer, side = open_clip.get_tokenizer(parts[1]), network.visual.image_size[0]
        mean, std = network.visual.image_mean, network.visual.image_std
        self._images = lambda part: network.encode_image(_resized(part, side, mean, std, device))
        self._captions = lambda texts: network.encode_text(tokenizer(texts).to(device))
        self.name = f"{source}, resized to {side}"

    @torch.inference_mode()
    def __call__(self, images: Tensor, captions: list[str], batch: int = 64) -> np.ndarray:
        """Cosines (n,) of uint8 images (n, 3, H, H) and their captions."""
        scores = []
        for start in range(0, len(images), batch):
            seen = F.normalize(self._images(images[start : start + batch]).float(), dim=1)
            read = F.normalize(self._captions(captions[start : start + batch]).float(), dim=1)
            scores.append((seen * read).sum(1).double().cpu())
        return torch.cat(scores).numpy()
