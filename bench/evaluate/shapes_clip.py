"""The suite's small CLIP: feature extractor for FID and the CLIP score of the procedural worlds.

Letters: B images, F projected features, H resolution, W words.

A `transformers.CLIPModel` of about 0.4 M parameters, trained by `paradigm-bench prepare` on the suite's own renders. Captions
name relations in one canonical form only ("above", "left of"): with both phrasings a contrastive model of this size stays
blind to relations. Its score is a second opinion; the verifier is the measure of prompt following.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from bench.data.shapes_world import RELATIONS, ShapesWorld
from bench.flops.sampling import count_call

PIXEL_MEAN, PIXEL_STD = 0.7, 0.3
"""Of the renders, all channels alike (measured on shapes32)."""
FEATURE_DIM = 64


class ShapesCLIP(nn.Module):
    """CLIP over uint8 images and world caption tokens."""

    def __init__(
        self, resolution: int, vocabulary: tuple[str, ...], num_words: int = 7, hidden: int = 256, patch: int | None = None
    ) -> None:
        super().__init__()
        patch = patch or resolution // 8
        self.vocabulary, self.sizes = vocabulary, (resolution, vocabulary, num_words, hidden, patch)
        text = {
            "vocab_size": len(vocabulary) + 2,
            "hidden_size": 64,
            "intermediate_size": hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": num_words + 2,
            "pad_token_id": 0,
            "bos_token_id": len(vocabulary),
            "eos_token_id": len(vocabulary) + 1,
        }
        vision = {
            "hidden_size": FEATURE_DIM,
            "intermediate_size": hidden,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": resolution,
            "patch_size": patch,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=FEATURE_DIM)
        self.model = CLIPModel(config)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 3, H, H) to pooled features (B, F), used for FID, and unit-norm embeddings (B, F)."""
        pixels = (images.float() / 255.0 - PIXEL_MEAN) / PIXEL_STD
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return pooled, nn.functional.normalize(self.model.visual_projection(pooled), dim=1)

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """Canonical caption tokens (B, W) to unit-norm embeddings (B, F)."""
        start, end = len(self.vocabulary), len(self.vocabulary) + 1
        length = (tokens != 0).sum(1, keepdim=True)
        ids = nn.functional.pad(tokens, (1, 1))
        ids[:, 0] = start
        ids.scatter_(1, length + 1, end)  # the end token is the largest id, where CLIP pools
        pooled = self.model.text_model(input_ids=ids).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled), dim=1)

    def flops(self) -> tuple[int, int]:
        """FLOPs of embedding one image and of embedding one caption, by torch's counter on meta tensors."""
        resolution, _, num_words, *_ = self.sizes
        there = deepcopy(self).to("meta")
        image = torch.empty(1, 3, resolution, resolution, dtype=torch.uint8, device="meta")
        caption = torch.zeros(1, num_words, dtype=torch.long, device="meta")
        return count_call(lambda: there.encode_images(image)), count_call(lambda: there.encode_captions(caption))

    def save(self, path: Path) -> None:
        """Write weights with what rebuilds the model in the file's metadata (safetensors)."""
        weights = {k: v.contiguous() for k, v in self.state_dict().items()}
        save_file(weights, path, metadata={"config": json.dumps(self.sizes)})

    @classmethod
    def load(cls, path: Path) -> ShapesCLIP:
        """Read a file written by `save`; frozen and in eval mode."""
        with safe_open(path, framework="pt") as file:
            resolution, vocabulary, *sizes = json.loads(file.metadata()["config"])
        model = cls(resolution, tuple(vocabulary), *sizes)
        model.load_state_dict(load_file(path))
        return model.eval().requires_grad_(False)


def canonical_tokens(world: ShapesWorld, tokens: Tensor) -> Tensor:
    """Rewrite "B below A" as "A above B" and "B right of A" as "A left of B", token by token (B, W)."""
    out = tokens.clone()
    words = [r.removesuffix(" of") for r in RELATIONS]
    for swapped, canonical in ((words[1], words[0]), (words[3], words[2])):
        if swapped in world.vocabulary:
            rows = tokens[:, 3] == world.vocabulary.index(swapped)
            out[rows] = torch.cat([tokens[rows, 4:], tokens[rows, 3:4], tokens[rows, :3]], dim=1)
            out[rows, 3] = world.vocabulary.index(canonical)
    return out
