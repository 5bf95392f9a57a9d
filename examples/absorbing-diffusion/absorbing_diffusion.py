"""Discrete diffusion with an absorbing state, trained with its likelihood's weights.

Letters: B images, N tokens, V codes, D width, M condition tokens.

D3PM's absorbing process (Austin et al. 2021) in continuous time as in MDLM (Sahoo et al. 2024, equation 10): at time t each token
is masked independently with probability t, and the negative evidence lower bound is the cross-entropy of the masked tokens
weighted by 1 / t. It differs from MaskGIT in three ways: masks are independent, small t weigh more, and the sampler follows the
reverse process, in which a token once revealed stays and how many are revealed is random.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import BackboneConfig, linear, table
from bench.paradigm import Condition, ConditionSpace, Guidance, Paradigm, TokenSpace, check_sampling


class AbsorbingDiffusion(Paradigm):
    """Reads codes; any number of steps."""

    reads = "codes"
    loss_unit = "nats per token, upper bound"
    default_steps = 32

    def __init__(
        self, backbone: BackboneConfig, space: TokenSpace, conditions: ConditionSpace, *, least_time: float = 1e-2
    ) -> None:
        """least_time: lower end of the times drawn in training; it bounds the weights by its inverse."""
        super().__init__(backbone, space, conditions)
        if not 0 < least_time < 1:
            raise ValueError(f"least_time must be between 0 and 1, not {least_time}")
        self.least_time = least_time
        self.embed_tokens = nn.Embedding(space.vocabulary + 1, backbone.width)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.positions = table(space.num_tokens, backbone.width)
        self.head = linear(backbone.width, space.vocabulary, std=0.02)

    @property
    def mask_id(self) -> int:
        """The absorbing state."""
        return self.space.vocabulary

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """(B, N, V) for tokens (B, N) in which masked ones are mask_id; time enters through the masks alone."""
        prefix, vector = self.embed_condition(condition)
        sequence = torch.cat([prefix, self.embed_tokens(tokens) + self.positions], dim=1)
        return self.head(self.backbone(sequence, vector)[:, prefix.shape[1] :])

    def loss(self, tokens: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound per token (B,), at a time drawn for each image."""
        batch, length = tokens.shape
        t = self.least_time + (1 - self.least_time) * torch.rand(batch, 1, device=tokens.device)
        hidden = torch.rand(batch, length, device=tokens.device) < t
        # one token at least, so that every image has a loss
        first = torch.rand(batch, length, device=tokens.device).argsort(1) == 0
        hidden = hidden | (first & ~hidden.any(1, keepdim=True))
        logits = self.logits(torch.where(hidden, self.mask_id, tokens), condition).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        return (entropy * hidden / t).sum(1) / length, {}

    def negative_log_likelihood(self, tokens: Tensor, condition: Condition) -> Tensor:
        """The bound at all times: uniform t with weight 1 / t is a uniform number of hidden tokens k with weight N / k."""
        batch, length = tokens.shape
        num_hidden = (torch.rand(batch, 1, device=tokens.device) * length).floor().clamp(max=length - 1) + 1
        hidden = torch.rand(batch, length, device=tokens.device).argsort(1).argsort(1) < num_hidden
        logits = self.logits(torch.where(hidden, self.mask_id, tokens), condition).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        return (entropy * hidden).sum(1) * length / num_hidden[:, 0]

    def sample(
        self, condition: Condition, *, steps: int | None, guidance: float, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """temperature divides the logits."""
        steps = self.default_steps if steps is None else steps
        check_sampling(steps, temperature)
        guide, device = Guidance(condition, guidance), self.device
        shape = (len(condition), self.space.num_tokens)
        tokens = torch.full(shape, self.mask_id, device=device)
        for now, then in itertools.pairwise([1 - k / steps for k in range(steps + 1)]):
            logits = guide.mix(self.logits(guide.double(tokens), guide.condition).float()) / temperature
            uniform = torch.rand(logits.shape, generator=generator, device=device).clamp(1e-20, 1.0)
            drawn = (logits - torch.log(-torch.log(uniform))).argmax(-1)
            revealed = torch.rand(shape, generator=generator, device=device) < (now - then) / now
            tokens = torch.where((tokens == self.mask_id) & revealed, drawn, tokens)
        return tokens
