"""What every image autoencoder offers, the suite's own and pretrained ones alike.

Letters: B images, N tokens, C latent channels, H resolution.

Pixels enter and leave as (B, 3, H, H) uint8. Latents are whitened per channel by statistics measured on the data, codes are
integers; both are flat in raster order.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bench.config.tokenizers import ImageAutoencoderConfig
from bench.flops.sampling import count_call


class ImageAutoencoder(nn.Module, ABC):
    """An encoder, a bottleneck and a decoder over one grid of latents."""

    shift: Tensor
    scale: Tensor
    config: ImageAutoencoderConfig

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("shift", torch.zeros(config.num_channels))
        self.register_buffer("scale", torch.ones(config.num_channels))

    @property
    def discrete(self) -> bool:
        """Whether there are codes."""
        return self.config.num_codes > 0

    @abstractmethod
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 3, H, H) to mean and standard deviation of the latents, (B, N, C) each, before whitening; a discrete
        autoencoder's latents before quantization have no spread."""

    @abstractmethod
    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, N, C) to the nearest quantized ones (B, N, C) and their codes (B, N) int64 (discrete)."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (B, N) to quantized latents (B, N, C) (discrete)."""

    @abstractmethod
    def decode_raw(self, latents: Tensor) -> Tensor:
        """Latents (B, N, C), unwhitened and quantized, to pixels (B, 3, H, H) float32, about -1 to 1."""

    def encode_moments(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, H) to whitened mean and standard deviation (B, N, 2C) float32."""
        mean, std = self.moments(images)
        return torch.cat([(mean - self.shift) / self.scale, std / self.scale], dim=2)

    def encode_codes(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, H) to codes (B, N) int64 (discrete)."""
        return self.quantize(self.moments(images)[0])[1]

    def decode(self, tokens: Tensor) -> Tensor:
        """Whitened latents (B, N, C) or codes (B, N) to uint8 images (B, 3, H, H)."""
        if tokens.is_floating_point():
            latents = tokens * self.scale + self.shift
            latents = self.quantize(latents)[0] if self.discrete else latents
        else:
            latents = self.lookup(tokens)
        return ((self.decode_raw(latents) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def decoder_flops(self) -> int:
        """FLOPs of decoding one image, counted on a copy without memory."""
        model = copy.deepcopy(self).to("meta")
        return count_call(lambda: model.decode_raw(torch.empty(1, self.config.grid**2, self.config.num_channels, device="meta")))

    def encoder_flops(self) -> int:
        """FLOPs of encoding one image, counted likewise."""
        model, side = copy.deepcopy(self).to("meta"), self.config.resolution
        return count_call(lambda: model.moments(torch.empty(1, 3, side, side, dtype=torch.uint8, device="meta")))

    @torch.inference_mode()
    def measure_whitening(self, batches: Iterable[Tensor]) -> None:
        """Set shift and scale to mean and standard deviation of the latents (posterior noise included), per channel, over batches
        of uint8 images."""
        count, total, squares = 0, torch.zeros(1), torch.zeros(1)
        for images in batches:
            mean, std = (part.double().cpu().flatten(0, 1) for part in self.moments(images))
            count += len(mean)
            total = total + mean.sum(0)
            squares = squares + (mean.square() + std.square()).sum(0)
        average = total / count
        self.shift.copy_(average)
        self.scale.copy_((squares / count - average.square()).sqrt())
