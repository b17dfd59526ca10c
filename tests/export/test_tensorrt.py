"""TensorRT engines: real ones, of TensorRT-RTX, which needs no GPU to build them."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from scalenet_zoo import load_spec
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import BackendError, EngineError, InputError
from scalenet_zoo.core.files import SCRATCH, replacing
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.export.tensorrt import build as tensorrt
from scalenet_zoo.export.tensorrt import library as tensorrt_library
from scalenet_zoo.export.tensorrt import network as engine_network
from scalenet_zoo.export.tensorrt.build import EngineNetwork, build_engine, check_engine
from scalenet_zoo.export.tensorrt.record import Device, EngineOptions, EngineRecord, read_engine, record_path
from tests.helpers.networks import random_model, small
from tests.helpers.onnx_files import quantised_convolution, tiny

RTX = EngineOptions(library="tensorrt-rtx", compute_capabilities=("8.9", "12.0"))
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

pytest.importorskip("tensorrt_rtx")


# --- real engines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(s0: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineRecord]:
    path = tmp_path_factory.mktemp("engine") / "new" / "scalenet_s0.engine"
    record = build_engine(s0, path, RTX)
    assert sorted(file.name for file in path.parent.iterdir()) == ["scalenet_s0.engine", "scalenet_s0.engine.json"]
    return path, record


@pytest.fixture
def engine(built: tuple[Path, EngineRecord], tmp_path: Path) -> Path:
    """A copy of an engine, which a test may damage."""
    folder = tmp_path / "engine"
    shutil.copytree(built[0].parent, folder)
    return folder / built[0].name


def test_a_record_says_what_the_engine_is(built: tuple[Path, EngineRecord], s0: Path) -> None:
    path, record = built
    spec = load_spec("scalenet_s0")
    assert check_engine(path) == record == EngineRecord.load(record_path(path))
    assert (record.library, record.precision, record.batch) == ("tensorrt-rtx", "fp32", (1, 8, 32))
    assert record.profiles[0].largest == (32, 3, 64, 96)
    assert record.options.compute_capabilities == ("8.9", "12.0")
    assert record.device is None
    assert record.spec_hash == record.metadata.spec.hash == spec.hash
    assert record.metadata.interface == OnnxNetwork.load(s0).metadata.interface
    assert path.stat().st_size == record.engine_bytes
    summary = record.summary
    assert summary is not None
    assert summary.source == "builder"
    # Batch norms are folded: what is left of the parameters is on the GPU, rounded up a little for each tensor.
    assert summary.weights_bytes is not None
    assert 0.98 < summary.weights_bytes / (4 * spec.cost.params) < 1.01
    assert summary.activation_bytes is not None
    assert summary.activation_bytes > 32 * 4 * 3 * 64 * 96
    assert sum(row[3] for row in summary.rows()) == len(summary.layers) > 50
    assert {kind for layer in summary.layers for kind in layer.reads + layer.writes} == {"fp32"}
    assert {name for layer in summary.layers for name in layer.model_dump()} == {"name", "type", "reads", "writes"}


def shallow(name: str) -> ArchSpec:
    """A multipath network of the zoo with one module a stage."""
    spec = small(name)
    assert spec.network.type == "multipath"
    modules = tuple({len(module.depth): module for module in spec.network.modules}.values())
    network = spec.network.model_copy(update={"modules": modules})
    return ArchSpec.create(name, spec.task, spec.input, spec.classes, network, spec.provenance)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("scalenet_s0", marks=pytest.mark.slow),
        pytest.param("shallow", marks=pytest.mark.slow),
        pytest.param("hrnet_w18_pose", marks=pytest.mark.nightly),
    ],
)
def test_engines_in_three_precisions_for_two_kinds_of_gpu(name: str, s0: Path, tmp_path: Path) -> None:
    """TensorRT-RTX keeps the source of its kernels, a large text; only compressed files are as small as promised."""
    model = random_model(shallow("hrnet_w18_pose") if name == "shallow" else small(name))
    options = RTX.model_copy(update={"compress": True})
    records: dict[Precision, EngineRecord] = {}
    for precision in PRECISIONS:
        file = tmp_path / f"{precision}.onnx"
        if (name, precision) == ("scalenet_s0", "fp32"):
            shutil.copy(s0, file)  # exported already
        else:
            how = OnnxOptions(precision=precision, target="tensorrt-rtx" if precision == "int8" else None)
            export_onnx(model, file, how, calibration=sample_photographs())
        records[precision] = build_engine(file, file.with_suffix(".engine"), options)
    for key, record in records.items():
        assert record.precision == key
        assert check_engine(tmp_path / f"{key}.engine") == record
        assert record.summary is not None
        computed = [layer for layer in record.summary.layers if layer.type in ("correlation", "gemm")]
        assert len(computed) > 30
        assert all(key in layer.reads for layer in computed)
    weights = {key: record.summary.weights_bytes for key, record in records.items() if record.summary}
    assert weights["fp16"] / weights["fp32"] < 0.505  # type: ignore[operator]
    assert weights["int8"] / weights["fp32"] < 0.31  # type: ignore[operator]
    assert records["fp16"].engine_bytes / records["fp32"].engine_bytes < 0.55
    assert records["int8"].engine_bytes / records["fp32"].engine_bytes < 0.35


def test_an_engine_for_every_gpu_from_ampere_on(s0: Path, tmp_path: Path) -> None:
    options = EngineOptions(library="tensorrt-rtx", hardware_compatible=True, batch=(2, 2, 2), level=0)
    record = build_engine(s0, tmp_path / "any.engine", options)
    assert record.options == options
    assert record.mismatches(record.tensorrt, Device(name="A100", compute_capability="8.0")) == []
    assert record.mismatches(record.tensorrt, Device(name="Titan RTX", compute_capability="7.5")) == [
        "it was built for compute capability 8.0 or later, but the GPU here is Titan RTX (compute capability 7.5)"
    ]


def test_a_compressed_engine_holds_the_same_plan(tmp_path: Path) -> None:
    path = tmp_path / "small.engine"
    options = RTX.model_copy(update={"compress": True})
    record = build_engine(tiny(tmp_path / "tiny.onnx"), path, options)
    _, plan = read_engine(path)
    assert len(plan) > 2 * record.engine_bytes
    with path.open("rb") as file:
        assert subprocess.run(["gzip", "-dc"], stdin=file, capture_output=True, check=True).stdout == plan


def test_files_from_elsewhere_and_fixed_batches(tmp_path: Path) -> None:
    record = build_engine(tiny(tmp_path / "tiny.onnx", batch=4), tmp_path / "tiny.engine", RTX)
    assert (record.batch, record.spec_hash, record.entries) == ((4, 4, 4), None, {})
    with pytest.raises(InputError, match="found no spec in its metadata"):
        _ = record.metadata
    with pytest.raises(EngineError, match=r"batch: found 1:4:4, expected 4:4:4 or within it, as in .*tiny.onnx"):
        build_engine(tmp_path / "tiny.onnx", tmp_path / "x.engine", RTX.model_copy(update={"batch": (1, 4, 4)}))
    assert not (tmp_path / "x.engine").exists()


def test_a_file_exported_for_some_batches_takes_no_others(s0: Path, tmp_path: Path) -> None:
    model = onnx.load(s0)
    helper.set_model_props(
        model, {e.key: e.value for e in model.metadata_props} | {"scalenet_zoo.export": '{"batch": [2, 4, 8]}'}
    )
    onnx.save(model, tmp_path / "range.onnx")
    assert build_engine(tmp_path / "range.onnx", tmp_path / "range.engine", RTX).batch == (2, 4, 8)
    with pytest.raises(EngineError, match="batch: found 2:4:16, expected 2:4:8 or within it"):
        build_engine(tmp_path / "range.onnx", tmp_path / "x.engine", RTX.model_copy(update={"batch": (2, 4, 16)}))


# --- an existing engine ---------------------------------------------------------------------------


def test_an_engine_is_kept_or_is_stale_or_is_built_again(engine: Path, s0: Path, tmp_path: Path) -> None:
    before = engine.stat().st_mtime_ns
    record = build_engine(s0, engine, RTX.model_copy(update={"batch": (1, 8, 32)}))  # as it is without being asked for
    assert engine.stat().st_mtime_ns == before
    stale = RTX.model_copy(update={"compute_capabilities": ("8.6",), "level": 2})
    with pytest.raises(
        EngineError,
        match=r"scalenet_s0.engine: is stale: level was None, is 2; compute_capabilities was 8.9,12.0, is 8.6;"
        r" pass --rebuild to build it again$",
    ):
        build_engine(s0, engine, stale)
    assert check_engine(engine) == record
    assert build_engine(s0, engine, stale, rebuild=True).options.level == 2
    assert check_engine(engine).options.compute_capabilities == ("8.6",)
    other = tiny(tmp_path / "tiny.onnx")
    with pytest.raises(EngineError, match="is stale: the ONNX file has changed; pass --rebuild"):
        build_engine(other, engine, stale)


def test_a_damaged_engine_is_built_again_only_on_demand(engine: Path, s0: Path) -> None:
    engine.write_bytes(b"damaged")
    with pytest.raises(EngineError, match="the file is incomplete; pass --rebuild to build it again$"):
        build_engine(s0, engine, RTX)
    assert engine.read_bytes() == b"damaged"
    build_engine(s0, engine, RTX, rebuild=True)
    check_engine(engine)


def test_external_data_are_part_of_the_onnx_file(tmp_path: Path) -> None:
    model = onnx.load(tiny(tmp_path / "tiny.onnx", ("Relu",)))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 3, 4, 5), np.float32), "w"))
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["image", "w"], ["output"]))
    path = tmp_path / "large.onnx"
    onnx.save(model, path, save_as_external_data=True, location="large.onnx.data", size_threshold=0)
    build_engine(path, tmp_path / "x.engine", RTX)
    (tmp_path / "large.onnx.data").write_bytes(np.zeros(60, np.float32).tobytes())
    with pytest.raises(EngineError, match="is stale: the ONNX file has changed"):
        build_engine(path, tmp_path / "x.engine", RTX)
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(
        InputError, match=r"large.onnx: external data in 'large.onnx.data': cannot be read: No such file"
    ):
        build_engine(path, tmp_path / "y.engine", RTX)


# --- tampering ------------------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_bytes_are_refused(built: tuple[Path, EngineRecord], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(built[0].read_bytes())
    if data.draw(st.booleans(), "truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "bytes")]
        expected = "expected 2[0-9,]+: the file is incomplete"
    else:
        content[data.draw(st.integers(0, len(content) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
        expected = r"found other bytes, expected those that belong to scalenet_s0.engine.json"
    path = tmp_path / "scalenet_s0.engine"
    path.write_bytes(content)
    shutil.copy(record_path(built[0]), record_path(path))
    with pytest.raises(EngineError, match=f"scalenet_s0.engine: .*{expected}"):
        check_engine(path)


def change(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[::-1] if value[::-1] != value else value + "0"
        case list():
            return value[:-1]
        case dict():
            key = next(reversed(value))
            return value | {key: change(value[key])}
        case _:
            return "something"


def test_no_field_of_a_record_can_be_changed(engine: Path) -> None:
    text = record_path(engine).read_text()
    record = json.loads(text)
    for field in record:
        record_path(engine).write_text(json.dumps(record | {field: change(record[field])}))
        with pytest.raises(EngineError, match=r"scalenet_s0.engine.json: \w+"):
            check_engine(engine)
        record_path(engine).write_text(json.dumps({key: record[key] for key in record if key != field}))
        if field not in ("format", "version", "scalenet_zoo"):  # which have one value, here
            with pytest.raises(EngineError, match=r"scalenet_s0.engine.json: \w+"):
                check_engine(engine)
    for spoilt in (text[:-20], "", "[]", text.replace("{", '{"more": 1, ', 1)):
        record_path(engine).write_text(spoilt)
        with pytest.raises(EngineError, match=r"scalenet_s0.engine.json: "):
            check_engine(engine)
    record_path(engine).unlink()
    with pytest.raises(EngineError, match=r"scalenet_s0.engine.json: cannot be read: No such file"):
        check_engine(engine)
    engine.unlink()
    with pytest.raises(EngineError, match=r"scalenet_s0.engine: cannot be read: No such file"):
        check_engine(engine)


def resealed(path: Path, **changes: object) -> None:
    """Give an engine the record that another machine would have written."""
    record = EngineRecord.load(record_path(path)).model_copy(update=changes)
    record.sealed().save(record_path(path))


PLAN = b"".join(i.to_bytes(2) for i in range(2**12))
"""8 KiB that gzip compresses to little."""


@pytest.mark.parametrize(
    ("content", "plan_bytes", "complaint"),
    [
        (gzip.compress(PLAN), len(PLAN), None),
        (gzip.compress(PLAN), None, None),  # records of before do not have it
        (gzip.compress(PLAN), len(PLAN) + 1, "found a plan of 8,192 bytes, expected 8,193"),
        (gzip.compress(PLAN), len(PLAN) - 1, "found more than 8,191 bytes when decompressed"),
        (gzip.compress(bytes(2**26)), 2**26, "found more than 4,1[0-9]{2},[0-9]{3} bytes when decompressed"),
        (gzip.compress(bytes(2**26)), None, "found more than 4,1[0-9]{2},[0-9]{3} bytes when decompressed"),
        (gzip.compress(PLAN)[:-9], None, "cannot be decompressed: the file does not end with its gzip stream"),
        (gzip.compress(PLAN) + b"more", None, "cannot be decompressed: the file does not end with its gzip stream"),
        (gzip.compress(PLAN)[:-8] + bytes(8), None, "cannot be decompressed: Error -3"),
        (PLAN, None, "cannot be decompressed: Error -3"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value)[:40],
)
def test_a_compressed_engine_is_as_large_as_its_record_says(
    content: bytes, plan_bytes: int | None, complaint: str | None, engine: Path
) -> None:
    engine.write_bytes(content)
    resealed(
        engine,
        engine_sha256=hashlib.sha256(content).hexdigest(),
        engine_bytes=len(content),
        plan_bytes=plan_bytes,
        options=RTX.model_copy(update={"compress": True}),
    )
    if complaint is None:
        assert read_engine(engine)[1] == PLAN
        return
    with pytest.raises(EngineError, match=rf"scalenet_s0.engine: {complaint}"):
        read_engine(engine)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_engines_and_records_are_regular_files(make: Callable[[Path], object], engine: Path) -> None:
    for path in (record_path(engine), engine):
        path.unlink()
        make(path)
        with pytest.raises(EngineError, match=rf"{path.name}: is (a directory|not a regular file), expected"):
            check_engine(engine)


def test_an_engine_whose_images_differ_from_its_spec_is_refused(engine: Path) -> None:
    profile = EngineRecord.load(record_path(engine)).profiles[0]
    resealed(engine, profiles=(profile.model_copy(update={"largest": (32, 3, 64, 64)}),))
    with pytest.raises(InputError, match=r"found images of shape \(3, 64, 64\), expected \(3, 64, 96\), as in its"):
        _ = check_engine(engine).metadata


class Timings:
    """Stands for a builder's configuration: it takes timings that begin with "good", as TensorRT takes its own."""

    def __init__(self) -> None:
        self.kept = b"?"

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content if content.startswith(b"good") or not content else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.kept = cache
        return not ignore_mismatch


