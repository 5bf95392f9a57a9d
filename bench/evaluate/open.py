"""The judge of a data set."""

from __future__ import annotations

from bench.config.experiment import Evaluation
from bench.data.base import TokenizedData
from bench.data.image_data import TokenizedImages
from bench.data.shapes_data import TokenizedShapes
from bench.data.sprites_data import TokenizedSprites
from bench.evaluate.image_judge import ImageJudge
from bench.evaluate.judge import Judge
from bench.evaluate.shapes_judge import ShapesJudge
from bench.evaluate.sprites_judge import SpritesJudge
from bench.results.folder import Results


def judge_class(dataset: TokenizedData) -> type[Judge]:
    """What judges images of a data set of this kind."""
    if isinstance(dataset, TokenizedImages):
        return ImageJudge
    if isinstance(dataset, TokenizedSprites):
        return SpritesJudge
    assert isinstance(dataset, TokenizedShapes)
    return ShapesJudge


def open_judge(dataset: TokenizedData, settings: Evaluation, results: Results) -> Judge:
    """What scores generated images of a data set; loads its networks.

    Raises:
        ValueError: naming the file that is missing and the command that makes or fetches it.
    """
    return judge_class(dataset)(dataset, settings, results)


def check_judge(dataset: TokenizedData) -> None:
    """Refuse what cannot be judged on this machine, before hours are spent on training.

    Raises:
        ValueError: naming the file that is missing and the command that makes or fetches it.
    """
    judge_class(dataset).check(dataset)
