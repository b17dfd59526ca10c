"""TensorFlow's padding in exported files: the convolution's own, at no cost, on every back end."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from scalenet_zoo.arch.spec import ArchSpec, Head, Input, Layer, MBConvNetwork, Provenance, Stem
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from tests.helpers.networks import random_model

NETWORK = MBConvNetwork(
    stem=Stem(channels=8, kernel=3, stride=2),
    stages=(
        (
            Layer(kernel=5, stride=2, hidden=16, squeeze=0, channels=8),
            Layer(kernel=3, stride=1, hidden=16, squeeze=0, channels=8),
        ),
        (Layer(kernel=7, stride=2, hidden=24, squeeze=4, channels=12),),
    ),
    head=Head(channels=16),
    activation="relu6",
    gate="sigmoid",
    padding="same",
    norm_eps=1e-3,
)


def padded(pixels: int) -> ArchSpec:
    image = Input(height=pixels, width=pixels)
    return ArchSpec.create("padded", "classification", image, 5, NETWORK, Provenance(source="a test"))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


@pytest.mark.parametrize(
    ("pixels", "pads"),
    [
        (64, {3: [0, 0, 1, 1], 5: [1, 1, 2, 2], 7: [2, 2, 3, 3]}),  # even sizes: the odd zero at the end
        (57, {3: [1, 1, 1, 1], 5: [2, 2, 2, 2], 7: [3, 3, 3, 3]}),  # 57, 29, 15: half a kernel on each side
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_is_the_convolutions_own(precision: Any, pixels: int, pads: dict[int, list[int]], tmp_path: Path) -> None:
    model = random_model(padded(pixels))
    path = tmp_path / "padded.onnx"
    export_onnx(model, path, OnnxOptions(precision=precision), calibration=sample_photographs())
    graph = onnx.load(path).graph
    assert "Pad" not in {node.op_type for node in graph.node}
    convs = [attributes(node) for node in graph.node if node.op_type == "Conv"]
    strided = {conv["kernel_shape"][0]: conv["pads"] for conv in convs if conv["strides"] == [2, 2]}
    assert strided == pads
    images = torch.randn(2, 3, pixels, pixels)
    with torch.no_grad():
        expected = model(images).numpy()
    tolerance = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.2}[precision]
    found = OnnxNetwork.load(path)(images.numpy())
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_tensorrt_rtx_builds_it(tmp_path: Path) -> None:
    """A real engine: the parser of TensorRT takes different zeros on both sides."""
    pytest.importorskip("tensorrt_rtx")
    from scalenet_zoo.export.tensorrt.build import build_engine, check_engine
    from scalenet_zoo.export.tensorrt.record import EngineOptions

    path = tmp_path / "padded.onnx"
    export_onnx(random_model(padded(64)), path)
    options = EngineOptions(library="tensorrt-rtx", batch=(1, 2, 4), compute_capabilities=("8.9",))
    record = build_engine(path, tmp_path / "padded.engine", options)
    assert record.spec_hash == padded(64).hash
    assert check_engine(tmp_path / "padded.engine") == record