@pytest.mark.parametrize(
    ("write", "kept"),
    [
        (lambda path: path.write_bytes(b"good"), b"good"),
        (lambda path: path.write_bytes(b"damaged"), b""),
        (lambda path: None, b""),
        (Path.mkdir, b""),
        (os.mkfifo, b""),
    ],
    ids=["good", "damaged", "missing", "directory", "pipe"],
)
def test_timings_that_cannot_be_read_are_made_again(
    write: Callable[[Path], object], kept: bytes, tmp_path: Path
) -> None:
    write(tmp_path / "a.timings")
    config = Timings()
    tensorrt._load_timings(config, tmp_path / "a.timings")
    assert config.kept == kept


def test_another_version_of_the_library_is_refused(engine: Path) -> None:
    resealed(engine, tensorrt="1.6.0")
    version = tensorrt_library.open_library("tensorrt-rtx").version
    with pytest.raises(
        EngineError,
        match=f"cannot run here: it was built by tensorrt-rtx 1.6.0, but {version} is installed here: build",
    ):
        check_engine(engine)


def test_another_gpu_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = Device(name="NVIDIA L4", compute_capability="8.9")
    monkeypatch.setattr(engine_network, "find_gpu", lambda: ada)
    assert check_engine(engine).options.compute_capabilities == ("8.9", "12.0")
    hopper = Device(name="NVIDIA H200", compute_capability="9.0")
    monkeypatch.setattr(engine_network, "find_gpu", lambda: hopper)
    with pytest.raises(
        EngineError,
        match=r"it was built for compute capability 8.9, 12.0, but the GPU here is NVIDIA H200 \(compute capability 9",
    ):
        check_engine(engine)


