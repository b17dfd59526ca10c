"""int8 graphs for each back end: what their tensors are, and what they compute in real ONNX Runtime sessions."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import nn

from scalenet_zoo.core.backends import TargetBackend
from scalenet_zoo.core.errors import EngineError, ExportError
from scalenet_zoo.data.image_files import read_image, sample_photographs
from scalenet_zoo.export.bias_correction import correct_biases, rounded_weights
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.export.inputs import FileBatches, Remembered, file_input, network_input
from scalenet_zoo.export.int8 import kept_nodes, layer_name, make_int8
from scalenet_zoo.export.int8_graph import rewrite_for_kernels
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import export_onnx, metadata_of
from scalenet_zoo.export.onnx_network import OnnxNetwork, open_session
from scalenet_zoo.export.quantisation import SCHEMES, WEIGHTED, Quantiser
from scalenet_zoo.export.tensorrt.source import EngineSource
from tests.helpers.networks import random_model, shallow

TARGETS: tuple[TargetBackend, ...] = ("ort-cpu", "openvino", "tensorrt", "tensorrt-rtx")


class Net(nn.Module):
    """The operations of our networks: convolutions, gates, every activation, upsampling, a sum, a pool, a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
        self.gate = nn.Conv2d(8, 8, 1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(x)))
        x = x * nn.functional.hardsigmoid(self.gate(nn.functional.silu(x.mean((2, 3), keepdim=True))))
        x = nn.functional.relu6(x + nn.functional.interpolate(self.down(x), scale_factor=2.0))
        y: torch.Tensor = self.linear(nn.functional.silu(x).mean((2, 3)))
        return y


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 3, 32, 32), dtype=np.float32) for _ in range(count)]


def run(graph: onnx.ModelProto, batches: list[np.ndarray]) -> np.ndarray:
    session = open_session(graph.SerializeToString())
    return np.concatenate([session.run(None, {"image": batch})[0] for batch in batches])


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    torch.manual_seed(0)
    return trace_graph(Net(), torch.zeros(2, 3, 32, 32), "logits", torch.export.Dim("batch", min=1))


