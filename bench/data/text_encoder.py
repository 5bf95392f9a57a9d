"""Frozen text encoders of transformers: captions to condition features, once per image.

Letters: B captions, M condition tokens, F feature channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.config.data import TextEncoderConfig
from bench.hub import LocalFiles


class TextEncoder:
    """T5's encoder or CLIP's text tower: the last hidden states of a caption."""

    def __init__(self, config: TextEncoderConfig, device: str) -> None:
        """Reads the network from this machine (or the hub, where downloads are allowed).

        Raises:
            ValueError: when it is not there, is of another kind, or has another width than the experiment says.
        """
        # imported late: takes seconds, and only captioned images need it
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel

        self.config = config
        with LocalFiles("the text encoder", config.source):
            kind = AutoConfig.from_pretrained(config.source).model_type
            classes: dict[str, Any] = {"t5": T5EncoderModel, "clip": CLIPTextModel, "clip_text_model": CLIPTextModel}
            if kind not in classes:
                raise ValueError(f"text encoder {config.source} is a {kind!r}; T5 and CLIP are known")
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.source)
            model = classes[kind].from_pretrained(config.source, use_safetensors=True)
        self.model: Any = model.eval().requires_grad_(False).to(device)
        width = getattr(model.config, "d_model", None) or model.config.hidden_size
        if width != config.feature_dim:
            raise ValueError(f"text encoder {config.source} has {width} channels, the experiment says {config.feature_dim}")

    @torch.inference_mode()
    def __call__(self, captions: list[str]) -> Tensor:
        """Features (B, M, F) float32; those of padding are zero."""
        found = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=self.config.num_tokens, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).last_hidden_state
        return hidden.float() * found["attention_mask"][..., None]
