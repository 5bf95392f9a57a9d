"""The conformance test of the suite, an item for each check; run with `pytest` where paradigm-bench is installed."""

import pytest
from absorbing_diffusion import AbsorbingDiffusion

from bench.testing import paradigm_checks

CHECKS = dict(paradigm_checks())


@pytest.mark.parametrize("name", CHECKS)
def test_it_conforms(name: str) -> None:
    assert CHECKS[name](AbsorbingDiffusion) == []
