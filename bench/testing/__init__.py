"""The public conformance test that every plugin should pass: `check_paradigm(cls)`, or an item for each of `paradigm_checks()`;
for a tokenizer `check_tokenizer(cls, resolution)`.

Each finding is one sentence. It checks the contract, not the quality of the images, on a CPU in less than a minute.
"""

from bench.testing.example import BACKBONE, BATCH, CONDITIONS, SPACES, build, draw, example_batch, example_space, shake
from bench.testing.learning import descend, learn
from bench.testing.suite import check_paradigm, paradigm_checks
from bench.testing.tokenizer_checks import check_tokenizer

__all__ = [
    "BACKBONE",
    "BATCH",
    "CONDITIONS",
    "SPACES",
    "build",
    "check_paradigm",
    "check_tokenizer",
    "descend",
    "draw",
    "example_batch",
    "example_space",
    "learn",
    "paradigm_checks",
    "shake",
]