def kinds(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


# --- schemes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_a_graph_is_quantised_for_its_target(
    target: TargetBackend, graph: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    before, scheme = graph.SerializeToString(), SCHEMES[target]
    with Quantiser(graph, images(8), target) as quantiser:
        int8 = quantiser.quantise()
    assert graph.SerializeToString() == before
    assert capsys.readouterr() == ("", "")  # ONNX Runtime's quantiser is told to be quiet
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    sources = {output: node for node in int8.graph.node for output in node.output}
    for node in int8.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = tensors[node.input[2]]
            assert (tensors[node.input[1]] > 0).all()
            if target.startswith("tensorrt"):  # which takes symmetric bytes alone
                assert zero.dtype == np.int8
                assert not zero.any()
    weighted = [node for node in int8.graph.node if node.op_type in WEIGHTED]
    assert len(weighted) == 4
    for node in weighted:
        source, weight = (sources[name] for name in node.input[:2])
        assert (source.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert tensors[source.input[2]].dtype == (np.uint8 if scheme.unsigned else np.int8)
        assert tensors[weight.input[0]].dtype == np.int8
        assert tensors[weight.input[1]].size == 8 or node.op_type == "Gemm"  # a scale a channel
        bias = sources[node.input[2]].input[0] if scheme.integer_biases else node.input[2]
        assert tensors[bias].dtype == (np.int32 if scheme.integer_biases else np.float32)
    expected, found = run(graph, images(8, 1)), run(int8, images(8, 1))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * np.sqrt(np.mean(expected**2))


def test_all_that_onnx_runtime_can_compute_in_bytes_is(graph: onnx.ModelProto, tmp_path: Path) -> None:
    """What ONNX Runtime makes of the graph has integer kernels, but for swish, which it fuses in fp32."""
    with Quantiser(graph, images(8), "ort-cpu") as quantiser:
        int8 = quantiser.quantise()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(int8.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = kinds(onnx.load(tmp_path / "optimised.onnx"))
    assert found["QLinearConv"] == 3
    assert found["QGemm"] == 1
    assert found["QLinearGlobalAveragePool"] == 2
    assert found["QLinearMul"] == 2  # hard-swish, the gate
    assert found["QLinearAdd"] == 3  # two hard-sigmoids, and the sum
    assert found["QuickGelu"] == 2
    assert not {"Conv", "Gemm", "Mul", "Add", "HardSigmoid", "HardSwish", "Sigmoid", "ReduceMean"} & set(found)


def test_a_rewritten_graph_computes_the_same(graph: onnx.ModelProto) -> None:
    rewritten = rewrite_for_kernels(graph)
    assert not {"ReduceMean", "HardSwish"} & set(kinds(rewritten))
    np.testing.assert_allclose(run(rewritten, images(2)), run(graph, images(2)), rtol=1e-5, atol=1e-6)
    left = rewrite_for_kernels(graph, [node.name for node in graph.graph.node])
    assert kinds(left) == kinds(graph)


def test_hard_swish_of_bytes_is_exact_to_some_steps() -> None:
    """One activation alone, over its whole range: the sum saturates where hard-sigmoid does."""
    alone = trace_graph(nn.Hardswish(), torch.zeros(1, 1, 8, 32))
    x = np.linspace(-8, 8, 256, dtype=np.float32).reshape(1, 1, 8, 32)
    with Quantiser(alone, [x], "ort-cpu") as quantiser:
        int8 = quantiser.quantise()
    assert "HardSigmoid" not in kinds(int8)
    session = open_session(int8.SerializeToString())
    (found,) = session.run(None, {"image": x})
    exact = x * np.clip(x / 6 + 0.5, 0, 1)
    step = 16 / 255  # of the input; hard-swish is at most half as steep again
    assert np.abs(found - exact).max() < 1.5 * step


def test_sixteen_bits_are_nearer(graph: onnx.ModelProto) -> None:
    expected, off = run(graph, images(4, 1)), []
    widths: tuple[Literal[8, 16], ...] = (8, 16)
    for bits in widths:
        with Quantiser(graph, images(4), "ort-cpu", bits) as quantiser:
            off.append(np.abs(run(quantiser.quantise(), images(4, 1)) - expected).max())
    assert off[1] < off[0]


# --- biases ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_rounded_weights_lie_on_127_steps_each_way(seed: int, outputs: int, scale: float) -> None:
    weights = (scale * np.random.default_rng(seed).standard_normal((outputs, 4, 3, 3))).astype(np.float32)
    found = rounded_weights(weights)
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    steps = 127 * found / largest
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert (np.abs(found - weights) <= 0.501 * largest / 127).all()


def test_corrected_layers_give_on_average_what_they_did(graph: onnx.ModelProto) -> None:
    batches = images(16)
    corrected = correct_biases(graph, batches, WEIGHTED)

    def means(source: onnx.ModelProto, weights: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        changed = onnx.ModelProto()
        changed.CopyFrom(source)
        used = {node.input[1] for node in source.graph.node if node.op_type in WEIGHTED}
        for tensor in changed.graph.initializer:
            if tensor.name in used:
                value = weights(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        found: np.ndarray = run(changed, batches).mean(0)
        return found

    exact = means(graph, lambda value: value)
    without, with_correction = means(graph, rounded_weights), means(corrected, rounded_weights)
    np.testing.assert_allclose(with_correction, exact, rtol=1e-4, atol=1e-5)
    assert np.abs(without - exact).max() > 10 * np.abs(with_correction - exact).max()


def test_few_images_suffice_for_the_correction_if_they_are_large(
    graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalenet_zoo.export.bias_correction.PIXELS", 2 * 32 * 32)
    by_two = correct_biases(graph, images(2), WEIGHTED)
    assert correct_biases(graph, images(9), WEIGHTED).SerializeToString() == by_two.SerializeToString()


# --- which layers, which calibrator ---------------------------------------------------------------


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    return metadata_of(random_model(shallow("scalenet_s0")), OnnxOptions(precision="int8", target="ort-cpu"))


def test_layers_and_operators_stay_in_fp32_by_name(graph: onnx.ModelProto, metadata: Metadata) -> None:
    layers = [layer_name(node) for node in graph.graph.node if node.op_type in WEIGHTED]
    assert layers == ["stem", "gate", "down", "linear"]
    options = metadata.options.model_copy(update={"keep_fp32": ("stem", "Gemm")})
    made = make_int8(graph, Metadata(metadata.spec, metadata.interface, options), images(2)).graph
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert {types[name] for name in ("stem.weight", "linear.weight")} == {TensorProto.FLOAT}
    assert {"gate.weight", "down.weight"}.isdisjoint(types)
    with pytest.raises(ExportError, match="keep_fp32: found 'ste', expected layers such as stem or linear, or operat"):
        kept_nodes(graph, ["ste"])


def test_the_calibrator_that_agrees_best_is_taken(graph: onnx.ModelProto, metadata: Metadata) -> None:
    shares = iter([0.7, 0.9, 0.8])
    made = make_int8(graph, metadata, images(2), agreement=lambda network: next(shares))
    assert made.calibrator == "percentile"
    shares = iter([0.7, 0.96])  # entropy is not tried
    assert make_int8(graph, metadata, images(2), agreement=lambda network: next(shares)).calibrator == "percentile"
    shares = iter([0.99])
    assert make_int8(graph, metadata, images(2), agreement=lambda network: next(shares)).calibrator == "minmax"
    options = metadata.options.model_copy(update={"calibrator": "entropy"})
    asked = Metadata(metadata.spec, metadata.interface, options)
    assert make_int8(graph, asked, images(2), agreement=lambda network: 0.1).calibrator == "entropy"
    assert make_int8(graph, metadata, images(2)).calibrator == "minmax"  # nothing to compare


def test_an_activation_of_nearly_one_value_is_left_to_minmax(metadata: Metadata) -> None:
    layer = nn.Conv2d(3, 4, 1)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.fill_(1e-7)
        layer.bias.fill_(1.0)
    flat = trace_graph(nn.Sequential(layer, nn.ReLU()), torch.zeros(1, 3, 32, 32))
    assert make_int8(flat, metadata, images(2), agreement=lambda network: 0.5).calibrator == "minmax"
    options = metadata.options.model_copy(update={"calibrator": "percentile"})
    asked = Metadata(metadata.spec, metadata.interface, options)
    with pytest.raises(ExportError, match="calibrator: found percentile for an activation with nearly constant values"):
        make_int8(flat, asked, images(2))


def test_auto_leaves_the_costly_layer_in_fp32(metadata: Metadata) -> None:
    """One layer's weights have an outlier in every output, which leaves the others few steps."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(16, 4, 3))
    assert first.bias is not None
    with torch.no_grad():
        second.weight[:, 0, 0, 0] = 40.0
        first.weight[0], first.bias[0] = 0.0, 0.0  # what the outliers weigh is always 0
    spoilt = trace_graph(net, torch.zeros(1, 3, 16, 16))
    told: list[int] = []
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((1, 3, 16, 16), dtype=np.float32) for _ in range(2)]
    made = make_int8(spoilt, metadata, batches, auto=True, on_progress=lambda what, done, total: told.append(done))
    assert made.kept == ("2",)
    assert told == [0, 1, 2]
    types = {tensor.name: tensor.data_type for tensor in made.graph.graph.initializer}
    assert types["2.weight"] == TensorProto.FLOAT
    assert "4.weight" not in types
    expected = run(spoilt, batches)
    assert np.abs(run(made.graph, batches) - expected).max() < 0.1 * np.abs(expected).max()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [(), ("stem", "stages.0")])
def test_a_file_says_what_it_was_made_for(keep: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    options = OnnxOptions(precision="int8", target="ort-cpu", keep_fp32=keep)
    check = export_onnx(random_model(shallow("scalenet_s0")), path, options, sample_photographs())
    stated = json.loads(OnnxNetwork.load(path).metadata.entries()["scalenet_zoo.export"])
    assert (stated["target"], stated["calibrator"]) == ("ort-cpu", check.metadata.options.calibrator)
    assert stated["calibrator"] is not None
    assert stated["keep_fp32"] == list(keep)
    with pytest.raises(EngineError, match=r"x\.onnx: found int8 made for ort-cpu, expected it for tensorrt"):
        EngineSource.read(path)


def test_files_without_a_target_were_made_for_tensorrt() -> None:
    before = OnnxOptions(precision="int8")
    assert before.doubt("tensorrt") is before.doubt("tensorrt-rtx") is None
    assert "found int8 made for tensorrt" in str(before.doubt("ort-cpu"))
    ours = OnnxOptions(precision="int8", target="openvino")
    assert ours.doubt("openvino") is None
    assert "found int8 made for openvino" in str(ours.doubt("ort-cpu"))
    assert OnnxOptions().doubt("tensorrt") is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"target": "ort-cpu"}, "found fp32 with target"),
        ({"precision": "fp16", "activation_bits": 16}, "found fp16 with target, calibrator or activation_bits"),
        ({"keep_fp32": ("stem",)}, "found fp32 with keep_fp32"),
        ({"precision": "int8", "target": "tensorrt", "activation_bits": 16}, "found 16 for tensorrt, expected 8"),
        ({"precision": "int8", "io": "fp16"}, "found int8 with io"),
    ],
)
def test_options_that_contradict_one_another_are_refused(
    options: dict[str, Any], complaint: str, metadata: Metadata
) -> None:
    with pytest.raises(ExportError, match=complaint):
        OnnxOptions(**options).check(metadata.spec)


def test_batches_of_files_are_filled_up(metadata: Metadata) -> None:
    files = [*sample_photographs(), *sample_photographs(), sample_photographs()[0]]
    made = FileBatches(metadata, files, 2)
    assert len(made) == 3
    np.testing.assert_array_equal(made[2], file_input(metadata, files[4:], 2))
    np.testing.assert_array_equal(made[1:][1], made[2])
    assert [len(batch) for batch in made] == [2, 2, 2]


@pytest.mark.parametrize(("most", "times"), [(2**29, 2), (1, 3)])
def test_images_are_prepared_once_where_there_is_room(
    most: int, times: int, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr("scalenet_zoo.export.inputs.MOST_BYTES", most)
    monkeypatch.setattr("scalenet_zoo.export.inputs.read_image", counted)
    files = Remembered(sample_photographs())
    first = network_input(metadata, files, 2)
    np.testing.assert_array_equal(file_input(metadata, files[1:], 1)[0], first[1])
    assert len(read) == times
