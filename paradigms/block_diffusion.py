"""Block diffusion: blocks of tokens in raster order, absorbing diffusion inside each (BD3-LM, Arriola et al. 2025).

Letters: B images, N tokens, S tokens of a block, K = N / S blocks, M condition tokens, D width.

The bound is the sum over blocks of MDLM's, given the clean tokens of earlier blocks (Arriola et al. 2025, section 3.1). All
blocks train in one pass over two copies of the tokens, a noisy and a clean one, under a mask (section 3.2): next-token prediction
at S = 1, absorbing diffusion at S = N. Left out are the noise schedules that are fitted to each block size (section 5) and
sampling beyond the trained length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.backbone import BackboneConfig, table
from bench.key_value_cache import KeyValueCache
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling
from paradigms.embedding import token_embedding
from paradigms.heads import CrossEntropy
from paradigms.orders import linear_schedule, put, random_orders, take


class BlockDiffusion(Paradigm):
    """Reads codes; the numbers of steps are those of one block."""

    reads = "codes"
    loss_unit = "nats per token, upper bound"
    default_steps = 16

    def __init__(
        self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace, *, block: int | None = None
    ) -> None:
        """block: S, tokens of a block, which divides N; None takes a row of the grid (4, 8 and 16 in the paper)."""
        super().__init__(backbone, space, conditions)
        block = space.grid if block is None else block
        if block < 1 or space.num_tokens % block:
            raise ValueError(f"block must divide the {space.num_tokens} tokens of an image, not {block}")
        self.block = block
        self.embed_tokens = token_embedding(space, backbone.width, num_extra=1)
        self.positions = table(space.num_tokens, backbone.width)
        self.head = CrossEntropy(space, backbone.width)

    @property
    def mask_id(self) -> int:
        """The embedding's extra entry, which stands for a hidden token."""
        return self.space.vocabulary

    def mask(self, num_condition: int, device: torch.device) -> Tensor:
        """Who sees whom among condition, noisy tokens and the clean tokens of all blocks but the last, (T, T) bool with
        T = M + 2 N - S.

        A position sees the clean ones of earlier blocks, and its own block in its own copy. The condition is a clean block
        before all others.
        """
        blocks = torch.arange(self.space.num_tokens // self.block, device=device)[:, None].expand(-1, self.block).flatten()
        before = torch.full((num_condition,), -1, device=device)
        number = torch.cat([before, blocks, blocks[: -self.block]])
        clean = torch.ones_like(number, dtype=torch.bool)
        clean[num_condition : num_condition + self.space.num_tokens] = False
        earlier = clean & (number < number[:, None])
        return earlier | ((number == number[:, None]) & (clean == clean[:, None]))

    def contexts(self, noisy: Tensor, clean: Tensor, condition: Condition) -> Tensor:
        """The backbone's output (B, N, D) at noisy tokens (B, N), in which hidden ones are mask_id, given clean tokens (B, N)."""
        prefix, vector = self.embed_condition(condition)
        start, length = prefix.shape[1], self.space.num_tokens
        copies = [self.embed_tokens(noisy) + self.positions]
        copies.append((self.embed_tokens(clean) + self.positions)[:, : -self.block])  # nobody sees the last clean block
        out = self.backbone(torch.cat([prefix, *copies], dim=1), vector, mask=self.mask(start, noisy.device))
        return out[:, start : start + length]

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The bound in nats per image: a uniform number k of hidden tokens in each block, weighted by S / k; exact at S = 1.

        The numbers of an image's blocks are spread evenly, each still uniform, as the MDLM code spreads times over a batch.
        """
        batch, device = len(tokens), tokens.device
        num_blocks = self.space.num_tokens // self.block
        share = (torch.rand(batch, 1, device=device) + random_orders(batch, num_blocks, device) / num_blocks) % 1
        num_hidden = (share * self.block).floor().clamp(max=self.block - 1)[..., None] + 1  # (B, K, 1)
        hidden = torch.rand(batch, num_blocks, self.block, device=device).argsort(2).argsort(2) < num_hidden
        out = self.contexts(torch.where(hidden.flatten(1), self.mask_id, tokens), tokens, condition)
        nats = self.head.negative_log_likelihood(out.flatten(0, 1), tokens.flatten()).view(hidden.shape)
        return (nats * hidden * self.block / num_hidden).sum((1, 2))

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        return self.negative_log_likelihood(tokens, condition) / self.space.num_tokens, {}

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Block by block over a cache of clean blocks, each block in random order.

        steps: of one block, 1 to S; with S steps one token at a time is revealed, which is the first-hitting sampler
            (Zheng et al. 2024) that the paper uses.
        temperature: of the softmax from which codes are drawn.
        """
        steps = min(self.default_steps, self.block) if steps is None else steps
        check_sampling(steps, temperature, self.block)
        guide, length = Guidance(condition, guidance), self.space.num_tokens
        prefix, vector = self.embed_condition(guide.condition)
        cache = KeyValueCache(self.backbone.config.depth, prefix.shape[1] + length)
        sequence, blocks = prefix, []  # what is clean and not in the cache yet, and what is drawn
        for start in range(0, length, self.block):
            self.backbone(sequence, vector, cache=cache)
            num_clean, revealed = cache.length, 0
            positions = self.positions[start : start + self.block]
            tokens = torch.full((len(condition), self.block), self.mask_id, device=self.device)
            order = random_orders(len(condition), self.block, self.device, generator)
            for remaining in linear_schedule(self.block, steps):
                out = self.backbone(self.embed_tokens(guide.double(tokens)) + positions, vector, cache=cache)
                cache.length = num_clean  # what is noisy is not kept
                drawn = self.head.draw(guide.mix(self.head.logits(out).float()), temperature, generator)
                now = order[:, revealed : self.block - remaining]
                tokens, revealed = put(tokens, now, take(drawn, now)), self.block - remaining
            sequence = self.embed_tokens(guide.double(tokens)) + positions
            blocks.append(tokens)
        return torch.cat(blocks, dim=1)
