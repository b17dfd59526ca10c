"""OpenVINO's IR: it computes what ONNX Runtime and the network compute, and invalid files are refused."""

import logging
import re
import resource
import shutil
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scalenet_zoo import create_model, evaluate, export_model, predict
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import BackendError, ExportError, InputError, OutputError, UsageError, VerificationError
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.inputs import file_input
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.export.openvino.convert import convert_onnx
from scalenet_zoo.export.openvino.ir_file import IrFile, weights_path
from scalenet_zoo.export.openvino.library import open_openvino
from scalenet_zoo.export.openvino.network import OpenVinoNetwork, bind_file, bind_graph
from scalenet_zoo.export.verify import TOLERANCES, compare_outputs, run_torch
from scalenet_zoo.models.opening import open_model
from tests.helpers.networks import random_model, shallow
from tests.helpers.random_specs import mbconv_specs
from tests.helpers.shapes import SPECS, Shapes

PHOTOGRAPHS = sample_photographs()
NETWORKS: dict[str, ArchSpec] = {
    **{str(task): spec for task, spec in SPECS.items()},
    "relu6, padding same": shallow("tf_efficientnet_lite0"),
    "bottom-up pose": shallow("higherhrnet_w32"),
}
SLOW = pytest.mark.slow
FORMS = {"classification": "softmax", "segmentation": "argmax", "pose": "joints"}

