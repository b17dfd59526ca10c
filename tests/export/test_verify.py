"""The check of exported files: which faults it finds, and which differences it accepts."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper
from torch import nn

from scalenet_zoo import load_spec
from scalenet_zoo.arch.spec import ArchSpec, Input, Module, MultipathNetwork, Provenance
from scalenet_zoo.core.errors import VerificationError
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export import verify as checks
from scalenet_zoo.export.graph_check import check_graph, folded_params
from scalenet_zoo.export.metadata import Metadata, OnnxOptions, Output
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.precision import rounded as rounded_graph
from scalenet_zoo.export.verify import (
    Agreement,
    agree,
    batch_sizes,
    compare_outputs,
    differences,
    processed,
    run_torch,
    verify,
)
from scalenet_zoo.inference.predict import describe_output
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.networks import random_model, small
from tests.helpers.shapes import SPECS

PHOTOGRAPHS = sample_photographs()
MODULES = tuple(
    Module(depth=(1,) * n, fusion=(((1,) * n, *((0,) * n,) * 4),) * n)  # every branch feeds every other one
    for n in (2, 3, 4)
)


def tiny(task: Any) -> ArchSpec:
    network = MultipathNetwork(width=4, head=task, modules=MODULES)
    return ArchSpec.create("tiny", task, Input(height=40, width=56), 5, network, Provenance(source="test"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = random_model(small("scalenet_s0"))
    path = tmp_path_factory.mktemp("verify") / "scalenet_s0.onnx"
    export_onnx(model, path)
    return model, path


class Liar:
    """A stand-in for an exported network that is slightly wrong."""

    def __init__(self, honest: OnnxNetwork, error: float, sizes: tuple[int, ...] = (1, 2, 3)) -> None:
        self.honest, self.error, self.sizes = honest, error, sizes
        self.metadata = honest.metadata

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.honest(images) + np.float32(self.error * (len(images) in self.sizes))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("error", [0.01, float("nan")])
def test_outputs_that_differ_at_any_batch_size_are_found_out(
    exported: tuple[nn.Module, Path], error: float, size: int
) -> None:
    model, path = exported
    liar = Liar(OnnxNetwork.load(path), error, (size,))
    with pytest.raises(VerificationError, match=r"scalenet_s0: found outputs that differ by .* in fp32"):
        compare_outputs(partial(run_torch, model), liar, PHOTOGRAPHS)
    assert compare_outputs(partial(run_torch, model), Liar(liar.honest, 1e-6), PHOTOGRAPHS).batch_sizes == (1, 2, 3)


def test_outputs_of_another_shape_are_found_out(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    honest = OnnxNetwork.load(path)

    class Flat:
        metadata = honest.metadata

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return honest(images).ravel()

    with pytest.raises(VerificationError, match=r"found outputs of shape \(1000,\), expected \(1, 1000\)"):
        compare_outputs(partial(run_torch, model), Flat(), PHOTOGRAPHS)


@pytest.mark.parametrize(
    ("batch", "sizes"), [(None, (1, 2, 3)), ((1, 8, 32), (1, 8, 32)), ((4, 4, 4), (4,)), ((2, 2, 5), (2, 5))]
)
def test_the_smallest_the_largest_and_one_between_are_compared(batch: Any, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(OnnxOptions(batch=batch)) == sizes


def saved(path: Path, change: Any, folder: Path) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_files_that_hold_something_else_are_found_out(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, path = exported
    metadata = Metadata.read(path)
    assert check_graph(path, metadata) == folded_params(model.spec) == verify(model, path).params  # type: ignore[arg-type]

    def widen(onnx_model: Any) -> None:
        weight = next(t for t in onnx_model.graph.initializer if t.name == "classifier.weight")
        weight.CopyFrom(numpy_helper.from_array(np.zeros((1000, 1281), np.float32), weight.name))

    def double(onnx_model: Any) -> None:
        weight = next(t for t in onnx_model.graph.initializer if t.name == "classifier.weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))

    def freeze(onnx_model: Any) -> None:
        onnx_model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    def break_(onnx_model: Any) -> None:
        onnx_model.graph.node[0].op_type = "Convolution"

    for change, complaint in (
        (widen, "found invalid ONNX|found 4,427,268 parameters in the file, expected 4,426,268"),
        (double, "found invalid ONNX|of type DOUBLE, expected FLOAT"),
        (freeze, ".*changed.onnx: input: found image, fp32 of 2x3x64x96 in the graph, expected image, fp32 of any"),
        (break_, "found invalid ONNX"),
    ):
        with pytest.raises(VerificationError, match=f"scalenet_s0: ({complaint})"):
            check_graph(saved(path, change, tmp_path), metadata)

    other = load_spec("scalenet_s1").replace(height=64, width=96)
    with pytest.raises(VerificationError, match=r"found 4,426,268 parameters in the file, expected 7,"):
        check_graph(path, Metadata(other, metadata.interface, metadata.options))
    with pytest.raises(VerificationError, match=r"of type FLOAT, expected FLOAT16"):
        check_graph(path, Metadata(metadata.spec, Interface(), OnnxOptions(precision="fp16")))
    with pytest.raises(VerificationError, match=r"of type FLOAT, expected INT8"):
        check_graph(path, Metadata(metadata.spec, Interface(), OnnxOptions(precision="int8")))


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b0", "scalenas_p1", "scalenas_p2", "hrnet_w18"])
def test_folded_params_are_the_specs_without_what_no_output_needs(name: str) -> None:
    spec = load_spec(name)
    live = {op.name for op in spec.trace.live_ops}
    dead = sum(op.params for op in spec.trace.ops if op.name and op.name not in live)
    assert (dead > 0) == name.startswith("scalenas_p")  # their masks switch on paths that nobody reads
    assert 0.98 * spec.cost.params < folded_params(spec) + dead < spec.cost.params


# --- outputs that are processed in the graph ------------------------------------------------------

HEATMAPS = arrays.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-4, 4, width=16),
)


@given(heatmaps=HEATMAPS)
@settings(max_examples=60)
def test_joints_are_those_that_predict_finds(heatmaps: np.ndarray) -> None:
    spec = tiny("pose").replace(classes=heatmaps.shape[1])
    joints = processed(heatmaps, "joints")
    assert joints.shape == (*heatmaps.shape[:2], 3)
    for maps, found in zip(heatmaps, joints, strict=True):
        raw, given_ = describe_output(spec, maps), describe_output(spec, found, form="joints")
        for ours, theirs in zip(raw, given_, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)
    off, scale = differences(heatmaps, joints, "joints")
    assert not off.any()
    np.testing.assert_array_equal(scale, heatmaps.max((2, 3)))


def test_how_far_off_joints_and_classes_are() -> None:
    heatmap = np.zeros((1, 1, 5, 5), np.float32)
    heatmap[0, 0, 2, 2], heatmap[0, 0, 2, 3], heatmap[0, 0, 2, 1] = 1.0, 0.5, 0.25
    joint = processed(heatmap, "joints")
    np.testing.assert_allclose(joint, [[[2.75 / 5, 2.5 / 5, 1.0]]])

    def off(x: float, y: float, score: float) -> list[float]:
        found, _ = differences(heatmap, np.array([[[x / 5, y / 5, score]]], np.float32), "joints")
        return [float(value) for value in found[0, 0]]

    assert off(2.75, 2.5, 0.75) == [0, -0.25, 0, 0]  # the score
    assert off(2.25, 2.5, 1.0) == [0, 0, 0.25, 0]  # moved to the lower neighbour
    assert off(3.25, 2.5, 0.5) == pytest.approx([0.5, 0, 0, 0])  # the cell beside
    assert off(2.6, 2.5, 1.0)[2] == np.inf  # no quarter
    assert off(-3, 2.5, 1.0)[2] == np.inf  # outside

    logits = np.array([[[[3.0]], [[1.0]], [[2.0]]]], np.float32)
    for found, expected in ((0, 0.0), (2, 1.0), (1, 2.0), (3, np.inf), (-1, np.inf)):
        assert differences(logits, np.array([[[found]]], np.int32), "argmax")[0] == expected
    probabilities = processed(np.zeros((1, 4), np.float32), "softmax")
    assert not differences(np.zeros((1, 4), np.float32), probabilities, "softmax")[0].any()


class Made:
    """A stand-in for an exported network that returns given outputs, image by image."""

    def __init__(self, spec: ArchSpec, output: Output, answers: np.ndarray) -> None:
        self.metadata = Metadata(spec, Interface(), OnnxOptions(output=output))
        self.answers = list(answers)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self.answers.pop(0) for _ in images])


def test_agreement_is_counted_by_task() -> None:
    paths = [PHOTOGRAPHS[0]] * 4
    spec = small("scalenet_s0").replace(classes=3)
    ours = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    theirs = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]]
    found = agree(Made(spec, "raw", ours), Made(spec, "raw", theirs), paths)
    assert found == Agreement("top-1", 0.75, 4)

    maps = np.zeros((4, 5, 2, 2), np.float32)
    maps[:, 1, 0], maps[:, 2, 1] = 1, 1  # classes 1 above, 2 below
    classes = np.array([[[1, 1], [2, 2]]] * 3 + [[[1, 1], [1, 2]]], np.int32)
    found = agree(Made(tiny("segmentation"), "raw", maps), Made(tiny("segmentation"), "argmax", classes), paths)
    assert found.measure == "mIoU"
    assert found.share == pytest.approx((8 / 9 + 7 / 8) / 2)  # classes that nobody sees do not count

    maps = np.zeros((4, 5, 2, 2), np.float32)
    maps[:, 1] = 1
    maps[0, 2, 0, 0] = 2  # a class of one pixel in all
    found = agree(
        Made(tiny("segmentation"), "raw", maps), Made(tiny("segmentation"), "argmax", maps.argmax(1)), [*paths]
    )
    assert found == Agreement("mIoU", 1.0, 4)

    heat = np.zeros((4, 5, 10, 14), np.float32)
    heat[:, :, 4, 4] = 1
    moved = np.roll(heat, 1, axis=2)
    moved[0, 0], moved[0, 1] = np.roll(heat[0, 0], 2, axis=1), np.roll(heat[0, 1], 5, axis=0)
    found = agree(Made(tiny("pose"), "raw", heat), Made(tiny("pose"), "raw", moved), paths)
    assert found == Agreement("keypoints", 18 / 20, 4)


@pytest.mark.parametrize(("precision", "times"), [("fp32", 0), ("fp16", 1)])
def test_an_fp16_file_is_checked_as_halves_compute_too(
    precision: Any, times: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime's CPU provider does not round between operators; other runtimes do."""
    rounded: list[onnx.ModelProto] = []

    def counted(graph: onnx.ModelProto) -> onnx.ModelProto:
        rounded.append(graph)
        return rounded_graph(graph)

    monkeypatch.setattr(checks, "rounded", counted)
    export_onnx(random_model(SPECS["classification"]), tmp_path / "x.onnx", OnnxOptions(precision=precision))
    assert len(rounded) == times


