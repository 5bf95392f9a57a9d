"""COCO 2017 captions at 256x256: `cc12m.py` on a captioned set that fits a disk, judged on the validation captions.

Expects the folder with train2017/, val2017/ and annotations/ (captions_train2017.json, captions_val2017.json): `--data coco`. The
first caption of each image is used.
"""

import runpy
from dataclasses import replace
from pathlib import Path

CC12M = runpy.run_path(str(Path(__file__).with_name("cc12m.py")))
DATA = replace(
    CC12M["DATA"],
    name="coco",
    source="coco",
    split="train2017",
    evaluation_split="val2017",
    image_column="image",
    condition_column="caption",
    max_corrupt=0.001,
)

EXPERIMENT = replace(
    CC12M["EXPERIMENT"],
    name="coco",
    data=DATA,
    recipe=replace(CC12M["EXPERIMENT"].recipe, num_training_images=118_287),
    evaluation=replace(CC12M["EXPERIMENT"].evaluation, num_samples=4_000, num_validation=1_000, num_reference=5_000),
)
