"""Autoencoders with published weights: four classes of diffusers, and the checkpoints of MAR (KL-16) and LlamaGen (VQ-16).

Letters: B images, N tokens, C latent channels, h, w latent grid.

The two checkpoints hold the autoencoder of latent diffusion (Rombach et al. 2022) under names of their own; they are renamed to
those of diffusers, whose classes then run all six.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.tokenizers import PretrainedConfig
from bench.files import read_weights
from bench.flops.sampling import count_call
from bench.hub import LocalFiles, weights_hash
from bench.tokenizers.base import ImageAutoencoder

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
CONSISTENCY_STEPS = 2
"""Steps of the consistency decoder, its own default."""
CHECKPOINTS = ("mar-kl16", "llamagen-vq16")
LOOKUP_ROWS = 4096
"""Latents compared with the codebook at once: 16,384 codes x 4,096 distances are 256 MiB."""


class PretrainedAutoencoder(ImageAutoencoder):
    """A frozen diffusers model behind the suite's interface."""

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig, model: torch.nn.Module) -> None:
        super().__init__(config)
        self.model: Any = model
        self.normalized = config.architecture == "llamagen-vq16"
        """Whether latents and codes are compared on the unit sphere (Sun et al. 2024, section 3.1)."""

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.model.encode(images.float() / 127.5 - 1.0)
        if hasattr(encoded, "latent_dist"):
            mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
        else:
            mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent
            std = torch.zeros_like(mean)
        return mean.flatten(2).transpose(1, 2), std.flatten(2).transpose(1, 2)

    @property
    def _codebook(self) -> Tensor:
        weight: Tensor = self.model.quantize.embedding.weight
        return F.normalize(weight, dim=1) if self.normalized else weight

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rows = latents.flatten(0, 1)
        rows = F.normalize(rows, dim=1) if self.normalized else rows
        codes = torch.cat([torch.cdist(part, self._codebook).argmin(1) for part in rows.split(LOOKUP_ROWS)])
        codes = codes.view(latents.shape[:2])
        return self.lookup(codes), codes

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self._codebook)

    def decode_raw(self, latents: Tensor) -> Tensor:
        side = self.config.grid
        grid = latents.transpose(1, 2).unflatten(2, (side, side))
        if self.discrete:
            return self.model.decode(grid, force_not_quantize=True).sample
        if self.config.architecture == "ConsistencyDecoderVAE":  # its decoder draws noise: the same for every image and call
            generator = torch.Generator().manual_seed(0)
            return self.model.decode(grid, generator=generator, num_inference_steps=CONSISTENCY_STEPS).sample
        return self.model.decode(grid).sample

    def decoder_flops(self) -> int:
        if self.config.architecture != "ConsistencyDecoderVAE":
            return super().decoder_flops()
        network = copy.deepcopy(self.model.decoder_unet).to("meta")  # its scheduler reads values, which meta tensors do not have
        side, channels = self.config.resolution, network.config.in_channels
        pixels = torch.empty(1, channels, side, side, device="meta")
        return CONSISTENCY_STEPS * count_call(lambda: network(pixels, torch.zeros(1, dtype=torch.int64, device="meta")))


def load_pretrained(config: PretrainedConfig) -> PretrainedAutoencoder:
    """Read an autoencoder from this machine (or the hub, where downloads are allowed), frozen and checked against its config.

    Raises:
        ValueError: when it is not there, has another hash than pinned, or other sizes than the config states.
    """
    if config.architecture in CHECKPOINTS:
        path = Path(config.source)
        if not path.is_file():
            raise ValueError(f"{path} is missing: put the {config.architecture} checkpoint there, or set `source` to it")
        _check_pin(config)
        model = _from_checkpoint(path)
    else:
        import diffusers  # imported late: only pretrained autoencoders need it

        with LocalFiles(f"the {config.architecture}", config.source):
            model = getattr(diffusers, config.architecture).from_pretrained(
                config.source, use_safetensors=True, low_cpu_mem_usage=False
            )
        _check_pin(config)
    model.eval().requires_grad_(False)
    wrapped = PretrainedAutoencoder(config, model).eval()
    with torch.inference_mode():
        blank = torch.zeros(1, 3, config.resolution, config.resolution, dtype=torch.uint8)
        found = tuple(wrapped.moments(blank)[0].shape)
    stated = (1, config.grid**2, config.num_channels)
    codes = len(wrapped.model.quantize.embedding.weight) if config.num_codes else 0
    if found != stated or codes != config.num_codes:
        raise ValueError(
            f"{config.source} has latents {found[1]} x {found[2]} and {codes} codes at {config.resolution} pixels, but the "
            f"experiment says {stated[1]} x {stated[2]} and {config.num_codes}; correct stride, num_channels or num_codes"
        )
    return wrapped


