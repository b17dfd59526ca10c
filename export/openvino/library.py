"""OpenVINO itself, opened late: what it reads, compiles and runs here, and what it complains of in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from scalenet_zoo.core.backends import Precision, no_package
from scalenet_zoo.core.errors import BackendError

NAME = "openvino"


@cache
def open_openvino() -> Any:  # noqa: ANN401 - a package that is not a requirement
    """Import the package.

    Raises:
        BackendError: it is not installed, or cannot be loaded.
    """
    if reason := no_package(NAME, NAME):
        raise BackendError(f"{NAME}: cannot be used on this machine: {reason}")
    try:
        import openvino
    except Exception as error:  # ImportError, OSError and RuntimeError, for a shared library that is missing or wrong
        raise BackendError(f"{NAME}: cannot be loaded: {openvino_complaint(error)}") from error
    return openvino


@cache
def open_core() -> Any:  # noqa: ANN401 - as above
    """What reads and compiles models; one a process.

    Raises:
        BackendError: as `open_openvino`.
    """
    return open_openvino().Core()


def compile_model(model: Any, threads: int, precision: Precision) -> Any:  # noqa: ANN401 - as above
    """Compile a model for the CPU, for the least latency of one inference at a time.

    Floats are computed in fp32, unless the precision is fp16 and the CPU computes in halves; never in bfloat16, which
    OpenVINO would choose where the CPU has it. Threads stay on no core of their own, as in the other back ends.

    Args:
        model: OpenVINO's.
        threads: CPU threads that an operator may use; OpenVINO takes no more than there are cores.
        precision: of the model.

    Raises:
        BackendError: as `open_openvino`.
        RuntimeError: OpenVINO's own: it cannot compile the model.
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
    """Make ready to run one batch again and again, in fixed memory.

    Args:
        compiled: a model with one input and one or more outputs.
        images: the batch, as the model takes it, on the CPU; others can be copied into its memory.

    Returns:
        A function that runs one inference and gives the first output, always the same memory.

    Raises:
        RuntimeError: OpenVINO's own: the images are not what the model takes.
    """
    images = images.contiguous()
    request = compiled.create_infer_request()
    request.set_input_tensor(open_openvino().Tensor(images.numpy(), shared_memory=True))

    def run() -> torch.Tensor:
        request.infer(share_outputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    run()

    def step() -> torch.Tensor:
        images.data_ptr()  # the request has the address alone: this function keeps the images alive
        return run()

    return step


def openvino_complaint(error: Exception) -> str:
    """What an error says in the end, or which operators are not known: OpenVINO's begin with places in its sources."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines() if line.strip()]
    unknown = [line for line in lines if line.startswith("No conversion rule")]
    return (unknown or lines or [type(error).__name__])[-1]
