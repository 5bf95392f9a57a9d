"""Next-token prediction with cross-entropy: raster order, causal attention, key-value cache.

Letters: B images, N tokens, V codes, D width, M condition tokens.

The condition's prefix plays the part of the start token: the output at its last position predicts token 0 (LlamaGen, Sun et
al. 2024). The last token is never an input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import BackboneConfig, KeyValueCache, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.sampling import draw


class NextToken(Paradigm):
    """One token at a time."""

    reads = "codes"
    loss_unit = "nats per token"
    default_steps = None

    def __init__(self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace) -> None:
        super().__init__(backbone, space, conditions)
        self.embed_tokens = nn.Embedding(space.vocabulary, backbone.width)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.positions = table(space.num_tokens - 1, backbone.width)
        self.head = linear(backbone.width, space.vocabulary, std=0.02)

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Logits (B, N, V); row i depends on the condition and on tokens before i (B, N) only."""
        prefix, vector = self.embed_condition(condition)
        inputs = self.embed_tokens(tokens[:, :-1]) + self.positions
        out = self.backbone(torch.cat([prefix, inputs], dim=1), vector, causal=True)
        return self.head(out[:, prefix.shape[1] - 1 :])

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.logits(tokens, condition).float()
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(1), {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """steps must be None or the number of tokens."""
        length = self.space.num_tokens
        if steps not in (None, length):
            raise ValueError(f"next-token sampling takes exactly {length} steps, one per token; leave steps empty")
        check_sampling(steps, temperature)
        guide = Guidance(condition, guidance)
        sequence, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, sequence.shape[1] + length - 1)
        tokens: list[Tensor] = []
        for index in range(length):
            out = self.backbone(sequence, vector, causal=True, cache=cache)[:, -1]
            tokens.append(draw(guide.mix(self.head(out).float()), temperature, generator))
            if index < length - 1:
                sequence = guide.double(self.embed_tokens(tokens[-1]) + self.positions[index])[:, None]
        return torch.stack(tokens, dim=1)