# --- what cannot be built -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": (8, 1, 32)}, "batch: found 8:1:32, expected ascending sizes of 1 or more"),
        ({"batch": (0, 1, 2)}, "batch: found 0:1:2, expected"),
        ({"workspace_mib": 0}, "workspace: found 0 MiB, expected at least 1"),
        ({"level": 6}, "level: found 6, expected 0 to 5"),
        ({"library": "tensorrt"}, "compute capability: found it with tensorrt, expected it only with tensorrt-rtx"),
        ({"hardware_compatible": True}, "found it with hardware-compatible, expected one of the two"),
        (
            {"version_compatible": True},
            "version-compatible: found it with tensorrt-rtx, expected it only with tensorrt",
        ),
        (
            {"compute_capabilities": ("8.9", "9.0")},
            r"compute capability: found '9.0', expected some of 7.5, 8.0, 8.6, 8.9, 12.0",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=message):
        build_engine(tiny(tmp_path / "tiny.onnx"), tmp_path / "x.engine", RTX.model_copy(update=options))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.onnx"]


def with_shape(path: Path, shape: list[int | str]) -> None:
    model = onnx.load(tiny(path))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(model, path)


def with_two_outputs(path: Path) -> None:
    model = onnx.load(tiny(path))
    model.graph.output.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, None))
    onnx.save(model, path)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "operators": (
        lambda path: tiny(path, ("Relu", "Foo", "Neg", "Bar")),
        "cannot be read by tensorrt-rtx: Foo 'node_1': no such operator; Bar 'node_3': no such operator$",
    ),
    "truncated": (lambda path: path.write_bytes(tiny(path).read_bytes()[:-20]), "cannot be read as ONNX: the file is"),
    "text": (lambda path: path.write_text("hello"), "cannot be read as ONNX"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as ONNX: found no graph in it"),
    "missing": (lambda path: None, "cannot be read: No such file or directory"),
    "outputs": (with_two_outputs, "found 1 inputs and 2 outputs, expected one of each"),
    "axes": (
        lambda path: with_shape(path, ["n", 3, "h", 5]),
        "image: found an axis without a fixed size, expected fixed sizes except for the batch",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_files_that_make_no_engine(kind: str, tmp_path: Path) -> None:
    write, message = SPOILT[kind]
    path = tmp_path / "spoilt.onnx"
    write(path)
    with pytest.raises((EngineError, InputError), match=f"spoilt.onnx: {message}") as error:
        build_engine(path, tmp_path / "new" / "x.engine", RTX)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["spoilt.onnx"][: path.exists()]


@pytest.mark.parametrize("extra", [{"QuantizeBias": True}, {"ActivationSymmetric": False}])
def test_quantised_forms_that_tensorrt_does_not_know(extra: dict[str, bool], tmp_path: Path) -> None:
    build_engine(quantised_convolution(tmp_path / "good.onnx"), tmp_path / "good.engine", RTX)
    path = quantised_convolution(tmp_path / "odd.onnx", **extra)
    with pytest.raises(
        EngineError, match=r"odd.onnx: cannot be read by tensorrt-rtx: (Quantize|Dequantize)Linear '[\w.]+': "
    ) as error:
        build_engine(path, tmp_path / "x.engine", RTX)
    assert "\n" not in str(error.value)
    assert "driver" not in str(error.value)
    assert not (tmp_path / "x.engine").exists()


def test_the_builders_errors_are_reported(s0: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"scalenet_s0.onnx: cannot be built by tensorrt-rtx: .*OutOfMemory"):
        build_engine(s0, tmp_path / "x.engine", RTX.model_copy(update={"workspace_mib": 1}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_the_message_says_how_to_get_what_is_missing(s0: Path, engine: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BackendError,
        match=r"tensorrt-rtx: cannot be used on this machine: .*GPU.*: install a driver; or build for other machines:"
        r" --compute-capability \(of 7.5,8.0,8.6,8.9,12.0[0-9.,]*\) or --hardware-compatible$",
    ):
        build_engine(s0, tmp_path / "x.engine", EngineOptions(library="tensorrt-rtx"))
    with pytest.raises(BackendError, match=r"tensorrt-rtx: cannot be used on this machine: no NVIDIA GPU"):
        EngineNetwork.load(engine)
    tensorrt_library.open_library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", None)
        patch.setattr("scalenet_zoo.core.backends.find_spec", lambda name: None)
        with pytest.raises(BackendError, match=r"no package tensorrt: pip install 'scalenet-zoo\[tensorrt\]'$"):
            build_engine(s0, tmp_path / "x.engine")
        patch.setattr("scalenet_zoo.core.backends.find_spec", lambda name: "there, but broken")
        with pytest.raises(BackendError, match=r"tensorrt: cannot be loaded: .*tensorrt"):
            build_engine(s0, tmp_path / "x.engine")


# --- interruptions --------------------------------------------------------------------------------


def test_progress_is_reported(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(tiny(tmp_path / "tiny.onnx"), tmp_path / "x.engine", RTX, lambda *step: told.append(step))
    phases = {phase: [step for name, step, _ in told if name == phase] for phase, _, _ in told}
    assert "Building engine" in phases
    assert all(0 <= step <= steps for _, step, steps in told)
    assert all(steps[0] == 0 and steps[-1] > 0 for steps in phases.values())


def test_an_error_while_progress_is_reported_stops_the_builder(s0: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def fail(phase: str, step: int, steps: int) -> None:
        told.append(phase)
        if len(told) == 50:
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_engine(s0, tmp_path / "x.engine", RTX, fail)
    assert len(told) == 50
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import signal, sys
from pathlib import Path
from scalenet_zoo.export.tensorrt.build import EngineOptions, build_engine
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
def wait(phase, step, steps):
    if step == 1:
        print("half way", flush=True)
        sys.stdin.readline()  # returns at once where it is closed
build_engine(sys.argv[1], Path(sys.argv[2]), EngineOptions(library="tensorrt-rtx", compute_capabilities=("8.9",)), wait)
"""


def start_build(onnx_path: Path, path: Path) -> subprocess.Popen[str]:
    """Another process that is in the middle of a build, once this returns, until its input is closed."""
    arguments, pipe = [sys.executable, "-c", PROGRAM, str(onnx_path), str(path)], subprocess.PIPE
    process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "half way\n":
        pytest.fail(process.communicate()[1])
    return process


def test_an_interrupt_stops_the_builder(s0: Path, tmp_path: Path) -> None:
    process = start_build(s0, tmp_path / "x.engine")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_engine(s0: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    process = start_build(s0, path)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert all(file.name.startswith(SCRATCH) for file in tmp_path.iterdir())
    record = build_engine(s0, path, RTX)
    assert check_engine(path) == record
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.engine", "x.engine.json"]


@pytest.mark.nightly
def test_two_builds_of_one_engine_at_once(s0: Path, tmp_path: Path) -> None:
    """They meet in the middle, and continue at the same time."""
    path = tmp_path / "x.engine"
    processes = [start_build(s0, path) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    check_engine(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.engine", "x.engine.json"]


def test_two_writers_of_a_pair_of_files_do_not_mix_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first writer is held up between its two files: the second must not come in between."""
    first = threading.Event()
    replace = Path.replace

    def slow_replace(self: Path, target: Path) -> Path:
        result = replace(self, target)
        if not first.is_set():
            first.set()
            time.sleep(0.3)
        return result

    monkeypatch.setattr(Path, "replace", slow_replace)

    def write(writer: str) -> None:
        with replacing(tmp_path / "pair.engine") as temporary:
            temporary.write_text(writer)
            temporary.with_name("pair.engine.json").write_text(writer)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in ("one", "two")]
    threads[0].start()
    first.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "pair.engine").read_text() == (tmp_path / "pair.engine.json").read_text() == "two"


FULL = """
import resource, signal, sys
from scalenet_zoo.core.errors import OutputError
from scalenet_zoo.export.tensorrt.build import EngineOptions, build_engine
if sys.argv[3] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    build_engine(sys.argv[1], sys.argv[2], EngineOptions(library="tensorrt-rtx", compute_capabilities=("8.9",)))
except OutputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_large_file(s0: Path, tmp_path: Path) -> None:
    """A separate process may write files of at most 1 MB."""
    arguments = [sys.executable, "-c", FULL, str(s0), str(tmp_path / "x.engine"), "limit"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert result.stdout == f"{tmp_path / 'x.engine'}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(s0: Path, tmp_path: Path) -> None:
    """A real one: a file system of 4 MB, in a process that may mount one."""
    mount = "unshare --user --map-root-user --mount"
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && "$2" -c "$3" "$4" "$1/x.engine" disk && ls -A "$1"'
    if subprocess.run([*mount.split(), "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    arguments = ["sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL, str(s0)]
    result = subprocess.run([*mount.split(), *arguments], capture_output=True, text=True, check=True)
    assert result.stdout == f"{tmp_path / 'x.engine'}: cannot be written: No space left on device\n"
