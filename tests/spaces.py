"""Small token and condition spaces that the tests share."""

from dataclasses import replace

from bench.conditioning import ConditionSpace
from bench.paradigm import FeatureSpace, Paradigm, TokenSpace
from bench.tokenizers.residual import code_vectors

LATENTS = TokenSpace(kind="latents", grid=4, channels=8)
CODES = TokenSpace(kind="codes", grid=4, vocabulary=64)
FEATURED = replace(LATENTS, features=FeatureSpace(grid=4, channels=6, flops=5000))
SCALES = TokenSpace(kind="codes", grid=4, vocabulary=64, scales=(1, 2, 4), code_vectors=code_vectors((4, 4, 4)))
CONDITIONS = ConditionSpace(num_tokens=7, vocabulary=14)


def space_of(cls: type[Paradigm]) -> TokenSpace:
    """The one that a paradigm reads."""
    if cls.grids == "several":
        return SCALES
    if cls.reads_features:
        return FEATURED
    return LATENTS if cls.reads == "latents" else CODES
