import pytest
import torch

from bench.data.shapes_world import ShapesWorld

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world() -> ShapesWorld:
    return ShapesWorld()
