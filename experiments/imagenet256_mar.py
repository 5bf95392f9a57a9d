"""Tables 1 and 2 of the MAR paper (Li et al. 2024) at their own scale: MAR-L on ImageNet 256x256, at equal training FLOPs.

Table 1 compares orders, attention and losses; table 2 tokenizers. MAR-L is 1,024 wide with 16 encoder and 16 decoder blocks; its
head has 8 layers of 1,280. `mar_table1.py` is the same comparison at a size for two CPU cores.
"""

import runpy
from dataclasses import replace
from pathlib import Path

from bench.config import Method, Size, TokenizerConfig, grid

IMAGENET = runpy.run_path(str(Path(__file__).with_name("imagenet256.py")))
MAR_L = Size(width=1024, depth=32, num_heads=16)
HEAD = {"head_options": {"width": 1280, "depth": 8}}
BUFFER = {"num_buffer_slots": 64}
RATES, GUIDANCE = (1e-4,), IMAGENET["GUIDANCE"]
STEPWISE = grid(steps=(16, 64), guidance=GUIDANCE)
TOKENWISE = grid(temperature=(1.0, 0.9), guidance=GUIDANCE)


def method(label: str, paradigm: str, tokenizer: str, **options: object) -> Method:
    """One cell."""
    settings = TOKENWISE if paradigm.startswith("next-token") else STEPWISE
    return Method(paradigm=paradigm, label=label, tokenizer=tokenizer, learning_rates=RATES, options=options, settings=settings)


METHODS = (
    method("raster-causal-ce", "next-token", "vq-16"),
    method("raster-causal-diffloss", "next-token-continuous", "kl-16", **HEAD),
    method("random-causal-ce", "next-token", "vq-16", order="random"),
    method("random-causal-diffloss", "next-token-continuous", "kl-16", order="random", **HEAD),
    method("mar-ce", "mar-discrete", "vq-16", **BUFFER),
    method("mar-diffloss", "mar", "kl-16", **BUFFER, **HEAD),
    method("mar-diffloss-vq-16-latents", "mar", "vq-16-latents", **BUFFER, **HEAD),
    method("mar-diffloss-kl-8", "mar", "kl-8-grouped", **BUFFER, **HEAD),
)
DATA = IMAGENET["DATA"]
TOKENIZERS = {**DATA.tokenizers, "vq-16-latents": TokenizerConfig(part="vq-16", before_quantization=True)}

EXPERIMENT = replace(
    IMAGENET["EXPERIMENT"],
    name="imagenet256-mar",
    data=replace(DATA, tokenizers=TOKENIZERS),
    methods=METHODS,
    ladder=None,
    sizes=(MAR_L,),
    rungs=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    num_seeds=((1, 1, 1, 1, 1, 3),),
)