Exported = Callable[..., tuple[Path, Path]]
"""A function from a network's name and options to its ONNX file and its IR."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    made: dict[tuple[str, OnnxOptions], tuple[Path, Path]] = {}
    folder = tmp_path_factory.mktemp("openvino")

    def export(name: str = "classification", **options: Any) -> tuple[Path, Path]:
        key = (name, OnnxOptions(**options))
        if key not in made:
            source = folder / f"{len(made)}.onnx"
            export_onnx(random_model(NETWORKS[name]), source, key[1], PHOTOGRAPHS)
            convert_onnx(source, source.with_suffix(".xml"), lambda file: None)
            made[key] = source, source.with_suffix(".xml")
        return made[key]

    return export


@pytest.fixture
def pair(exported: Exported, tmp_path: Path) -> Path:
    """The two files of an IR, to be damaged."""
    _, ir = exported()
    shutil.copy(weights_path(ir), tmp_path / "a.bin")
    shutil.copy(ir, tmp_path / "a.xml")
    return tmp_path / "a.xml"


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        OpenVinoNetwork.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path.parent}/")


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest output."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --- what it computes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(exported: Exported) -> Callable[[str], tuple[OpenVinoNetwork, OnnxNetwork]]:
    @cache
    def both(name: str) -> tuple[OpenVinoNetwork, OnnxNetwork]:
        source, ir = exported(name)
        return OpenVinoNetwork.load(ir), OnnxNetwork.load(source)

    return both


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[SLOW] * (spec.task != "classification")) for name, spec in NETWORKS.items()]
)
@settings(max_examples=4)
@given(batch=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 10))
def test_it_computes_what_onnx_runtime_does(
    opened: Callable[[str], tuple[OpenVinoNetwork, OnnxNetwork]], name: str, batch: int, seed: int, scale: float
) -> None:
    ours, theirs = opened(name)
    assert ours.metadata == theirs.metadata
    images = np.random.default_rng(seed).normal(0, scale, (batch, *ours.metadata.image_shape)).astype(np.float32)
    found, expected = ours(images), theirs(images)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert off(found, expected) <= TOLERANCES["fp32"].largest


@pytest.mark.nightly
@settings(max_examples=6)
@given(spec=mbconv_specs(), seed=st.integers(0, 9))
def test_any_mbconv_network_computes_what_onnx_runtime_does(
    tmp_path_factory: pytest.TempPathFactory, spec: ArchSpec, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("random")
    model = random_model(spec)
    try:
        export_onnx(model, folder / "a.onnx")
    except VerificationError:  # of outputs that are all zero nothing can be told
        assume(False)
    reference = OnnxNetwork.load(folder / "a.onnx")
    ours = convert_onnx(folder / "a.onnx", folder / "a.xml", lambda file: file)
    images = np.random.default_rng(seed).standard_normal((3, *reference.metadata.image_shape), dtype=np.float32)
    np.testing.assert_allclose(ours(images), reference(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("classification", {"precision": "fp16"}),
        ("classification", {"precision": "fp16", "io": "fp16", "batch": (2, 2, 2)}),
        ("classification", {"precision": "int8", "target": "openvino"}),
        pytest.param("segmentation", {"precision": "fp16"}, marks=SLOW),
        pytest.param("segmentation", {"precision": "int8", "target": "openvino"}, marks=SLOW),
        pytest.param("pose", {"precision": "fp16", "io": "fp16", "batch": (2, 2, 2)}, marks=SLOW),
        pytest.param("pose", {"precision": "int8", "target": "openvino"}, marks=SLOW),
    ],
)
def test_other_precisions_keep_within_the_tolerances(exported: Exported, name: str, options: dict[str, Any]) -> None:
    _, ir = exported(name, **options)
    network = OpenVinoNetwork.load(ir)
    assert network.metadata.options.precision == options["precision"]
    check = compare_outputs(partial(run_torch, random_model(NETWORKS[name])), network, PHOTOGRAPHS)
    assert check.batch_sizes == ((2,) if "batch" in options else (1, 2, 3))
    size, whole = (weights_path(path).stat().st_size for path in (ir, exported(name)[1]))
    assert size < (0.55 if options["precision"] == "fp16" else 0.45) * whole


@pytest.mark.parametrize(
    "name", ["classification", pytest.param("segmentation", marks=SLOW), pytest.param("pose", marks=SLOW)]
)
def test_bytes_in_and_decisions_out(exported: Exported, name: Any) -> None:
    source, ir = exported(name, preprocess=True, output=FORMS[name], batch=(1, 2, 4))
    ours, theirs = OpenVinoNetwork.load(ir), OnnxNetwork.load(source)
    assert ours.metadata == theirs.metadata
    images = file_input(ours.metadata, PHOTOGRAPHS, 4)
    assert images.dtype == np.uint8
    found, expected = ours(images), theirs(images)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.mean(np.abs(found - expected) > 1e-4) < 0.01  # a pixel between two classes may fall to either
    compare_outputs(partial(run_torch, random_model(NETWORKS[name])), ours, PHOTOGRAPHS)


def test_a_batch_is_bound_once(exported: Exported) -> None:
    source, ir = exported()
    reference = OnnxNetwork.load(source)
    images = torch.randn(3, *reference.metadata.image_shape)
    for run in (bind_file(ir, images), bind_graph(source, images, 1, "fp32")):
        first = run()
        place, before = first.data_ptr(), first.clone()
        assert off(before.numpy(), reference(images.numpy())) < 1e-4
        images.mul_(-3)  # others in the same memory
        again = run()
        assert again.data_ptr() == place
        assert off(again.numpy(), reference(images.numpy())) < 1e-4
        assert not torch.equal(again, before)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_runs_on_the_threads_that_torch_has(exported: Exported, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compiled = OpenVinoNetwork.load(exported()[1]).compiled
    finally:
        torch.set_num_threads(before)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"  # never bf16, whatever the CPU has
    assert not compiled.get_property("ENABLE_CPU_PINNING")


def test_predictions_and_evaluations_are_those_of_the_onnx_file(exported: Exported) -> None:
    source, ir = exported()
    assert isinstance(open_model(ir), OpenVinoNetwork)
    ours, theirs = (predict(path, PHOTOGRAPHS) for path in (ir, source))
    for one, other in zip(ours, theirs, strict=True):
        assert [row["class"] for row in one.rows or []] == [row["class"] for row in other.rows or []]
    data = Shapes("classification", 24)
    figures = [evaluate(path, data, batch_size=5, workers=0).metrics for path in (ir, source)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


# --- exports --------------------------------------------------------------------------------------


def test_a_network_is_exported_and_checked(tmp_path: Path) -> None:
    model = random_model(SPECS["classification"]).train()
    made = export_model(model, tmp_path / "new" / "a.xml", "openvino", with_softmax=True, batch=(1, 2, 4))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.bin", "a.xml"]
    assert dict(made.files) == {"openvino": tmp_path / "new" / "a.xml", "openvino_weights": tmp_path / "new" / "a.bin"}
    check = made.verification
    assert check is not None
    assert (check.runtime, check.batch_sizes, check.params) == ("OpenVINO", (1, 2, 4), check.params)
    assert check.relative < 1e-5
    assert check.exported_ms > 0
    assert model.training
    assert OpenVinoNetwork.load(tmp_path / "new" / "a.xml").metadata.options.output == "softmax"


def test_int8_is_made_for_openvino(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, photograph in enumerate(PHOTOGRAPHS):
        (tmp_path / "images").mkdir(exist_ok=True)
        shutil.copy(photograph, tmp_path / "images" / f"{i}.jpg")
    model = random_model(SPECS["classification"])
    made = export_model(
        model, tmp_path / "a.xml", "openvino", precision="int8", calibration=tmp_path / "images", min_agreement=0.5
    )
    assert made.verification is not None
    assert made.verification.agreement is not None
    assert made.verification.agreement.images == 2
    assert IrFile.read(tmp_path / "a.xml").metadata.options.target == "openvino"
    assert "made for" not in caplog.text


@pytest.mark.parametrize("target", ["ort-cpu", pytest.param("tensorrt", marks=SLOW)])
def test_int8_for_another_back_end_is_converted_with_a_warning(
    exported: Exported, target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, _ = exported(precision="int8", target=target)
    with caplog.at_level(logging.WARNING):
        made = export_model(source, tmp_path / "a.xml", "openvino")
    assert f"{source.name}: found int8 made for {target}, which may be slow" in caplog.text
    assert made.verification is None
    network = OpenVinoNetwork.load(tmp_path / "a.xml")
    compare_outputs(partial(run_torch, random_model(SPECS["classification"])), network, PHOTOGRAPHS)


def test_an_onnx_file_is_converted_under_its_name(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported()[0], tmp_path / "mine.onnx")
    made = export_model("mine.onnx", to="openvino")
    assert made.files["openvino"] == Path("mine.xml")
    assert OpenVinoNetwork.load("mine.xml").metadata == Metadata.read("mine.onnx")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"output": "a.onnx"}, "`output`: found a.onnx, expected a name for OpenVINO's IR, NAME.xml"),
        ({"model": "x.xml", "to": "onnx"}, "`to`: found onnx for the file x.xml, expected a network's name"),
        ({"model": "x.xml", "to": "openvino"}, "`to`: found openvino for the file x.xml"),
        ({"model": "x.xml", "to": "triton"}, "`to`: found triton for the file x.xml"),
        (
            {"model": "x.onnx", "batch": 2},
            "`batch`: found it with the file x.onnx, expected none, since the file has its own",
        ),
        ({"workspace": 2}, "`workspace`: found it with `to` openvino, expected it with `to` tensorrt or tensorrt-rtx"),
    ],
)
def test_arguments_that_do_not_fit_one_another_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        export_model(**{"model": SPECS["classification"], "to": "openvino", **arguments})
    assert str(caught.value).startswith(complaint)


def test_a_failed_check_leaves_the_files_of_before(
    pair: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in pair.parent.iterdir()}
    source, _ = exported("relu6, padding same")

    def fail(file: OpenVinoNetwork) -> None:
        raise VerificationError("it is wrong")

    with pytest.raises(VerificationError, match="it is wrong"):
        convert_onnx(source, pair, fail)
    assert {path.name: path.read_bytes() for path in pair.parent.iterdir()} == before


def test_a_network_that_openvino_would_change_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a fault of OpenVINO's: outputs that are off by a little."""
    real = OpenVinoNetwork.__call__
    monkeypatch.setattr(OpenVinoNetwork, "__call__", lambda self, images: real(self, images) * 1.01)
    with pytest.raises(VerificationError, match=r"found outputs that differ by .* in fp32"):
        export_model(random_model(SPECS["classification"]), tmp_path / "a.xml", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(exported: Exported, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    source, _ = exported("relu6, padding same")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
    try:
        with pytest.raises(OutputError, match=r"a.xml: cannot be written by OpenVINO: "):
            convert_onnx(source, tmp_path / "a.xml", lambda file: file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported) -> None:
    """The package is hidden, as on a machine without the extra."""
    _, ir = exported()
    monkeypatch.setattr("scalenet_zoo.core.backends.find_spec", lambda name: None)
    open_openvino.cache_clear()
    told = r"^openvino: cannot be used on this machine: no package openvino: pip install 'scalenet-zoo\[openvino\]'$"
    try:
        with pytest.raises(BackendError, match=told):
            export_model(create_model(SPECS["classification"]), tmp_path / "a.xml", "openvino")
        with pytest.raises(BackendError, match=told):
            OpenVinoNetwork.load(ir)
        assert IrFile.read(ir).metadata.spec == SPECS["classification"]  # which needs none
    finally:
        open_openvino.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('libtbb.so.12: cannot open it')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino")
    open_openvino.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"^openvino: cannot be loaded: libtbb.so.12: cannot open it$"):
            open_openvino()
    finally:
        open_openvino.cache_clear()


def test_an_operator_that_openvino_does_not_know(exported: Exported, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(exported()[0])
    model.graph.node[0].op_type = "Unheard"
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"a.onnx: cannot be converted by OpenVINO: No conversion rule .* Unheard"):
        convert_onnx(tmp_path / "a.onnx", tmp_path / "a.xml", lambda file: file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


# --- files that are refused -----------------------------------------------------------------------


def edited(path: Path, pattern: str, replacement: str) -> Path:
    text = path.read_text(encoding="utf-8")
    new = re.sub(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert new != text
    path.write_text(new, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"<net .*", "", "a.xml: cannot be read as XML: no element found"),
        (r"</net>.*", "", "a.xml: cannot be read as XML: no element found"),
        (r'version="11"', 'version="10"', "a.xml: found 'net' of version '10', expected 'net' of version '11'"),
        (r"<net name", "<annotation name", "a.xml: found 'annotation' of version '11', expected 'net' of version"),
        (r"<net ", '<!DOCTYPE net [<!ENTITY a "b">]><net ', "a.xml: found the document type 'net', expected none"),
        (r"<rt_info>.*</rt_info>", "", "a.xml: found no spec in its metadata, expected a file that `export` wrote"),
        (r"<scalenet_zoo.preprocessing[^>]*>", "", "a.xml: found no preprocessing in its metadata"),
        (r"(<scalenet_zoo.spec [^>]*>)", r"\1\1", "a.xml: found the key 'scalenet_zoo.spec' twice in its metadata"),
        (r"&quot;classification&quot;", "&quot;pose&quot;", "a.xml: "),
        (r'(spec_hash value=")....', r"\1ffff", "a.xml: found the spec's hash 'ffff"),
        (r'(weights_sha256 value=")....', r"\1ffff", "a.bin: found other weights, expected those that belong to a.xml"),
        (r"<scalenet_zoo.weights_sha256[^>]*>", "", "a.xml: found '' as the sha256 of its weights, expected 64 digits"),
        (r'offset="0" size="\d+"', 'offset="0" size="99999999"', "a.bin: found"),
        (r'offset="0"', 'offset="-1"', "a.xml: weights: offset: found '-1', expected a number of bytes"),
        (
            r'names="image"',
            'names="picture"',
            "a.xml: input: found picture, fp32 of anyx3x32x32 in the graph, expected",
        ),
        (r'shape="\?,3,32,32"', 'shape="?,3,32,33"', "a.xml: input: found image, fp32 of anyx3x32x33 in the graph"),
        (r'shape="\?,3,32,32"', 'shape="2,3,32,32"', "a.xml: input: found image, fp32 of 2x3x32x32 in the graph"),
        (r'shape="\?,3,32,32"', 'shape="..."', "a.xml: input: found image, fp32 of one in the graph, expected"),
        (r'element_type="f32"', 'element_type="i32"', "a.xml: "),
        (r'type="Convolution"', 'type="Konvolution"', "a.xml: cannot be opened by OpenVINO: Opset opset1 doesn't"),
        (r'strides="\d, \d"', 'strides="0, 0"', "a.xml: cannot be opened by OpenVINO: "),
        (r'encoding="[^"]*"|1.0"', '1.0" encoding="martian"', "a.xml: cannot be read as XML: found an"),
    ],
)
def test_changed_files_are_refused(pair: Path, pattern: str, replacement: str, complaint: str) -> None:
    assert refusal(edited(pair, pattern, replacement)).startswith(complaint)


def test_missing_or_incomplete_weights_are_refused(pair: Path, exported: Exported) -> None:
    weights = weights_path(pair)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert refusal(pair).startswith(f"a.bin: found {len(content) - 1:,} bytes, expected at least {len(content):,}")
    shutil.copy(weights_path(exported("relu6, padding same")[1]), weights)
    assert refusal(pair) == "a.bin: found other weights, expected those that belong to a.xml"
    weights.unlink()
    assert refusal(pair) == "a.bin: cannot be read: No such file or directory; a.xml needs this file for its weights"
    weights.mkdir()
    assert refusal(pair) == "a.bin: is a directory, expected a file; a.xml needs this file for its weights"


def test_files_that_are_too_large_are_not_read(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 1000)
    with pytest.raises(BackendError, match=r"a.bin: its weights: found that it takes .* of memory"):
        OpenVinoNetwork.load(pair)
    monkeypatch.setattr("scalenet_zoo.export.openvino.ir_file.IR_BYTES", 100)
    assert "bytes, expected at most 100" in refusal(pair)


def test_outputs_are_those_that_the_metadata_describe(exported: Exported) -> None:
    network = OpenVinoNetwork.load(exported()[1])
    with pytest.raises(InputError, match=r"^tiny: cannot be run by OpenVINO: .*incompatible$"):
        network(np.zeros((1, 3, 32, 33), np.float32))
