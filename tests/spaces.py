"""Small token and condition spaces that the tests share."""

from bench.conditioning import ConditionSpace
from bench.paradigm import Paradigm, TokenSpace
from bench.tokenizers.residual import code_vectors

LATENTS = TokenSpace(kind="latents", grid=4, channels=8)
CODES = TokenSpace(kind="codes", grid=4, vocabulary=64)
SCALES = TokenSpace(kind="codes", grid=4, vocabulary=64, scales=(1, 2, 4), code_vectors=code_vectors((4, 4, 4)))
CONDITIONS = ConditionSpace(num_tokens=7, vocabulary=14)


def space_of(cls: type[Paradigm]) -> TokenSpace:
    """The one that a paradigm reads."""
    if cls.grids == "several":
        return SCALES
    return LATENTS if cls.reads == "latents" else CODES
