"""The procedural sprites: a world with a long tail, in which a caption can be checked exactly.

Letters: n images, P phrases of a caption, K object slots, W words per caption.

An image is a sheet of fields, some of which hold a sprite. A caption names every object ("two small red bako above a large blue
tumi"): up to P phrases of a number, a size, a color and a kind, joined by relations. The kinds follow Zipf's law, so that the
rare ones are learned later (Michaud et al. 2023; Hutter 2021). Caption and scene of image `index` of a split are functions of
integers and the index alone: the same bytes on every machine, without end. Nothing here reads files or keeps random state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np

from bench.data.shapes_world import ABSENT, hash_uniform
from bench.data.sprites_alphabet import NAMES
from bench.data.sprites_config import NUMBERS, SPRITES40, Captions, SpritesConfig

SpriteSplit = Literal["train", "validation", "test", "held_out", "uniform"]
SPRITE_SPLITS: tuple[SpriteSplit, ...] = ("train", "validation", "test", "held_out", "uniform")
NUM_DECILES = 10
TRAINING_SHARE, VALIDATION_SHARE = 0.85, 0.05
"""Of all captions, by a hash of their words; the rest is for tests."""
SPACING = 11
"""Shares no factor with the number of captions of one phrase and kind, 14, 28 or 42."""
BOTH_HELD_OUT_SHARE = 0.5
"""Of held-out captions with several phrases."""


@dataclass(frozen=True)
class SpritesWorld:
    """Captions and splits of one configuration; scenes are drawn in bench.data.sprites_render."""

    config: SpritesConfig = field(default_factory=lambda: SPRITES40)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides the rendered bytes and the captions."""
        return hashlib.sha256(repr(self.config).encode()).hexdigest()[:12]

    # -- the law

    @cached_property
    def frequencies(self) -> np.ndarray:
        """(S,) frequency of each kind in training captions, by rank: k^-exponent over their sum, in steps of 2^-32."""
        law = np.arange(1, self.config.num_kinds + 1, dtype=np.float64) ** -self.config.zipf_exponent
        counts = np.rint(law / law.sum() * 2.0**32)
        return counts / counts.sum()

    @cached_property
    def deciles(self) -> np.ndarray:
        """(S,) decile of each kind by rank: 0 for the most frequent tenth of the kinds, 9 for the rarest."""
        return np.arange(self.config.num_kinds) * NUM_DECILES // self.config.num_kinds

    def held_out_color(self, kind: np.ndarray) -> np.ndarray:
        """The one color in which training never shows each kind (n,), (n,)."""
        return kind % len(self.config.colors)

    def draw(self, split: SpriteSplit, indices: np.ndarray) -> Captions:
        """The captions (n,) of a split's image indices.

        A caption's words decide by a hash whether it is for training, validation or tests; what is drawn for another split is
        drawn again, so that each follows the same law. Held-out captions have one phrase, or two, of a pair of kind and color
        that no other caption has. Uniform ones are test captions whose kinds are all equally likely.
        """
        found = self._attempt(split, indices, 0)
        missing, attempt = np.flatnonzero(~self._admissible(split, found)), 0
        while len(missing):
            attempt += 1
            again = self._attempt(split, indices[missing], attempt)
            for f in fields(found):
                getattr(found, f.name)[missing] = getattr(again, f.name)
            missing = missing[~self._admissible(split, again)]
        return found

    def _attempt(self, split: SpriteSplit, indices: np.ndarray, attempt: int) -> Captions:
        c, n, most = self.config, len(indices), self.config.max_phrases
        draw = hash_uniform(self.stream(split, 0, attempt), indices, 3 + 5 * most)
        each = draw[:, 3:].reshape(n, 5, most)
        phrases = 1 + np.searchsorted(np.cumsum(c.phrase_shares)[:-1], draw[:, 0], side="right")
        if split == "held_out":  # half of them have two such pairs, so they need two phrases
            both = draw[:, 2] < BOTH_HELD_OUT_SHARE
            phrases = np.where(both, np.maximum(phrases, min(2, most)), phrases)
        named = np.arange(most) < phrases[:, None]
        number = 1 + np.searchsorted(np.cumsum(c.number_shares)[:-1], each[:, 0], side="right")
        left = c.max_objects - phrases  # objects beyond one for each phrase
        for p in range(most):
            number[:, p] = np.minimum(number[:, p], 1 + left)
            left = left - (number[:, p] - 1) * named[:, p]
        law = np.full(c.num_kinds, 1 / c.num_kinds) if split == "uniform" else self.frequencies
        kind = np.minimum(np.searchsorted(np.cumsum(law), each[:, 1], side="right"), c.num_kinds - 1)
        held = self.held_out_color(kind)
        color = (held + 1 + (each[:, 2] * (len(c.colors) - 1)).astype(np.int64)) % len(c.colors)
        if split == "held_out":
            first = (draw[:, 1] * phrases).astype(np.int64)
            second = np.where(both & (phrases > 1), (first + 1) % phrases, first)
            place = np.arange(most)
            color = np.where((place == first[:, None]) | (place == second[:, None]), held, color)
        size = (each[:, 3] * len(c.sizes)).astype(np.int64)
        relation = (each[:, 4] * len(c.relations)).astype(np.int64)
        return Captions(
            number=np.where(named, number, 0),
            size=np.where(named, size, ABSENT),
            color=np.where(named, color, ABSENT),
            kind=np.where(named, kind, ABSENT),
            relation=np.where(named[:, 1:], relation[:, 1:], ABSENT),
        )

    def _admissible(self, split: SpriteSplit, captions: Captions) -> np.ndarray:
        """(n,) whether no two phrases name the same object, and the caption belongs to the split."""
        what = (captions.kind * 64 + captions.color) * 64 + captions.size
        same = (what[:, :, None] == what[:, None]) & captions.named[:, :, None] & captions.named[:, None]
        distinct = same.sum((1, 2)) == captions.named.sum(1)
        if split == "held_out":
            return distinct
        place = self.place(captions)
        low, high = {"train": (0.0, TRAINING_SHARE), "validation": (TRAINING_SHARE, TRAINING_SHARE + VALIDATION_SHARE)}.get(
            split, (TRAINING_SHARE + VALIDATION_SHARE, 1.0)
        )
        return distinct & (place >= low) & (place < high)

    def place(self, captions: Captions) -> np.ndarray:
        """(n,) a number in [0, 1) that depends on a caption's words alone.

        Captions of one phrase are few for each kind, so theirs are spaced evenly: each kind has its share in every split.
        """
        c, words = self.config, self.tokens(captions).astype(np.uint64)
        total = np.full(len(words), np.uint64(c.seed))
        with np.errstate(over="ignore"):
            for column in words.T:
                total = (total ^ column) * np.uint64(0x9E3779B97F4A7C15)
                total = total ^ (total >> np.uint64(29))
        shades = len(c.colors) - 1
        kind, count = captions.kind[:, 0], len(c.number_shares) * len(c.sizes) * shades
        shade = (captions.color[:, 0] - self.held_out_color(kind) - 1) % len(c.colors)
        rank = ((captions.number[:, 0] - 1) * len(c.sizes) + captions.size[:, 0]) * shades + shade
        even = ((rank * SPACING + kind * SPACING) % count + 0.5) / count
        return np.where(captions.named.sum(1) == 1, even, hash_uniform(1, total, 1)[:, 0])

    def stream(self, split: SpriteSplit, purpose: int, attempt: int = 0) -> int:
        """Number of an independent sequence of draws."""
        return ((self.config.seed * 8 + SPRITE_SPLITS.index(split)) * 8 + purpose) * 65_536 + attempt + 1

    def held_out_levels(self, captions: Captions) -> dict[str, np.ndarray]:
        """Which captions (n,) name one, and which several, pairs of kind and color that no training caption contains."""
        number = ((captions.color == self.held_out_color(captions.kind)) & captions.named).sum(1)
        return {"heldout_one": number == 1, "heldout_both": number > 1}

    # -- words

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Words of a caption by token id; 0 is padding. "left of" is one word; articles are the number one."""
        c = self.config
        relations = tuple(r.removesuffix(" of") for r in c.relations)
        return ("<pad>", *NUMBERS[: len(c.number_shares)], *c.sizes, *c.colors, *NAMES[: c.num_kinds], *relations)

    @cached_property
    def _offsets(self) -> np.ndarray:
        """First token id of sizes, colors, kinds and relations."""
        c = self.config
        return np.cumsum([1 + len(c.number_shares), len(c.sizes), len(c.colors), c.num_kinds])

    @property
    def num_words(self) -> int:
        """W = 5 P - 1."""
        return 5 * self.config.max_phrases - 1

    def tokens(self, captions: Captions) -> np.ndarray:
        """Words (n, W) int64: number size color kind [relation number size color kind] ..., 0 where there is none."""
        c, first = captions, self._offsets
        relation = np.pad(c.relation, ((0, 0), (1, 0)), constant_values=ABSENT)
        parts = (relation + first[3], c.number, c.size + first[0], c.color + first[1], c.kind + first[2])
        words = np.stack([np.where(c.named, part, 0) for part in parts], axis=2)  # (n, P, 5)
        return words.reshape(len(c), 5 * self.config.max_phrases)[:, 1:].astype(np.int64)

    def text(self, captions: Captions, row: int) -> str:
        """A caption as a person would write it; kinds have no plural."""
        c, caption = self.config, captions[row : row + 1]
        words = []
        for p in range(int(caption.named.sum())):
            if p:
                words.append(c.relations[caption.relation[0, p - 1]])
            number = "a" if caption.number[0, p] == 1 else NUMBERS[caption.number[0, p] - 1]
            words += [number, c.sizes[caption.size[0, p]], c.colors[caption.color[0, p]], NAMES[caption.kind[0, p]]]
        return " ".join(words)

    def parse(self, text: str) -> Captions:
        """The caption (n = 1) of free text such as "two small red babi above a large blue mawi".

        Raises:
            ValueError: for a word that the world does not have, another order of words, or more objects than fit.
        """
        c = self.config
        spoken = [word for word in text.lower().replace(",", " ").split() if word not in ("the", "of", "to")]
        words = [{"a": "one", "an": "one"}.get(word, word) for word in spoken]
        groups = (NUMBERS[: len(c.number_shares)], c.sizes, c.colors, NAMES[: c.num_kinds])
        relations = [r.removesuffix(" of") for r in c.relations]
        found: dict[str, list[int]] = {name: [] for name in ("relation", "number", "size", "color", "kind")}
        order: list[tuple[str, tuple[str, ...] | list[str]]] = [
            ("relation", relations),
            *zip(("number", "size", "color", "kind"), groups, strict=True),
        ]
        for place, word in enumerate(words):
            name, known = order[(place + 1) % 5]
            if word not in known:
                self._refuse(text, f"word {place + 1}, {word!r}, is no {name}; known: {', '.join(known)}")
            found[name].append(known.index(word))
        number = np.array(found["number"]) + 1
        if len(words) % 5 != 4 or len(number) > c.max_phrases or number.sum() > c.max_objects:
            allowed = f"1 to {c.max_phrases} phrases of 4 words with a relation between, at most {c.max_objects} objects"
            self._refuse(text, f"a caption has {allowed}")

        def pad(values: list[int], length: int) -> np.ndarray:
            return np.pad(np.array(values, dtype=np.int64), (0, length - len(values)), constant_values=ABSENT)[None]

        named = {name: pad(found[name], c.max_phrases) for name in ("size", "color", "kind")}
        count = np.pad(number, (0, c.max_phrases - len(number)))[None]
        return Captions(number=count, relation=pad(found["relation"], c.max_phrases - 1), **named)

    def _refuse(self, text: str, wrong: str) -> None:
        captions = self.draw("test", np.arange(1))
        raise ValueError(f"caption {text!r}: {wrong}; for example {self.text(captions, 0)!r}")
