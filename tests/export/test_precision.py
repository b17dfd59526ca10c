"""fp16 graphs: what their tensors are, and what they compute in real ONNX Runtime sessions."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, parser
from torch import nn

from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.export.precision import rounded, to_half


class Net(nn.Module):
    """The operations of our networks: convolutions, upsampling, a sum, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(x)), inplace=True)
        x = x + nn.functional.interpolate(self.down(x), scale_factor=2.0, mode="bilinear")
        y: torch.Tensor = self.linear(x.mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    torch.manual_seed(0)
    return trace_graph(Net(), torch.zeros(2, 3, 32, 32), "logits", torch.export.Dim("batch", min=1))


IMAGES = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)


def run(graph: onnx.ModelProto, images: np.ndarray = IMAGES) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def weight_types(graph: onnx.ModelProto) -> dict[str, set[int]]:
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    found: dict[str, set[int]] = {}
    for node in graph.graph.node:
        found.setdefault(node.op_type, set()).update(types[name] for name in node.input if name in types)
    return found


def test_batch_norms_are_folded_and_activations_stay_in_place(graph: onnx.ModelProto) -> None:
    assert {node.op_type for node in graph.graph.node} == {"Conv", "HardSwish", "Resize", "Add", "ReduceMean", "Gemm"}
    assert all(not node.metadata_props for node in graph.graph.node)  # torch's notes name files of this machine
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Hardswish(inplace=True), nn.Dropout()).train()
    module[2].eval()
    trace_graph(module, torch.zeros(1, 3, 4, 4))
    assert module[1].inplace
    assert (module[0].training, module[2].training) == (True, False)


@pytest.mark.parametrize("io_type", ["fp32", "fp16"])
def test_halves(graph: onnx.ModelProto, io_type: str) -> None:
    half = to_half(graph, io_type=io_type)  # type: ignore[arg-type]
    types = weight_types(half)
    assert types["Conv"] == types["Gemm"] == {TensorProto.FLOAT16}
    assert types["Resize"] == {TensorProto.FLOAT}  # its scales
    dtype = np.dtype(np.float16 if io_type == "fp16" else np.float32)
    found = run(half, IMAGES.astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, run(graph), atol=5e-3)
    casts = sum(node.op_type == "Cast" for node in half.graph.node)
    assert casts == (0 if io_type == "fp16" else 2)


def test_operators_and_nodes_that_stay_in_fp32(graph: onnx.ModelProto) -> None:
    half = to_half(graph, keep_fp32=["Gemm", "ReduceMean"])
    types = weight_types(half)
    assert (types["Conv"], types["Gemm"]) == ({TensorProto.FLOAT16}, {TensorProto.FLOAT})
    # The neighbours ReduceMean and Gemm have no cast between them, nor has Gemm and the output.
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    np.testing.assert_allclose(run(half), run(graph), atol=5e-3)
    everything = to_half(graph, keep_nodes=[node.name for node in graph.graph.node])
    np.testing.assert_array_equal(run(everything), run(graph))
    with pytest.raises(ExportError, match=r"keep_fp32: found 'Softmax', expected some of Add, Conv, Gemm, HardSwish"):
        to_half(graph, keep_fp32=["Softmax"])


def test_a_weight_used_in_both_types_is_there_in_both() -> None:
    graph = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] image) => (float[n] y)'
        " <float[1] c = {3.1}, float[n] t> { t = Mul(image, c) y = Add(t, c) }"
    )
    half = to_half(graph, keep_fp32=["Add"])
    x = np.array([1.0], np.float32)
    expected = np.float32(np.float16(np.float16(3.1))) + np.float32(3.1)
    np.testing.assert_array_equal(run(half, x), [expected])


def test_weights_that_no_half_can_hold_are_refused() -> None:
    graph = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] image) => (float[n] y) <float[1] c = {70000.0}>'
        " { y = Mul(image, c) }"
    )
    with pytest.raises(ExportError, match=r"c: found a weight of 70000, expected at most 65504 in fp16"):
        to_half(graph)


def test_what_overflows_in_halves_is_seen() -> None:
    """ONNX Runtime's CPU provider computes in fp32, where nothing overflows; `rounded` reveals it."""
    graph = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] image) => (float[n] y)'
        " <float[1] up = {30000.0}, float[1] down = {0.0001}, float[n] t> { t = Mul(image, up) y = Mul(t, down) }"
    )
    half = to_half(graph)
    x = np.array([1.0, 10.0], np.float32)
    assert np.isfinite(run(half, x)).all()
    found = run(rounded(half), x)
    assert np.isinf(found[1])
    assert found[0] == pytest.approx(3.0, rel=1e-3)


def test_rounded_graphs_round_every_value(graph: onnx.ModelProto) -> None:
    half = to_half(graph, io_type="fp16")
    exact = rounded(half)
    assert {t.data_type for t in exact.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    found = run(exact)
    np.testing.assert_array_equal(found, found.astype(np.float16))  # each output is a half
    np.testing.assert_allclose(found, run(graph), atol=5e-3)
