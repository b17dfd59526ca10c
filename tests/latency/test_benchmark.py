"""Latencies: the statistics, the order of visits, the back ends (each computes what the network does), the command."""

import gc
import json
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scalenet_zoo import load_spec
from scalenet_zoo.core import backends
from scalenet_zoo.core.errors import BackendError, InputError
from scalenet_zoo.core.timing import MeasuredLatency, Ratio, Timing, measure, run_for
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.openvino.convert import convert_onnx
from scalenet_zoo.export.openvino.library import compile_model
from scalenet_zoo.export.tensorrt.build import EngineOptions, build_engine
from scalenet_zoo.export.verify import run_torch
from scalenet_zoo.latency import runners
from scalenet_zoo.latency.cases import BenchmarkResult, measure_cases, plan
from scalenet_zoo.latency.plot import plot_latencies
from scalenet_zoo.latency.runners import Runner, gpu_providers, open_runner
from tests.helpers.command import Run
from tests.helpers.networks import random_model, small
from tests.helpers.onnx_files import tiny, with_external_data
from tests.helpers.shapes import SPECS

QUICK = Timing(warmup=0, seconds=0, runs=2, visits=2)
milliseconds = st.floats(min_value=1e-3, max_value=1e5)
visits = st.lists(st.lists(milliseconds, min_size=1, max_size=20), min_size=1, max_size=5)


# --- statistics -----------------------------------------------------------------------------------


def test_percentiles_of_known_runs() -> None:
    latency = MeasuredLatency.of([[float(n) for n in range(51)], [float(n) for n in range(51, 101)]])
    assert latency == MeasuredLatency(
        median=50, p90=90, p95=95, p99=99, fastest=0, visits=(25, 75.5), spread=(25, 75.5), runs=101
    )


@given(visits)
def test_statistics_are_of_all_runs(of_visits: list[list[float]]) -> None:
    latency = MeasuredLatency.of(of_visits)
    runs = sorted(run for visit in of_visits for run in visit)
    assert latency.runs == len(runs)
    assert latency.fastest == runs[0]
    assert latency.median == pytest.approx(statistics.median(runs))
    assert latency.fastest <= latency.median <= latency.p90 <= latency.p95 <= latency.p99 <= runs[-1]
    for share, value in ((0.9, latency.p90), (0.95, latency.p95), (0.99, latency.p99)):
        assert sum(run <= value * (1 + 1e-9) for run in runs) >= share * (len(runs) - 1)
    assert latency.visits == tuple(pytest.approx(statistics.median(visit)) for visit in of_visits)
    assert latency.spread == (min(latency.visits), max(latency.visits))


@given(visits, st.floats(min_value=0.01, max_value=100), st.data())
def test_a_ratio_does_not_see_the_drift_of_the_machine(
    of_visits: list[list[float]], factor: float, data: st.DataObject
) -> None:
    drift = [data.draw(st.floats(min_value=0.2, max_value=5)) for _ in of_visits]
    other = MeasuredLatency.of([[run * speed for run in visit] for visit, speed in zip(of_visits, drift, strict=True)])
    ours = MeasuredLatency.of(
        [[run * speed * factor for run in visit] for visit, speed in zip(of_visits, drift, strict=True)]
    )
    ratio = Ratio.of(ours, other)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((factor,) * 3)


def test_a_ratio_is_the_median_over_pairs_of_visits() -> None:
    ours, other = MeasuredLatency.of([[2.0], [9.0], [4.0]]), MeasuredLatency.of([[1.0], [3.0], [4.0]])
    assert Ratio.of(ours, other) == Ratio(median=2.0, low=1.0, high=3.0)
    with pytest.raises(ValueError, match="shorter"):
        Ratio.of(ours, MeasuredLatency.of([[1.0]]))


# --- timing ---------------------------------------------------------------------------------------


class FakeRunner:
    """A stand-in for a network, which reports a given time for every run, and logs that it ran."""

    def __init__(self, name: str, ms: float, log: list[str]) -> None:
        self.name, self.ms, self.log = name, ms, log

    def lap(self) -> float:
        self.log.append(self.name)
        return self.ms


@pytest.mark.parametrize(
    ("ms", "seconds", "runs", "expected"),
    [(10, 1.0, 1, 100), (10, 0.0, 7, 7), (10, 0.05, 100, 100), (300, 1.0, 2, 4), (5, 0.0, 1, 1)],
)
def test_runs_take_the_least_time_and_number(ms: float, seconds: float, runs: int, expected: int) -> None:
    log: list[str] = []
    assert run_for(FakeRunner("a", ms, log), seconds, runs) == [ms] * expected
    assert len(log) == expected


