"""ImageNet at 512x512: `imagenet256.py` on 32x32 tokens, and MAR on KL-16's tokens grouped 2x2 as its paper's table 6 has it."""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import TokenizerConfig

SMALL = runpy.run_path(str(Path(__file__).with_name("imagenet256.py")))
DATA = SMALL["DATA"]
TOKENIZERS = {**DATA.tokenizers, "kl-16-grouped": TokenizerConfig(part="kl-16", group=2)}

EXPERIMENT = replace(
    SMALL["EXPERIMENT"],
    name="imagenet512",
    data=replace(DATA, resolution=512, tokenizers=TOKENIZERS),
    methods=tuple(
        replace(method, tokenizer="kl-16-grouped") if method.paradigm == "mar" else method for method in SMALL["METHODS"]
    ),
)