def pretrained_hash(config: PretrainedConfig) -> str:
    """Short hash of the weights; empty when they are not on this machine."""
    return weights_hash(config.source, DIFFUSERS_FILE)


def _check_pin(config: PretrainedConfig) -> None:
    found = weights_hash(config.source, DIFFUSERS_FILE, digits=max(12, len(config.sha256)))
    if not found.startswith(config.sha256[: len(found)]):
        raise ValueError(f"{config.source} has SHA-256 {found}..., not the pinned {config.sha256}; fetch the right file")


def _from_checkpoint(path: Path) -> torch.nn.Module:
    """An LDM-style checkpoint as a diffusers model; sizes are read off the weights."""
    from diffusers import AutoencoderKL, VQModel  # imported late: only pretrained autoencoders need it

    if path.suffix == ".safetensors":
        weights: dict[str, Any] = read_weights(path)
    else:
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{path} is not a checkpoint of plain tensors ({type(error).__name__}); it was not executed. Fetch it again"
            ) from error
    for wrapper in ("model", "state_dict"):
        weights = weights.get(wrapper, weights)
    renamed = _diffusers_names({name: value for name, value in weights.items() if isinstance(value, Tensor)})
    widths = [
        renamed[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"].shape[0]
        for level in range(1 + max(int(name.split(".")[2]) for name in renamed if name.startswith("encoder.down_blocks.")))
    ]
    down, up = (
        [f"{blocks}.{level}.attentions.0.to_q.weight" in renamed for level in range(len(widths))]
        for blocks in ("encoder.down_blocks", "decoder.up_blocks")
    )
    sizes: dict[str, Any] = {
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in down),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in up),
        "layers_per_block": sum(bool(re.match(r"encoder\.down_blocks\.0\.resnets\.\d+\.conv1\.weight", n)) for n in renamed),
        "latent_channels": renamed["post_quant_conv.weight"].shape[0],
    }
    codebook = renamed.get("quantize.embedding.weight")
    model: Any = (
        AutoencoderKL(**sizes)
        if codebook is None
        else VQModel(**sizes, vq_embed_dim=codebook.shape[1], num_vq_embeddings=len(codebook))
    )
    model.load_state_dict({name: renamed[name].view(value.shape) for name, value in model.state_dict().items()})
    return model


def _diffusers_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """State-dict names of MAR's or LlamaGen's autoencoder to those of diffusers; 1x1 convolutions keep their shape."""
    levels = 1 + max((int(m[1]) for n in weights if (m := re.match(r"decoder\.up\.(\d+)\.", n))), default=0)
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"coder\.norm_out\.", "coder.conv_norm_out."),
        (r"encoder\.(?:down|conv_blocks)\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"decoder\.up\.(\d+)\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}."),  # MAR numbers them from the output
        (r"decoder\.conv_blocks\.(\d+)\.", r"decoder.up_blocks.\1."),
        (r"\.(?:block|res)\.(\d+)\.", r".resnets.\1."),
        (r"\.attn\.(\d+)\.", r".attentions.\1."),
        (r"\.mid\.(?:block_1|0)\.", ".mid_block.resnets.0."),
        (r"\.mid\.(?:block_2|2)\.", ".mid_block.resnets.1."),
        (r"\.mid\.(?:attn_1|1)\.", ".mid_block.attentions.0."),
        (r"\.(down|up)sample\.", r".\1samplers.0."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    ]
    out = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out
