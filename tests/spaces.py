"""Small token and condition spaces that the tests share."""

from bench.conditioning import ConditionSpace
from bench.paradigm import TokenSpace

LATENTS = TokenSpace(kind="latents", grid=4, channels=8)
CODES = TokenSpace(kind="codes", grid=4, vocabulary=64)
CONDITIONS = ConditionSpace(num_tokens=7, vocabulary=14)
