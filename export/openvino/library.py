"""Access to OpenVINO, which is imported late: open, compile and run models, and put its errors on one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from scalenet_zoo.core.backends import Precision, no_package
from scalenet_zoo.core.errors import BackendError

NAME = "openvino"


@cache
def open_openvino() -> Any:  # noqa: ANN401 - an optional package
    """Import the package.

    Raises:
        BackendError: it is not installed or cannot be loaded.
    """
    if reason := no_package(NAME, NAME):
        raise BackendError(f"{NAME}: cannot be used on this machine: {reason}")
    try:
        import openvino
    except Exception as error:  # ImportError, OSError or RuntimeError if a shared library is missing or wrong
        raise BackendError(f"{NAME}: cannot be loaded: {openvino_complaint(error)}") from error
    return openvino


@cache
def open_core() -> Any:  # noqa: ANN401 - as above
    """Open OpenVINO's core, which reads and compiles models; there is one per process.

    Raises:
        BackendError: as for `open_openvino`.
    """
    return open_openvino().Core()


def compile_model(model: Any, threads: int, precision: Precision) -> Any:  # noqa: ANN401 - as above
    """Compile a model for the CPU, for the lowest latency of one inference at a time.

    Floats are computed in fp32, or in float16 if the precision is fp16 and the CPU supports it; never in bfloat16,
    which OpenVINO would choose on a CPU that has it. Threads are not pinned to cores, as in the other back ends.

    Args:
        model: the model, as OpenVINO's core read it.
        threads: CPU threads that an operator may use; OpenVINO uses no more than there are cores.
        precision: the precision of the model.

    Raises:
        BackendError: as for `open_openvino`.
        RuntimeError: OpenVINO cannot compile the model.
    """
    core = open_core()
    half = precision == "fp16" and "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)


def bind(compiled: Any, images: torch.Tensor) -> Callable[[], torch.Tensor]:  # noqa: ANN401 - as above
    """Prepare a model to run on one batch repeatedly, in fixed memory.

    Args:
        compiled: a compiled model with one input and one or more outputs.
        images: the batch on the CPU, in the form that the model takes; other images can be copied into its memory.

    Returns:
        A function that runs one inference and returns the first output, which always uses the same memory.

    Raises:
        RuntimeError: the images are not what the model takes.
    """
    images = images.contiguous()
    request = compiled.create_infer_request()
    request.set_input_tensor(open_openvino().Tensor(images.numpy(), shared_memory=True))

    def run() -> torch.Tensor:
        request.infer(share_outputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    run()

    def step() -> torch.Tensor:
        images.data_ptr()  # the request has only the address: this function keeps the images alive
        return run()

    return step


def openvino_complaint(error: Exception) -> str:
    """Return the line of an OpenVINO error that names unknown operators, or else the last line.

    The first lines of its errors are places in OpenVINO's sources.
    """
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines() if line.strip()]
    unknown = [line for line in lines if line.startswith("No conversion rule")]
    return (unknown or lines or [type(error).__name__])[-1]
