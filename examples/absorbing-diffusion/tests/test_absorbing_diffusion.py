"""The conformance test of the suite; run with `pytest` where paradigm-bench is installed."""

from absorbing_diffusion import AbsorbingDiffusion

from bench.testing import check_paradigm


def test_it_conforms() -> None:
    assert check_paradigm(AbsorbingDiffusion) == []
