"""Back ends behind one small protocol: a network prepared for one batch of images, with one inference per step.

    network, ONNX file, OpenVINO's IR or engine --prepare--> Runner: step(), lap()

On a GPU, every runner has its own stream, fixed buffers for images and outputs, and, if the back end supports it, a
CUDA graph that a step replays.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from scalenet_zoo.arch.spec import unwrapped
from scalenet_zoo.core.backends import Precision, TargetBackend, require_backend
from scalenet_zoo.core.errors import BackendError, ZooError
from scalenet_zoo.core.file_kinds import ENGINE, OPENVINO, exported_kind
from scalenet_zoo.core.files import cache_folder, scratch_folder
from scalenet_zoo.core.memory import FLOAT_BYTES, check_memory
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.timing import timed
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.quantisation import Quantiser
from scalenet_zoo.latency.precisions import check_precision

Step = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Runner:
    """A network that is ready to run on one batch repeatedly.

    Attributes:
        step: runs one inference and returns the network's first output. On a GPU, it only enqueues the inference on the
            current stream.
        device: the device that the network runs on.
        threads: CPU threads that an operator may use.
        interop_threads: CPU threads that operators may share.
        stream: the GPU's stream, on which `step` must be called; None: the network runs on the CPU.
        graph: whether a step replays a CUDA graph.
    """

    step: Step
    device: torch.device
    threads: int
    interop_threads: int
    stream: torch.cuda.Stream | None = None
    graph: bool = False

    def __call__(self) -> np.ndarray:
        """Run one inference, and return its output in float32."""
        with torch.cuda.stream(self.stream):
            output = self.step()
        if self.stream is not None:
            self.stream.synchronize()
        return output.float().cpu().numpy()

    def lap(self) -> float:
        """Run one inference, and return its milliseconds."""
        return timed(self.step, self.stream)


def check_batch(batch: int, shape: Sequence[int]) -> None:
    """Check that a batch of images of this shape will fit into memory.

    Raises:
        BackendError: it will not.
    """
    check_memory(FLOAT_BYTES * batch * math.prod(shape), f"a batch of {batch:,} images of {'x'.join(map(str, shape))}")


@contextmanager
def open_runner(
    model: nn.Module | onnx.ModelProto | Path,
    images: torch.Tensor,
    backend: str,
    threads: int | None = None,
    precision: Precision = "fp32",
    transfers: bool = False,
) -> Iterator[Runner]:
    """Make a network ready to run on a back end, and free its resources (a session, an engine) at the end.

    torch has one number of threads per process, which is set until the end. So runners that are open at the same time
    should have the same number.

    Args:
        model: a network, or any module with one input and one output, which runs in evaluation mode; its fp32 graph,
            traced with such a batch, so that it is traced once for several back ends and precisions; an ONNX file; or,
            for their own back ends, an engine or OpenVINO's IR.
        images: the batch, (n, channels, height, width), float32 for a network, and for a file the form that it takes.
            torch runs on the images' device, and with channels last if the images have that order.
        backend: a name in `backends.BACKENDS`.
        threads: CPU threads that an operator may use; None: as many as torch uses now.
        precision: the precision of a network's weights and activations, or the precision that a file was exported in.
            For int8, a network is quantised for the back end with the ranges of these images, since latency does not
            depend on the ranges.
        transfers: on a GPU, a step includes copies of the images to the GPU and of the output back.

    Raises:
        UsageError: the back end does not run networks in this precision.
        BackendError: the back end cannot run here, or cannot run this network with this batch.
        ExportError: the network cannot be exported.
    """
    require_backend(backend)
    threads = threads or torch.get_num_threads()
    device = _device(backend, images)
    with ExitStack() as stack:
        stack.enter_context(_settings(threads))
        stream = None
        if device.type == "cuda":
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())  # which may still be writing the images
        try:
            with torch.cuda.stream(stream):
                images = images.to(device)
                if not isinstance(model, Path):
                    check_precision(precision, backend)
                if isinstance(model, nn.Module):
                    images = images.to(torch.float16 if precision == "fp16" else torch.float32)
                    model = _evaluated(model, images)
                step, graph = _step(model, images, backend, threads, precision, transfers, stack)
        except ZooError:
            raise
        except Exception as error:  # onnxruntime's own types derive from Exception only
            name = model.name if isinstance(model, Path) else type(model).__name__
            batch = "x".join(map(str, images.shape))
            raise BackendError(
                f"{backend}: cannot run {name} with a batch of {batch}: {_told(error, backend)}"
            ) from error
        interop = torch.get_num_interop_threads() if backend.startswith("torch") else 1
        yield Runner(step, device, threads, interop, stream, graph)


def _device(backend: str, images: torch.Tensor) -> torch.device:
    if backend.startswith("torch"):
        return images.device
    return torch.device("cpu" if backend in ("ort-cpu", "openvino") else "cuda")


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """Set the number of threads, and for GPUs the fastest algorithm for each size and fp32 without TF32."""
    cudnn, tf32 = torch.backends.cudnn, os.environ.get("NVIDIA_TF32_OVERRIDE")
    before = torch.get_num_threads(), cudnn.benchmark, cudnn.allow_tf32
    torch.set_num_threads(threads)
    cudnn.benchmark, cudnn.allow_tf32 = True, False
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # for the TensorRT inside ONNX Runtime, which has no option
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.benchmark, cudnn.allow_tf32 = before[1:]
        if tf32 is None:
            del os.environ["NVIDIA_TF32_OVERRIDE"]
        else:
            os.environ["NVIDIA_TF32_OVERRIDE"] = tf32


def _evaluated(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Copy a network for inference on these images, with their device, type and order of axes in memory."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    form = torch.channels_last if last else torch.preserve_format
    return copy.deepcopy(unwrapped(model)).eval().to(images.device, images.dtype).to(memory_format=form)


def _step(
    model: nn.Module | onnx.ModelProto | Path,
    images: torch.Tensor,
    backend: str,
    threads: int,
    precision: Precision,
    transfers: bool,
    stack: ExitStack,
) -> tuple[Step, bool]:
    """Make a step on a back end and run it once; return it, and whether it replays a CUDA graph."""
    if backend.startswith("torch"):
        if isinstance(model, Path):
            raise BackendError(f"{backend}: found the file {model.name}, expected a network: torch runs no such files")
        if isinstance(model, onnx.ModelProto):
            raise BackendError(f"{backend}: found a traced graph, expected a network: torch runs no such graphs")
        step = _module_step(model, images, compiled=backend == "torch-compile")
        if not images.is_cuda:
            return step, False
        return _captured(_with_transfers(step, images) if transfers else step)
    images = images.contiguous()
    if backend.startswith("ort"):
        graph = str(model) if isinstance(model, Path) else _onnx(model, images, backend, precision)
        step, captured = _session_step(graph, images, backend, threads, precision)
        return (_with_transfers(step, images) if transfers and images.is_cuda else step), captured
    if backend == "openvino":
        return _openvino_step(model, images, threads, precision), False
    step = _engine_step(model, images, backend, stack)
    return _captured(_with_transfers(step, images) if transfers else step)


# --- torch ----------------------------------------------------------------------------------------


def _module_step(model: nn.Module, images: torch.Tensor, compiled: bool) -> Step:
    run = torch.compile(model, fullgraph=True, dynamic=False) if compiled else model

    @torch.inference_mode()
    def step() -> torch.Tensor:
        output: torch.Tensor = run(images)
        return output

    if compiled:  # many networks share one class, so its forward is compiled more often than torch's limits allow
        with torch._dynamo.config.patch(recompile_limit=2**20, accumulated_recompile_limit=2**20):
            step()
    else:
        step()
    return step


# --- CUDA graphs and transfers --------------------------------------------------------------------


def _captured(step: Step) -> tuple[Step, bool]:
    """Record a step as a CUDA graph and return its replay; if it cannot be recorded, return the step itself."""
    for _ in range(3):  # the set-up in first runs must not be recorded
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            output = step()
    except RuntimeError:
        return step, False

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay, True


def _with_transfers(step: Step, images: torch.Tensor) -> Step:
    """Extend a step with the copies from and to the host's memory, where it then begins and ends."""
    source = images.cpu().pin_memory()
    output = step().cpu().pin_memory()

    @torch.inference_mode()
    def step_with_transfers() -> torch.Tensor:
        images.copy_(source, non_blocking=True)
        return output.copy_(step(), non_blocking=True)

    return step_with_transfers


