"""Settings that all tests share."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "here")
torch.manual_seed(0)


@pytest.fixture(scope="session")
def s0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a small `scalenet_s0`."""
    from scalenet_zoo.export.onnx import export_onnx

    from tests.networks import random_model, small

    path = tmp_path_factory.mktemp("s0") / "scalenet_s0.onnx"
    export_onnx(random_model(small("scalenet_s0")), path)
    return path
