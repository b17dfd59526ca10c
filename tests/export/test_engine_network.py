"""Engines for the GPU here: a fake of `tensorrt` builds and runs them, in each version; with a GPU, the real one.

The fake's engines run on the CPU, and the host's memory stands for the GPU's.
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from scalenet_zoo import create_model
from scalenet_zoo.core.errors import EngineError, VerificationError
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.export.tensorrt import build as tensorrt
from scalenet_zoo.export.tensorrt import library as tensorrt_library
from scalenet_zoo.export.tensorrt import network as engine_network
from scalenet_zoo.export.tensorrt.build import EngineNetwork, build_engine, check_engine
from scalenet_zoo.export.tensorrt.record import Device, EngineOptions, read_engine
from scalenet_zoo.export.tensorrt.summary import EngineSummary
from scalenet_zoo.export.verify import Comparison, compare_outputs, run_torch
from tests.helpers.fake_tensorrt import HERE, fake_tensorrt, read_header
from tests.helpers.networks import random_model, randomise, small
from tests.helpers.onnx_files import tiny
from tests.helpers.tensorrt_bindings import VERSIONS, find_bindings, read_bindings, read_signatures


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, fake_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fake of `tensorrt` in each of the versions whose members are known."""
    module = fake_tensorrt(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.mark.parametrize("folder", find_bindings() or [None])
def test_the_members_of_the_fake_are_those_of_the_real_bindings(folder: Path | None) -> None:
    if folder is None:
        pytest.skip("no package of TensorRT's bindings: install tensorrt-cu13-bindings, or set TENSORRT_BINDINGS")
    version, members = read_bindings(folder)
    assert members == read_signatures().get(version, members)
    used = fake_tensorrt(version, members=members)  # a version that is not known yet must have what is used
    assert {"Builder", "IBuilderConfig", "OnnxParser", "Runtime", "ICudaEngine"} <= set(vars(used))


def test_versions_10_and_11_differ_as_their_bindings_do() -> None:
    old, new = (fake_tensorrt(version) for version in VERSIONS[-2:])
    assert (old.__version__.split(".")[0], new.__version__.split(".")[0]) == ("10", "11")
    assert {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= set(old.BuilderFlag.__members__)
    assert not {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} & set(new.BuilderFlag.__members__)
    assert "EXPLICIT_BATCH" in old.NetworkDefinitionCreationFlag.__members__
    assert list(new.NetworkDefinitionCreationFlag.__members__)[-1] == "STRONGLY_TYPED"
    with pytest.raises(AttributeError, match="has no attribute int8_calibrator"):
        new.Builder(new.ILogger()).create_builder_config().int8_calibrator = None


def test_an_engine_for_the_gpu_here(trt: Any, s0: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    record = build_engine(s0, path)
    header = read_header(path.read_bytes())
    assert header["network"] == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert header["flags"] == []  # no TF32: fp32 is fp32
    assert header["profiles"] == [[[1, 3, 64, 96], [8, 3, 64, 96], [32, 3, 64, 96]]]
    assert (header["level"], header["hardware"], header["capabilities"]) == (3, "NONE", [])
    assert (record.tensorrt, record.device, record.batch) == (trt.__version__, HERE, (1, 8, 32))
    summary = record.summary
    assert summary is not None
    assert summary.source == "inspector"
    assert {(layer.reads, layer.writes) for layer in summary.layers} == {(("fp32",), ("fp32",))}
    assert len(summary.layers) == len(onnx.load(s0).graph.node)
    assert summary.weights_bytes is None if trt.__version__ == "10.1.0" else summary.weights_bytes
    assert summary.activation_bytes == 4096
    assert check_engine(path) == record


def test_options_reach_the_builder(trt: Any, s0: Path, tmp_path: Path) -> None:
    options = EngineOptions(
        batch=(2, 3, 4), workspace_mib=64, level=5, version_compatible=True, hardware_compatible=True
    )
    build_engine(s0, tmp_path / "x.engine", options)
    header = read_header((tmp_path / "x.engine").read_bytes())
    assert (header["flags"], header["hardware"]) == (["VERSION_COMPATIBLE"], "AMPERE_PLUS")
    assert (header["level"], header["profiles"][0][1]) == (5, [3, 3, 64, 96])
    with pytest.raises(
        EngineError, match=r"cannot be built by tensorrt: OutOfMemory \(Requested size was 2097152 bytes.\)"
    ):
        build_engine(s0, tmp_path / "y.engine", EngineOptions(workspace_mib=1))


def test_timings_are_kept_for_a_version_and_a_gpu(trt: Any, tmp_path: Path) -> None:
    onnx_path = tiny(tmp_path / "tiny.onnx", ("Relu", "Neg", "Relu"))

    def timed() -> int:
        build_engine(onnx_path, tmp_path / "x.engine", rebuild=True)
        return int(read_header((tmp_path / "x.engine").read_bytes())["timed"])

    assert (timed(), timed()) == (2, 0)
    (kept,) = (tmp_path / "cache").rglob("*.timings")
    assert kept.name == f"{trt.__version__}_NVIDIA-Fake-4000_8.9.timings"
    kept.write_bytes(b"damaged")
    assert (timed(), timed()) == (2, 0)
    trt.__version__ = "12.0.0"
    tensorrt_library.open_library.cache_clear()
    assert timed() == 2
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder")  # timings that cannot be kept are no failure
    assert (timed(), timed()) == (2, 2)


def test_an_engine_computes_what_its_onnx_file_does(trt: Any, s0: Path, tmp_path: Path) -> None:
    build_engine(s0, tmp_path / "x.engine")
    network = EngineNetwork.load(tmp_path / "x.engine")
    exported = OnnxNetwork.load(s0)
    assert (network.spec, network.metadata.interface) == (exported.spec, exported.metadata.interface)
    generator = np.random.default_rng(0)
    for size in (1, 5, 1, 32):
        images = generator.standard_normal((size, 3, 64, 96), dtype=np.float32)
        output = network(images)
        np.testing.assert_allclose(output, exported(images), rtol=1e-4, atol=1e-5)
        again = network(images + 1)
        assert not np.allclose(output, again)  # an output of its own, not the engine's memory
    for shape in ((33, 3, 64, 96), (1, 3, 96, 64), (3, 64, 96)):
        with pytest.raises(
            EngineError, match=r"images: found the shape \(.*\), expected \(1, 3, 64, 96\) to \(32, 3, 64"
        ):
            network(np.zeros(shape, np.float32))


def test_a_bound_batch_stays_where_it_is(trt: Any, s0: Path, tmp_path: Path) -> None:
    build_engine(s0, tmp_path / "x.engine")
    network = EngineNetwork.load(tmp_path / "x.engine")
    images = torch.randn(2, 3, 64, 96)
    run = network.bind(images)
    output = run()
    before = output.clone()
    images.copy_(torch.randn(2, 3, 64, 96))
    assert run() is output
    assert not torch.equal(output, before)
    np.testing.assert_allclose(output.numpy(), network(images.numpy()), rtol=1e-4, atol=1e-5)
    other = network.bind(torch.randn(3, 3, 64, 96).half())  # of another type: a copy
    assert other().shape == (3, 1000)
    np.testing.assert_allclose(run().numpy(), network(images.numpy()), rtol=1e-4, atol=1e-5)


def test_an_engine_is_checked_before_it_appears(trt: Any, s0: Path, tmp_path: Path) -> None:
    """As `export` does: against the network, on photographs, in the engine's smallest, optimal and largest batch."""
    path = tmp_path / "new" / "x.engine"
    right, wrong = random_model(small("scalenet_s0")), randomise(create_model(small("scalenet_s0")), seed=1).eval()

    def check(model: torch.nn.Module, network: EngineNetwork) -> Comparison:
        return compare_outputs(partial(run_torch, model), network, sample_photographs())

    options = EngineOptions(batch=(2, 3, 4))
    with pytest.raises(VerificationError, match="scalenet_s0: found outputs that differ"):
        build_engine(s0, path, options, check=partial(check, wrong))
    assert list(path.parent.iterdir()) == []
    seen: list[Comparison] = []
    record = build_engine(s0, path, options, check=lambda network: seen.append(check(right, network)))
    assert seen[0].batch_sizes == record.batch == (2, 3, 4)
    with pytest.raises(VerificationError, match="scalenet_s0: found outputs that differ"):
        build_engine(s0, path, options, check=partial(check, wrong))  # it would be kept, but not unchecked
    assert check_engine(path) == record


@pytest.mark.parametrize("compatible", [True, False])
def test_only_version_compatible_engines_run_in_later_versions(
    trt: Any, compatible: bool, s0: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.engine"
    version = trt.__version__
    major = version.split(".")[0]
    build_engine(s0, path, EngineOptions(version_compatible=compatible))

    def load(here: str) -> EngineNetwork:
        trt.__version__ = here
        tensorrt_library.open_library.cache_clear()
        return EngineNetwork.load(path)

    load(version)
    for here in (f"{major}.99.0", f"{int(major) + 1}.99.0", f"{major}.0.0"):
        if compatible and here == f"{major}.99.0":
            load(here)
        else:
            with pytest.raises(
                EngineError, match=f"it was built by tensorrt {version}, but {here} is installed here: build it again"
            ):
                load(here)


@pytest.mark.parametrize("compatible", [True, False])
def test_only_hardware_compatible_engines_run_on_other_gpus(
    trt: Any, compatible: bool, s0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.engine"
    build_engine(s0, path, EngineOptions(hardware_compatible=compatible))
    for name, capability, runs in (
        (HERE.name, "8.9", True),
        ("NVIDIA Fake 5000", "8.9", compatible),
        ("NVIDIA Fake 9000", "12.0", compatible),
        ("NVIDIA Fake 2000", "7.5", False),
    ):
        device = Device(name=name, compute_capability=capability)
        monkeypatch.setattr(engine_network, "find_gpu", lambda device=device: device)
        if runs:
            check_engine(path)
        else:
            with pytest.raises(
                EngineError, match=rf"cannot run here: it was built for .*, but the GPU here is {name} \("
            ):
                check_engine(path)


def test_the_reason_why_tensorrt_refuses_an_engine_is_reported(trt: Any, s0: Path, tmp_path: Path) -> None:
    build_engine(s0, tmp_path / "x.engine")
    record, plan = read_engine(tmp_path / "x.engine")
    library = tensorrt_library.open_library("tensorrt")
    with pytest.raises(
        EngineError, match=r"x: cannot be opened by tensorrt: .*Serialization \(Version tag does not match\)"
    ):
        EngineNetwork.open(record, plan.replace(trt.__version__.encode(), b"9.9.9", 1), library, "x")


def test_the_gpu_here_with_tensorrt_rtx(
    fake_gpu: None, s0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the members of the real `tensorrt_rtx`; its kernels are compiled for the batch that is bound."""
    import tensorrt_rtx

    classes = {name: kind for name, kind in vars(tensorrt_rtx).items() if isinstance(kind, type)}
    members = {name: [m for m in dir(kind) if not m.startswith("_")] for name, kind in classes.items()}
    module = fake_tensorrt(tensorrt_rtx.__version__, "tensorrt_rtx", members)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    record = build_engine(s0, tmp_path / "x.engine", EngineOptions(library="tensorrt-rtx"))
    header = read_header((tmp_path / "x.engine").read_bytes())
    assert (header["capabilities"], header["timed"], record.device) == (["CURRENT"], 0, HERE)
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96), dtype=np.float32)
    found = EngineNetwork.load(tmp_path / "x.engine")(images)
    np.testing.assert_allclose(found, OnnxNetwork.load(s0)(images), rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "cache").exists()


def test_an_inspectors_report_is_read() -> None:
    """Layers as TensorRT 10's documentation shows them, and layers of an engine that keeps only their names."""
    layer = {
        "Name": "conv1",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Four wide channel vectorized row major Int8 format"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized row major FP16 format"}],
    }

    class Inspector:
        def get_engine_information(self, form: object) -> str:
            return json.dumps({"Layers": [layer, "conv2"], "Bindings": []})

    class Engine:
        device_memory_size_v2 = 1

        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    summary = EngineSummary.inspect(fake_tensorrt(VERSIONS[0]), Engine())
    assert summary.rows() == [("", "", "", 1), ("CaskConvolution", "int8", "fp16", 1)]
    assert EngineSummary.listen(["Total Weights Memory: 5 bytes"]) is None


# --- a real GPU -----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_on_a_gpu(name: Any, precision: Any, tmp_path: Path) -> None:
    pytest.importorskip(name.replace("-", "_"))
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    library = tensorrt_library.open_library(name)
    if name == "tensorrt-rtx" and capability not in tensorrt._supported_capabilities(library):
        pytest.skip(f"TensorRT-RTX does not know compute capability {capability}")
    model = random_model(small("scalenet_s0"))
    photographs = sample_photographs()
    options = OnnxOptions(precision=precision, target=name if precision == "int8" else None)
    export_onnx(model, tmp_path / "x.onnx", options, calibration=photographs)
    record = build_engine(
        tmp_path / "x.onnx",
        tmp_path / "x.engine",
        EngineOptions(library=name, batch=(1, 4, 8)),
        check=lambda network: compare_outputs(partial(run_torch, model), network, photographs),
    )
    assert record.summary is not None
    assert record.summary.source == "inspector"
    assert record.summary.weights_bytes
    network = EngineNetwork.load(tmp_path / "x.engine")
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 96), dtype=np.float32)
    expected = network(images)
    static = torch.zeros(4, 3, 64, 96, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        run = network.bind(static)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = run()
        static.copy_(torch.from_numpy(images))
        graph.replay()
        torch.cuda.synchronize()
    np.testing.assert_allclose(output.float().cpu().numpy(), expected, rtol=1e-3, atol=1e-4)