# --- ONNX Runtime ---------------------------------------------------------------------------------


def _onnx(
    model: nn.Module | onnx.ModelProto, images: torch.Tensor, backend: str, precision: Precision = "fp32"
) -> bytes:
    """Make the ONNX graph of a network for this batch size; for int8, quantise it for a back end with these images."""
    graph = model if isinstance(model, onnx.ModelProto) else trace_graph(model, images)
    if precision == "int8":
        target: TargetBackend = "openvino" if backend == "openvino" else "ort-cpu"
        with Quantiser(graph, [images.numpy()], target, corrected=False) as quantiser:
            graph = quantiser.quantise()
    return bytes(graph.SerializeToString())


def _session_step(
    graph: str | bytes, images: torch.Tensor, backend: str, threads: int, precision: Precision
) -> tuple[Step, bool]:
    if not images.is_cuda:
        return _bound_session(graph, images, ["CPUExecutionProvider"], threads), False
    stream = torch.cuda.current_stream().cuda_stream
    cache = engine_cache(graph) if backend == "ort-tensorrt" else None
    try:
        return _bound_session(graph, images, gpu_providers(stream, precision, cache, capture=True), threads), True
    except Exception:  # a graph that is only partly on the GPU cannot be captured
        return _bound_session(graph, images, gpu_providers(stream, precision, cache, capture=False), threads), False