def test_networks_are_visited_in_turn_after_a_warm_up() -> None:
    log: list[str] = []
    told: list[tuple[int, int]] = []
    three = [FakeRunner(name, ms, log) for name, ms in (("a", 10), ("b", 20), ("c", 50))]
    timing = Timing(warmup=1.0, seconds=0.9, runs=12, visits=3)
    found = measure(three, timing, lambda done, total: told.append((done, total)))
    assert [latency.runs for latency in found] == [90, 45, 18]
    assert [latency.visits for latency in found] == [(10, 10, 10), (20, 20, 20), (50, 50, 50)]
    blocks = [log[0]]
    for name in log:
        blocks += [name] * (blocks[-1] != name)
    assert "".join(blocks) == "abc" + "abc" + "ba" + "bc"  # warm-up; then each order begins where the one before ended
    counts = {name: log.count(name) for name in "abc"}
    # 1 s of warm-up, then three times a tenth of it and a third of 0.9 s
    assert counts == {"a": 100 + 3 * (10 + 30), "b": 50 + 3 * (5 + 15), "c": 20 + 3 * (2 + 6)}
    assert told == [(done, 9) for done in range(10)]


def test_few_slow_runs_are_still_as_many_as_asked_for() -> None:
    assert measure([FakeRunner("slow", 10_000, [])], Timing(warmup=0, seconds=3, runs=100, visits=3))[0].runs == 102


def test_garbage_is_not_collected_while_timing() -> None:
    class Watching(FakeRunner):
        def lap(self) -> float:
            seen.append(gc.isenabled())
            if len(seen) == 5:
                raise InterruptedError
            return 1.0

    seen: list[bool] = []
    assert gc.isenabled()
    with pytest.raises(InterruptedError):
        measure([Watching("a", 1, [])], QUICK)
    assert not any(seen)
    assert gc.isenabled()


# --- back ends ------------------------------------------------------------------------------------


class Block(nn.Module):
    """A few layers, as a latency model measures them; copies report the number of threads that they ran with."""

    threads: ClassVar[list[int]] = []

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            self.threads.append(torch.get_num_threads())
        return nn.functional.silu(self.norm(self.conv(x)))


