"""The leaderboard's folder: the one place that knows its files' names.

<out>/leaderboard.html                             the page
<out>/standing.csv                                 a row per place and measure
<out>/every-eval-ever/<submission>/<method>.json   one model's results
<out>/croissant/<world>/croissant.json captions.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LeaderboardFolder:
    """Paths of what a leaderboard writes."""

    root: Path

    @property
    def page(self) -> Path:
        """The page, one file that asks for nothing."""
        return self.root / "leaderboard.html"

    @property
    def standing(self) -> Path:
        """The same as a table."""
        return self.root / "standing.csv"

    def evaluation(self, submission: str, method: str) -> Path:
        """One method of a submission for Every Eval Ever."""
        return self.root / "every-eval-ever" / submission / f"{method}.json"

    def croissant(self, world: str) -> Path:
        """A world's description."""
        return self.root / "croissant" / world / "croissant.json"

    def captions(self, world: str) -> Path:
        """What the description describes: captions of the first images."""
        return self.croissant(world).with_name("captions.csv")