def gpu_providers(
    stream: int, precision: Precision, engines: Path | None, capture: bool
) -> list[tuple[str, dict[str, object]]]:
    """Make ONNX Runtime's providers for a GPU: CUDA, and before it TensorRT if there is a folder for its engines.

    Args:
        stream: the address of the CUDA stream to run on.
        precision: the precision of the graph.
        engines: the folder for TensorRT's engines, with the timings of their kernels beside it; None: no TensorRT.
        capture: replay a CUDA graph from the second run on.
    """
    cuda: dict[str, object] = {
        "user_compute_stream": str(stream),
        "enable_cuda_graph": capture and not engines,
        "use_tf32": False,
    }
    if engines is None:
        return [("CUDAExecutionProvider", cuda)]
    tensorrt = {
        "user_compute_stream": str(stream),
        "trt_cuda_graph_enable": capture,
        "trt_fp16_enable": precision == "fp16",
        "trt_int8_enable": precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(engines.parent),
    }
    return [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", cuda)]


def engine_cache(graph: str | bytes) -> Path:
    """Find the folder for a graph's engines, one per content: ONNX Runtime's names for them ignore the weights.

    Raises:
        OutputError: the folder cannot be written.
    """
    import tensorrt

    content = hashlib.sha256(graph).hexdigest() if isinstance(graph, bytes) else OnnxFile.read(graph).sha256
    device = re.sub(r"[^\w.-]", "-", torch.cuda.get_device_name())
    versions = f"onnxruntime-{onnxruntime.__version__}_tensorrt-{tensorrt.__version__}"
    folder = cache_folder() / "ort-tensorrt" / f"{versions}_{device}" / content[:32]
    if not folder.is_dir():
        check_writable(folder / "engine")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bound_session(graph: str | bytes, images: torch.Tensor, providers: Sequence[Any], threads: int) -> Step:
    """Open a session whose input and outputs are in torch's memory, and run it once; return its step."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    binding = session.io_binding()
    buffers = [_output_buffer(output, images) for output in session.get_outputs()]
    _bind(binding.bind_input, session.get_inputs()[0].name, images)
    for output, buffer in zip(session.get_outputs(), buffers, strict=True):
        _bind(binding.bind_output, output.name, buffer)
    buffers.append(images)  # the binding holds only addresses
    run_options = onnxruntime.RunOptions()
    if images.is_cuda:
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def step() -> torch.Tensor:
        session.run_with_iobinding(binding, run_options)
        return buffers[0]

    step()
    return step


_TORCH_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(uint8)": torch.uint8,
}


def _output_buffer(output: Any, images: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - onnxruntime's NodeArg
    shape = [size if isinstance(size, int) else len(images) for size in output.shape]  # only the batch is a named axis
    return torch.empty(shape, dtype=_TORCH_TYPES[output.type], device=images.device)


def _bind(bind: Callable[..., None], name: str, tensor: torch.Tensor) -> None:
    element = torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
    bind(name, tensor.device.type, tensor.device.index or 0, element, tuple(tensor.shape), tensor.data_ptr())


# --- OpenVINO -------------------------------------------------------------------------------------


def _openvino_step(
    model: nn.Module | onnx.ModelProto | Path, images: torch.Tensor, threads: int, precision: Precision
) -> Step:
    from scalenet_zoo.export.openvino.network import bind_file, bind_graph

    if isinstance(model, Path) and exported_kind(model) == OPENVINO:
        return bind_file(model, images)
    graph = model if isinstance(model, Path) else _onnx(model, images, "openvino", precision)
    return bind_graph(graph, images, threads, precision)


# --- TensorRT -------------------------------------------------------------------------------------


def _engine_step(
    model: nn.Module | onnx.ModelProto | Path, images: torch.Tensor, backend: str, stack: ExitStack
) -> Step:
    from scalenet_zoo.export.tensorrt.build import EngineNetwork, EngineOptions, build_engine

    if isinstance(model, Path) and exported_kind(model) == ENGINE:
        return EngineNetwork.load(model).bind(images)
    folder = stack.enter_context(scratch_folder())
    onnx_path, engine_path = folder / "network.onnx", folder / "network.engine"
    if isinstance(model, Path):
        onnx_path = model
    else:
        onnx_path.write_bytes(_onnx(model, images, backend))
    library: Any = backend
    build_engine(onnx_path, engine_path, EngineOptions(library=library, batch=(len(images),) * 3))
    return EngineNetwork.load(engine_path).bind(images)


def _told(error: Exception, backend: str) -> str:
    """Return the first line of a library's error; for OpenVINO, the line that `openvino_complaint` chooses."""
    if backend == "openvino":
        from scalenet_zoo.export.openvino.library import openvino_complaint

        return openvino_complaint(error)
    return next(iter(str(error).splitlines()), type(error).__name__)