def test_too_little_agreement_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = random_model(SPECS["classification"])
    options = OnnxOptions(precision="int8")
    check = export_onnx(model, tmp_path / "a.onnx", options, PHOTOGRAPHS, min_agreement=0.5)
    assert check.agreement == Agreement("top-1", 1.0, 2)
    assert check.noise < 0.05
    monkeypatch.setattr(checks, "agreement", lambda *_: Agreement("top-1", 0.5, 2))
    with pytest.raises(VerificationError, match="found top-1 agreement of 0.500 on 2 images, expected at least 0.9"):
        export_onnx(model, tmp_path / "b.onnx", options, PHOTOGRAPHS, min_agreement=0.9)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize(
    ("task", "output", "precision"),
    [
        pytest.param("segmentation", "argmax", "int8", marks=pytest.mark.slow),
        pytest.param("pose", "joints", "fp16", marks=pytest.mark.slow),
        pytest.param("segmentation", "argmax", "fp16", marks=pytest.mark.slow),
        pytest.param("segmentation", "argmax", "fp32", marks=pytest.mark.slow),
        pytest.param("pose", "joints", "int8", marks=pytest.mark.slow),
        pytest.param("pose", "joints", "fp32", marks=pytest.mark.slow),
    ],
)
def test_dense_networks_with_everything_in_the_graph(task: str, output: Output, precision: Any, tmp_path: Path) -> None:
    model = random_model(tiny(task))
    path = tmp_path / "dense.onnx"
    options = OnnxOptions(precision=precision, preprocess=True, output=output, batch=(1, 2, 4))
    check = export_onnx(model, path, options, PHOTOGRAPHS)
    assert check.batch_sizes == (1, 2, 4)
    assert check.expected.shape == ((5, 3) if task == "pose" else (10, 14))
    network = OnnxNetwork.load(path)
    source = network.session.get_inputs()[0]
    assert (source.type, source.shape) == ("tensor(uint8)", ["batch", 40, 56, 3])
    (result,) = network.session.get_outputs()
    assert (result.name, result.type) == (
        ("joints", "tensor(float)") if task == "pose" else ("classes", "tensor(int32)")
    )
    # The network alone is in there, too.
    inner = OnnxNetwork.load_inner(path)
    assert compare_outputs(partial(run_torch, model), inner, PHOTOGRAPHS).metadata.options.output == "raw"
    assert compare_outputs(inner, network, PHOTOGRAPHS).relative < 1e-3
    nodes = onnx.load(path).graph.node
    assert sum(node.name.startswith("preprocess/") for node in nodes) == 4
    assert json.loads(network.metadata.entries()["scalenet_zoo.export"])["output"] == output
