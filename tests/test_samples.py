"""The picture of a run's samples says what each image was asked to show, and whether it does."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from bench.config.experiment import Evaluation
from bench.data.open import open_data
from bench.data.shapes_render import render_captions
from bench.evaluate.open import open_judge
from bench.evaluate.sampler import save_grid
from bench.evaluate.shapes_judge import ShapesJudge
from bench.report.palette import SAMPLE_COLORS, in_few_colors
from bench.results.folder import Results


def test_words_and_verdicts_travel_with_the_picture(tmp_path: Path) -> None:
    """Real renders obey their captions; a black image obeys none."""
    settings = Evaluation(num_samples=32, num_held_out=8, num_validation=8, num_reference=64)
    judge = open_judge(open_data("shapes32"), settings, Results(tmp_path))
    assert isinstance(judge, ShapesJudge)
    images = torch.from_numpy(render_captions(judge.world, judge.captions("test", 32), "test", 0))
    images[3] = 0
    save_grid(images, tmp_path / "samples.png", judge.prompts(32), judge.obeyed(images), judge.reasons(images))
    with Image.open(tmp_path / "samples.png") as picture:
        assert isinstance(picture, PngImageFile)
        text, pixels = picture.text, np.asarray(picture)
    assert json.loads(text["obeyed"]) == [place != 3 for place in range(32)]
    assert [bool(reason) for reason in json.loads(text["reasons"])] == [place == 3 for place in range(32)]
    assert json.loads(text["prompts"]) == [judge.world.caption_text(int(i)) for i in judge.captions("test", 32)]
    assert (pixels[:32, :32] == images[0].permute(1, 2, 0).numpy()).all()


def test_a_picture_without_words_stays_plain(tmp_path: Path) -> None:
    save_grid(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as picture:
        assert isinstance(picture, PngImageFile)
        assert picture.text == {}


def test_a_palette_keeps_pictures_much_as_they_are() -> None:
    images = open_data("sprites40").render_split(np.arange(64), "train")[0].transpose(0, 2, 3, 1).reshape(-1, 40, 3)
    sheet = in_few_colors(Image.fromarray(images), SAMPLE_COLORS)
    away = np.abs(np.asarray(sheet.convert("RGB")).astype(int) - images)
    assert sheet.mode == "P"
    assert len(np.unique(np.asarray(sheet))) <= SAMPLE_COLORS
    assert away.mean() < 3
    assert sheet.tobytes() == in_few_colors(Image.fromarray(images), SAMPLE_COLORS).tobytes()