def block_output(block: Block, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        output: torch.Tensor = block.eval()(images)
    return output.numpy()


ON_CPU = ["torch", "ort-cpu", "openvino", pytest.param("torch-compile", marks=pytest.mark.slow)]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("scalenet_s0", "torch"),
        ("scalenet_s0", "ort-cpu"),
        pytest.param("scalenet_s0", "openvino", marks=pytest.mark.slow),
        pytest.param("scalenet_s0", "torch-compile", marks=pytest.mark.nightly),
        ("scalenas_p1", "torch"),
        pytest.param("scalenas_p1", "ort-cpu", marks=pytest.mark.nightly),
        pytest.param("scalenas_p1", "openvino", marks=pytest.mark.nightly),
    ],
)
def test_a_runner_computes_what_the_network_does(name: str, backend: str) -> None:
    model = random_model(small(name))
    images = torch.randn(2, 3, 64, 96)
    expected = run_torch(model, images.numpy())
    with open_runner(model, images, backend, threads=1) as runner:
        assert runner.device == torch.device("cpu")
        assert runner.lap() > 0
        for _ in range(2):  # again and again
            np.testing.assert_allclose(runner(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_few_layers_run_too_and_are_left_as_they_are(backend: str) -> None:
    block = Block().train()
    images = torch.randn(3, 4, 9, 7)
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with open_runner(block, images, backend) as runner:
        found = runner()
    assert block.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in block.state_dict().items())
    np.testing.assert_allclose(found, block_output(block, images), atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "ort-cpu", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_precision_and_the_order_of_the_axes_change_little(backend: str, precision: Any) -> None:
    block = Block()
    images = torch.randn(2, 4, 16, 16)
    expected = block_output(block, images)
    with open_runner(block, images.to(memory_format=torch.channels_last), backend, precision=precision) as runner:
        assert runner.step().dtype == (torch.float32 if precision == "fp32" else torch.float16)
        np.testing.assert_allclose(runner(), expected, atol=1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.nightly
def test_many_compiled_networks_of_one_class_stay_compiled() -> None:
    with ExitStack() as stack:
        images = torch.randn(1, 4, 8, 8)
        blocks = [Block(channels) for channels in range(4, 15)]  # more than torch compiles one function for
        prepared = [stack.enter_context(open_runner(block, images, "torch-compile", threads=1)) for block in blocks]
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for block, runner in zip(blocks, prepared, strict=True):
            np.testing.assert_allclose(runner(), block_output(block, images), atol=1e-5)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
        assert compiled >= len(blocks)


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_runs_on_the_threads_asked_for_and_gets_its_own_back(threads: int) -> None:
    before = torch.get_num_threads()
    block = Block()
    with open_runner(block, torch.randn(1, 4, 8, 8), "torch", threads=threads) as runner:
        Block.threads.clear()
        runner.lap()
        assert (runner.threads, runner.interop_threads) == (threads, torch.get_num_interop_threads())
    assert Block.threads == [threads]
    assert torch.get_num_threads() == before
    with pytest.raises(BackendError), open_runner(block, torch.randn(1, 3, 8, 8), "torch", threads=threads):
        pass
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_runs_on_the_threads_asked_for(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = onnxruntime.InferenceSession

    def session(*arguments: Any, **keywords: Any) -> Any:
        opened.append(real(*arguments, **keywords))
        return opened[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with open_runner(Block(), torch.randn(1, 4, 8, 8), "ort-cpu", threads=threads) as runner:
        assert (runner.threads, runner.interop_threads) == (threads, 1)
    options = opened[0].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert opened[0].get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_runs_on_the_threads_asked_for(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def compile_and_keep(*arguments: Any) -> Any:
        compiled.append(compile_model(*arguments))
        return compiled[-1]

    monkeypatch.setattr("scalenet_zoo.export.openvino.network.compile_model", compile_and_keep)
    with open_runner(Block(), torch.randn(1, 4, 8, 8), "openvino", threads=threads) as runner:
        assert (runner.threads, runner.interop_threads, runner.device.type) == (threads, 1, "cpu")
    assert compiled[0].get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled[0].get_property("NUM_STREAMS") == 1


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("tried to allocate 3 GiB\nand a second line")


@pytest.mark.parametrize(
    ("model", "backend", "precision", "message"),
    [
        (Broken(), "torch", "fp32", "torch: cannot run Broken with a batch of 1x4x8x8: tried to allocate 3 GiB"),
        (
            Block(),
            "ort-cuba",
            "fp32",
            "ort-cuba: found no such back end, expected one of torch, torch-compile, ort-cpu,",
        ),
        (Path("a.onnx"), "torch", "fp32", "torch: found the file a.onnx, expected a network: torch runs no such files"),
        (Path("a.onnx"), "ort-cpu", "fp32", "ort-cpu: cannot run a.onnx with a batch of 1x4x8x8: [ONNXRuntimeError]"),
        (Path("a.onnx"), "openvino", "fp32", "openvino: cannot run a.onnx with a batch of 1x4x8x8: "),
    ],
)
def test_a_network_that_cannot_run_says_so_in_one_line(model: Any, backend: str, precision: Any, message: str) -> None:
    with (
        pytest.raises(BackendError) as caught,
        open_runner(model, torch.randn(1, 4, 8, 8), backend, precision=precision),
    ):
        pass
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@without_gpu
@pytest.mark.parametrize("backend", ["ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_a_back_end_that_is_not_there_says_what_is_missing(backend: str) -> None:
    with (
        pytest.raises(BackendError, match=rf"^{backend}: cannot run on this machine: .*install ") as caught,
        open_runner(Block(), torch.randn(1, 4, 8, 8), backend),
    ):
        pass
    assert "\n" not in str(caught.value)


@without_gpu
def test_a_provider_whose_libraries_are_missing_is_found_out() -> None:
    assert "provider lacks a library, or has the wrong version: pip install" in (backends._does_not_load("CUDA") or "")
    assert "'tensorrt<11'" in (backends._does_not_load("Tensorrt") or "")


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    described = backends.machine()
    assert set(described) == {"cpu", "cores", "gpu", "driver", "system", "versions", "date"}
    assert described["cores"] == os.cpu_count()
    json.dumps(described)
    fake = tmp_path / "nvidia-smi"  # a fake of NVIDIA's program
    fake.write_text("#!/bin/sh\necho 580.65.06\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backends.driver_version() == "580.65.06"
    fake.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert backends.driver_version() is None
    monkeypatch.setenv("PATH", "")
    assert backends.driver_version() is None


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "s0.onnx"
    export_onnx(random_model(small("scalenet_s0")), path)
    return path


# --- GPUs: what can be tested without one, with fakes -------------------------------------------------


def test_onnxruntime_providers_for_a_gpu(tmp_path: Path) -> None:
    ((name, cuda),) = gpu_providers(1234, "fp32", None, capture=True)
    assert name == "CUDAExecutionProvider"
    assert cuda == {"user_compute_stream": "1234", "enable_cuda_graph": True, "use_tf32": False}
    (first, tensorrt), (second, cuda) = gpu_providers(1234, "fp16", tmp_path / "engines", capture=True)
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert not cuda["enable_cuda_graph"]  # TensorRT's graph is the whole
    assert tensorrt["trt_cuda_graph_enable"]
    assert tensorrt["trt_fp16_enable"]
    assert not tensorrt["trt_int8_enable"]
    assert tensorrt["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert tensorrt["user_compute_stream"] == cuda["user_compute_stream"] == "1234"
    options = dict(gpu_providers(1234, "int8", tmp_path, capture=False))
    assert options["TensorrtExecutionProvider"]["trt_int8_enable"]
    assert not options["TensorrtExecutionProvider"]["trt_cuda_graph_enable"]


def test_engines_are_kept_by_graph_weights_versions_and_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_tensorrt = SimpleNamespace(__version__="10.13.2")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake GPU/80 GB")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = runners.engine_cache(b"graph")
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "scalenet-zoo" / "ort-tensorrt")
    assert folder.parent.name == f"onnxruntime-{onnxruntime.__version__}_tensorrt-10.13.2_Fake-GPU-80-GB"
    assert runners.engine_cache(b"graph") == folder != runners.engine_cache(b"grape")
    file = tiny(tmp_path / "a.onnx")
    assert runners.engine_cache(str(file)) == runners.engine_cache(file.read_bytes())
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(16))
    with_external_data(file, location="weights")
    before = runners.engine_cache(str(file))
    weights.write_bytes(bytes(15) + b"1")
    assert runners.engine_cache(str(file)) != before
    fake_tensorrt.__version__ = "10.14.1"
    assert runners.engine_cache(b"graph") != folder


class FakeCuda:
    """A stand-in for torch.cuda, with events that know when they were recorded, and graphs that replay a capture."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capturable: bool = True) -> None:
        self.clock, self.capturable, self.capturing = 0.0, capturable, False
        self.log: list[str] = []
        for name in ("Event", "CUDAGraph", "graph", "stream", "synchronize", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def kernel(self) -> torch.Tensor:
        """Work of 3 ms."""
        if self.capturing and not self.capturable:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.clock += 3
        self.log.append("captured" if self.capturing else "kernel")
        return torch.tensor([self.clock])

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        event = SimpleNamespace(at=0.0, synchronize=lambda: self.log.append("synchronize"))
        event.record = lambda: setattr(event, "at", self.clock)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=lambda: self.log.append("replay"))

    @contextmanager
    def graph(self, graph: object, stream: object) -> Iterator[None]:
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False

    def stream(self, stream: object) -> Any:
        return nullcontext()

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def current_stream(self) -> str:
        return "stream"


def test_a_lap_on_a_gpu_is_timed_by_events_on_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    stream: Any = SimpleNamespace(synchronize=lambda: cuda.log.append("stream synchronized"))
    runner = Runner(cuda.kernel, torch.device("cuda"), 1, 1, stream)
    assert runner.lap() == 3.0
    assert cuda.log == ["kernel", "synchronize"]
    assert runner() == [6.0]
    assert cuda.log[2:] == ["kernel", "stream synchronized"]


def test_a_step_is_replayed_where_it_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    step, graph = runners._captured(cuda.kernel)
    assert graph
    assert cuda.log == ["kernel"] * 3 + ["synchronize", "captured"]
    assert step() is step()  # the graph's own memory
    assert cuda.log[5:] == ["replay", "replay"]


def test_a_step_that_cannot_be_captured_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, capturable=False)
    step, graph = runners._captured(cuda.kernel)
    assert not graph
    assert step == cuda.kernel


def test_transfers_bring_the_images_and_take_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())  # a fake: pinned memory needs a GPU
    images = torch.arange(3.0)
    step = runners._with_transfers(lambda: 2 * images, images)
    images.zero_()
    assert step().tolist() == [0, 2, 4]
    assert images.tolist() == [0, 1, 2]
    assert step() is step()


@pytest.mark.parametrize("capturable", [True, False])
def test_onnxruntime_captures_a_graph_where_it_can(capturable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=1234))
    asked = []
    fake_step: Any = object()

    def fake_bound_session(graph: object, images: object, providers: Any, threads: int) -> Any:
        asked.append(providers[0][1]["enable_cuda_graph"])
        if asked[-1] and not capturable:
            raise RuntimeError("all compute graph nodes have not been partitioned to the CUDAExecutionProvider")
        return fake_step

    monkeypatch.setattr(runners, "_bound_session", fake_bound_session)
    images: Any = SimpleNamespace(is_cuda=True)
    assert runners._session_step(b"graph", images, "ort-cuda", 2, "fp32") == (fake_step, capturable)
    assert asked == ([True] if capturable else [True, False])


@pytest.mark.parametrize("kind", [pytest.param("network", marks=pytest.mark.slow), "onnx", "engine"])
def test_an_engine_is_built_from_other_models(kind: str, monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    built: list[Path] = []

    def fake_build_engine(onnx_path: Path, path: Path, options: EngineOptions) -> None:
        onnx.checker.check_model(onnx.load(onnx_path))
        assert (options.library, options.batch) == ("tensorrt-rtx", (3, 3, 3))
        built.append(onnx_path)
        path.write_text("an engine")

    def fake_load(path: Path) -> Any:
        assert kind == "engine" or path.read_text() == "an engine"
        return SimpleNamespace(bind=lambda images: lambda: images + 1)

    monkeypatch.setattr("scalenet_zoo.export.tensorrt.build.build_engine", fake_build_engine)
    monkeypatch.setattr("scalenet_zoo.export.tensorrt.build.EngineNetwork", SimpleNamespace(load=fake_load))
    models: dict[str, nn.Module | Path] = {"network": Block().eval(), "onnx": exported, "engine": Path("x.engine")}
    images = torch.zeros(3, 4, 8, 8)
    with ExitStack() as stack:
        assert torch.equal(runners._engine_step(models[kind], images, "tensorrt-rtx", stack)(), images + 1)
        assert len(built) == (kind != "engine")
        if kind == "onnx":
            assert built == [exported]
    assert all(path == exported or not path.parent.exists() for path in built)  # no temporary files stay


@pytest.mark.gpu
@pytest.mark.parametrize("transfers", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["torch", "torch-compile", "ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_a_runner_on_a_gpu_computes_what_the_network_does(backend: str, precision: Any, transfers: bool) -> None:
    if not backends.find_backend(backend).ready:
        pytest.skip(backends.find_backend(backend).about)
    model = random_model(small("scalenet_s0"))
    images = torch.randn(2, 3, 64, 96)
    expected = run_torch(model, images.numpy())
    with open_runner(model, images.cuda(), backend, precision=precision, transfers=transfers) as runner:
        assert runner.device.type == "cuda"
        assert runner.step().device.type == ("cpu" if transfers else "cuda")
        run_for(runner, 0.1)
        tolerance = (1e-3 if precision == "fp32" else 5e-2) * np.abs(expected).max()
        np.testing.assert_allclose(runner(), expected, atol=tolerance)
        if backend == "torch":
            assert runner.graph


@pytest.mark.gpu
def test_transfers_cost_time_on_a_gpu() -> None:
    block = Block()
    images = torch.randn(64, 4, 256, 256, device="cuda")
    with (
        open_runner(block, images, "torch") as without,
        open_runner(block, images, "torch", transfers=True) as including,
    ):
        first, second = measure([without, including], Timing(0.1, 0.2, 10, 2))
    assert second.median > 1.5 * first.median


# --- benchmarks -----------------------------------------------------------------------------------


def test_a_plan_has_every_combination() -> None:
    models = ["scalenet_s0", "efficientnet_b0"]
    lists = plan(models, ["torch", "ort-cpu"], batches=[1, 8], sizes=[(64, 96), (32, 32)], precisions=["fp32", "fp16"])
    assert len(lists) == 4  # sizes and batches
    assert all(len(cases) == 8 for cases in lists)
    found = [
        (c.subject.spec.input.height, c.batch, c.backend, c.subject.name, c.precision) for cases in lists for c in cases
    ]
    assert len(set(found)) == 32
    assert [entry[:2] for entry in found[::8]] == [(64, 1), (64, 8), (32, 1), (32, 8)]
    assert [entry[2:] for entry in found[:5]] == [
        ("torch", "scalenet_s0", "fp32"),
        ("torch", "scalenet_s0", "fp16"),
        ("torch", "efficientnet_b0", "fp32"),
        ("torch", "efficientnet_b0", "fp16"),
        ("ort-cpu", "scalenet_s0", "fp32"),
    ]
    own = plan(["efficientnet_b1"], ["torch"])[0][0]
    assert (own.subject.spec, own.batch, own.precision) == (load_spec("efficientnet_b1"), 1, "fp32")
    assert own.images().shape == (1, 3, 240, 240)


def test_networks_and_files_are_measured_in_turn(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cases,) = plan(["scalenet_s0", str(exported)], ["ort-cpu"], batches=[2])
    cases[0] = replace(cases[0], subject=replace(cases[0].subject, spec=small("scalenet_s0")))
    told: list[str] = []
    network, file = measure_cases(
        cases, threads=1, timing=QUICK, on_progress=lambda what, done, total: told.append(what)
    )
    assert told[:2] == ["preparing scalenet_s0 on ort-cpu", "preparing s0.onnx on ort-cpu"]
    assert set(told[2:]) == {"measuring"}
    assert (network.model, file.model) == ("scalenet_s0", "s0.onnx")
    for result in (network, file):
        assert (result.backend, result.device, result.precision, result.threads, result.interop_threads) == (
            "ort-cpu", "CPU", "fp32", 1, 1,
        )  # fmt: skip
        assert (result.batch, result.height, result.width) == (2, 64, 96)
        assert (result.macs, result.params) == (small("scalenet_s0").cost.macs, small("scalenet_s0").cost.params)
        assert result.throughput == pytest.approx(2000 / result.latency.median)
        assert (result.graph, result.transfers, result.channels_last) == (False, False, False)
        assert len(result.latency.visits) == 2
    assert network.ratio == Ratio(1, 1, 1)
    assert file.ratio == Ratio.of(file.latency, network.latency)


def test_a_batch_that_memory_cannot_hold_is_refused() -> None:
    ((case,),) = plan(["scalenet_s0"], ["torch"], [900_000], [(4096, 4096)])
    with pytest.raises(
        BackendError, match="a batch of 900,000 images of 3x4096x4096: found that it takes 181,193.9 GB"
    ):
        case.images()


def test_more_pixels_take_longer() -> None:
    (cases,), (more,) = (plan(["scalenet_s0"], ["torch"], sizes=[size]) for size in ((64, 64), (256, 256)))
    small_images, large_images = measure_cases(cases + more, threads=1, timing=Timing(0.1, 0.2, 8, 4))
    assert large_images.ratio.median > 1.5
    assert large_images.macs > 12 * small_images.macs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backends": ["torch"]}, "s0.onnx: found the back end torch, expected ort-cpu or ort-cuda or"),
        ({"sizes": [(64, 96), (96, 96)]}, "s0.onnx: found another resolution, expected 64x96, the file's own"),
        ({"precisions": ["fp16"]}, "s0.onnx: found fp16, expected fp32"),
    ],
)
def test_files_run_only_as_they_were_exported(exported: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(**{"models": [str(exported)], "backends": ["ort-cpu"], **arguments})
    assert str(caught.value).startswith(str(exported.with_name(message.split(":")[0])) + message[len("s0.onnx") :])


def test_a_file_is_run_in_the_form_that_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "halves.onnx"
    model = random_model(small("scalenet_s0"))
    export_onnx(model, path, OnnxOptions(precision="fp16", io="fp16", batch=(2, 2, 2)))
    ((case,),) = plan([str(path)], ["ort-cpu"], batches=[2])
    assert case.precision == "fp16"
    assert (case.images().shape, case.images().dtype) == ((2, 3, 64, 96), torch.float16)
    with open_runner(path, case.images(), "ort-cpu", threads=1) as runner:
        expected = run_torch(model, case.images().float().numpy())
        np.testing.assert_allclose(runner(), expected, atol=0.05 * np.abs(expected).max())
    with pytest.raises(InputError, match=r"halves.onnx: found a batch of 1, expected 2$"):
        plan([str(path)], ["ort-cpu"], batches=[1, 2])
    uint8 = replace(case, subject=replace(case.subject, options=OnnxOptions(preprocess=True)))
    assert (uint8.images().shape, uint8.images().dtype) == ((2, 64, 96, 3), torch.uint8)


def test_openvinos_ir_runs_on_openvino(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "s0.xml"
    convert_onnx(exported, path, lambda file: None)
    with pytest.raises(InputError, match=r"s0.xml: found the back end ort-cpu, expected openvino$"):
        plan([str(path)], ["ort-cpu"])
    with pytest.raises(InputError, match=r"s0.xml: found another resolution, expected 64x96, the file's own$"):
        plan([str(path)], ["openvino"], sizes=[(32, 32)])
    ((ours, theirs),) = plan([str(path), str(exported)], ["openvino"], batches=[3])
    assert (ours.subject.name, ours.subject.path, ours.subject.spec) == ("s0.xml", path, small("scalenet_s0"))
    results = measure_cases([ours, theirs], threads=1, timing=QUICK)
    assert [(each.model, each.backend, each.device, each.batch) for each in results] == [
        ("s0.xml", "openvino", "CPU", 3),
        ("s0.onnx", "openvino", "CPU", 3),
    ]
    with open_runner(path, ours.images(), "openvino") as one, open_runner(exported, ours.images(), "openvino") as other:
        np.testing.assert_allclose(one(), other(), rtol=1e-4, atol=1e-5)


def test_int8_made_for_another_back_end_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.onnx"
    options = OnnxOptions(precision="int8", target="openvino")
    export_onnx(random_model(SPECS["classification"]), path, options, sample_photographs())
    plan([str(path)], ["openvino"])
    plan([str(path)], ["ort-cpu"])
    assert [record.getMessage() for record in caplog.records if record.name.startswith("scalenet_zoo")] == [
        "a.onnx: found int8 made for openvino, which may be slow or less exact on ort-cpu: export it for that one"
    ]


def test_an_engine_runs_on_the_library_that_built_it(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "s0.engine"
    options = EngineOptions(library="tensorrt-rtx", compute_capabilities=("8.9",), batch=(1, 2, 4))
    build_engine(exported, path, options)  # a real one, ahead of time: it needs no GPU
    with pytest.raises(InputError, match=r"s0.engine: found the back end ort-cpu, expected tensorrt-rtx$"):
        plan([str(path)], ["ort-cpu"])
    monkeypatch.setattr("scalenet_zoo.latency.cases.require_backend", lambda name: None)  # as if there were a GPU
    ((case,),) = plan([str(path)], ["tensorrt-rtx"], batches=[4])
    assert (case.subject.name, case.subject.path, case.subject.spec) == ("s0.engine", path, small("scalenet_s0"))
    assert case.images().shape == (4, 3, 64, 96)
    with pytest.raises(InputError, match=r"s0.engine: found a batch of 8, expected 1 to 4$"):
        plan([str(path)], ["tensorrt-rtx"], batches=[4, 8])


def test_results_are_drawn(tmp_path: Path) -> None:
    result = BenchmarkResult(
        model="a",
        backend="torch",
        device="CPU",
        precision="fp32",
        threads=2,
        interop_threads=2,
        batch=1,
        height=224,
        width=224,
        macs=400_000_000,
        params=5_000_000,
        channels_last=False,
        graph=False,
        transfers=False,
        latency=MeasuredLatency.of([[4.0, 5.0, 6.0], [4.5, 5.0, 8.0]]),
        throughput=200.0,
        ratio=Ratio(1, 1, 1),
    )
    other = replace(result, model="b", macs=1_000_000_000, backend="ort-cpu")
    for name in ("plot.png", "plot.svg", "new/plot.pdf"):
        plot_latencies([result, replace(result, height=288, macs=600_000_000), other], tmp_path / name)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "plot.pdf").read_bytes().startswith(b"%PDF")
    text = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {label} -->" in text for label in ("a 224x224", "a 288x224", "b", "MACs (G) of one image"))
    assert "<!-- ort-cpu, fp32, batch 1, CPU threads: 2 -->" in text


# --- the command ----------------------------------------------------------------------------------


FAST = ("--seconds", 0, "--runs", 4, "--repeats", 2, "--warmup", 0, "--threads", 1)


def test_the_command_prints_a_table_and_writes_files(run: Run, tmp_path: Path) -> None:
    files = ("--output", "new/latencies.json", "--plot", "plot.png")
    code, out, err = run("benchmark", "scalenet_s0", "--on", "torch,ort-cpu", "--resolution", "64x96", *FAST, *files)
    preparing = [f"preparing scalenet_s0 on {backend}" for backend in ("torch", "ort-cpu")]
    assert (code, err.splitlines()) == (0, [*preparing, "measuring"])  # what a log has, where nobody watches
    lines = out.splitlines()
    assert lines[1] == "device CPU; threads 1; precision fp32; batch 1; input 64x96"
    assert " ".join(lines[2].split()) == "model on MACs median ms spread p90 p95 p99 images/s ratio ratio spread"
    assert lines[3].split()[:3] == ["scalenet_s0", "torch", "44.7M"]
    assert lines[4].split()[:3] == ["scalenet_s0", "ort-cpu", "44.7M"]
    assert lines[3].split()[-2:] == ["1.000", "0.0%"]
    saved = json.loads((tmp_path / "new" / "latencies.json").read_text())
    assert lines[0].startswith(saved["machine"]["cpu"])
    assert saved["timing"] == {"warmup": 0, "seconds": 0, "runs": 4, "visits": 2}
    assert [result["backend"] for result in saved["results"]] == ["torch", "ort-cpu"]
    assert saved["results"][1]["latency"]["runs"] == 4
    assert saved["machine"]["versions"]["torch"]
    median = saved["results"][1]["latency"]["median"]
    assert float(lines[4].split()[3]) == pytest.approx(median, rel=1e-3)
    assert lines[5:] == [
        f"wrote {name} ({(tmp_path / name).stat().st_size:,} bytes)" for name in ("new/latencies.json", "plot.png")
    ]


def test_the_command_sweeps_batches_and_prints_json(run: Run, exported: Path) -> None:
    printed = run.json("benchmark", exported, "--on", "ort-cpu", "--batch", "1,3", *FAST)
    assert [result["batch"] for result in printed["results"]] == [1, 3]
    assert {result["model"] for result in printed["results"]} == {"s0.onnx"}
    assert set(printed) == {"machine", "timing", "results"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--batch", "1,0"), 2, "--batch: found '0', expected a whole number above 0"),
        (("--batch", "two"), 2, "--batch: found 'two', expected a whole number above 0"),
        (("--resolution", "64x64x3"), 2, "--resolution: found '64x64x3', expected a size such as 224 or 512x1024"),
        (("--resolution", "big"), 2, "--resolution: found 'big', expected a whole number above 0"),
        (("--precision", "fp32,int4"), 2, "--precision: found 'int4', expected fp32, fp16 or int8"),
        (
            ("--precision", "fp32,int8", "--on", "torch"),
            2,
            "--precision: found int8 for a network on torch, expected it",
        ),
        (("--plot", "plot.jpg"), 2, "--plot: found plot.jpg, expected a name that ends in .png, .svg, .pdf"),
        (("--on", "ort-cpu,onnx"), 1, "onnx: found no such back end, expected one of torch, torch-compile, ort-cpu,"),
        (("no_such_model",), 1, "no_such_model: found no such entry in the zoo and no such file"),
        (("missing.onnx", "--on", "ort-cpu"), 1, "missing.onnx: cannot be read: No such file or directory"),
        (("--seconds", "inf"), 2, "--seconds: found inf, expected a finite number of seconds"),
        (("missing.engine", "--on", "ort-cpu"), 1, "missing.engine: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_reported_before_anything_runs(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    found, told = run.error("benchmark", "scalenet_s0", *FAST, *arguments)
    assert found == code
    assert message in told
    assert list(tmp_path.iterdir()) == []


@without_gpu
def test_a_missing_back_end_ends_the_command(run: Run) -> None:
    code, told = run.error("benchmark", "scalenet_s0", "--on", "torch,ort-cuda", *FAST)
    assert code == 1
    assert told.startswith("ort-cuda: cannot run on this machine: ")
    assert "install" in told


def test_results_before_a_failure_of_a_sweep_are_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def limited(model: nn.Module, images: torch.Tensor, *rest: Any) -> Any:
        if len(images) > 1:
            raise BackendError("torch: out of memory with a batch of 2")
        return open_runner(model, images, *rest)

    monkeypatch.setattr("scalenet_zoo.latency.cases.open_runner", limited)  # a fake lack of memory
    arguments = ("--on", "torch", "--resolution", "32", "--batch", "1,2", "--output", "all.json", *FAST)
    code, out, err = run("benchmark", "scalenet_s0", *arguments)
    assert code == 1
    assert err.splitlines()[-1] == "error: torch: out of memory with a batch of 2"
    assert "on torch; device CPU; threads 1; precision fp32; batch 1; input 32x32\n" in out
    assert "\nscalenet_s0 " in out
    assert list(tmp_path.iterdir()) == []


def test_a_bar_shows_the_progress_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scalenet_zoo.cli.progress import progress_bar

    with progress_bar() as advance:
        advance("measuring", 3, 4)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar() as advance:
        advance("measuring", 3, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert "measuring" in err
    assert "75%" in err
