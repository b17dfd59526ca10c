"""The back ends that can run networks on this machine, and what the others lack."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from scalenet_zoo.core.errors import BackendError

Precision = Literal["fp32", "fp16", "int8"]
"""Precision of weights and activations, as `--precision` takes it."""
TargetBackend = Literal["ort-cpu", "openvino", "tensorrt", "tensorrt-rtx"]
"""The back ends that an int8 file can be made for."""
PACKAGES = (
    "scalenet-zoo",
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "huggingface_hub",
)


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to run a network.

    Attributes:
        name: as `--on` takes it.
        ready: whether it can run here.
        about: the device that it runs on or, if it is not ready, what is missing and how to get it.
    """

    name: str
    ready: bool
    about: str


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `PACKAGES`; "not installed" for a missing one."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Describe this machine, for stored measurements: processor, cores, GPU, driver, system, versions and date."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": driver_version(),
        "system": platform.platform(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def driver_version() -> str | None:
    """The NVIDIA driver's version; None where there is no driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout.strip() else None


def find_backends() -> list[Backend]:
    """Look for what each back end needs on this machine: packages, compilers, providers, a GPU."""
    return [find_backend(name) for name in BACKENDS]


def check_backend(name: str) -> None:
    """Check that there is a back end of this name, whether or not it can run here; takes no time.

    Raises:
        BackendError: there is no back end of this name.
    """
    if name not in _PROBES:
        raise BackendError(f"{name}: found no such back end, expected one of {', '.join(BACKENDS)}")


def find_backend(name: str) -> Backend:
    """Look for what one back end needs.

    Raises:
        BackendError: there is no back end of this name.
    """
    check_backend(name)
    reason = _PROBES[name]()
    return Backend(name, reason is None, reason or (_gpu_name() if name in _ON_GPU else "CPU"))


def require_backend(name: str) -> Backend:
    """Look for what one back end needs, and refuse one that cannot run here.

    Raises:
        BackendError: it cannot run here (the message says why), or there is no back end of this name.
    """
    backend = find_backend(name)
    if not backend.ready:
        raise BackendError(f"{name}: cannot run on this machine: {backend.about}")
    return backend


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpu_name() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return "CPU"


def no_gpu() -> str | None:
    """Say what torch, and thus every other back end, lacks to run on a GPU; None: nothing."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "torch is built without CUDA: pip install a CUDA build of torch"
    return f"no NVIDIA GPU, or no driver for CUDA {torch.version.cuda}: install a driver"


def _no_compiler() -> str | None:
    found = any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl"))
    return None if found else "no C++ compiler, which torch.compile needs: install g++"


def _no_provider(name: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        import onnxruntime

        if f"{name}ExecutionProvider" not in onnxruntime.get_available_providers():
            return f"ONNX Runtime has no {name} provider: pip install onnxruntime-gpu"
        if name == "Tensorrt" and find_spec("tensorrt") is None:
            return "no package tensorrt, whose libraries ONNX Runtime's provider needs: pip install 'tensorrt<11'"
        return no_gpu() or _does_not_load(name)

    return probe


@cache
def _does_not_load(provider: str) -> str | None:
    """Say what an ONNX Runtime provider lacks; ONNX Runtime drops a provider silently if its libraries are missing."""
    import onnx
    import onnxruntime

    name = f"{provider}ExecutionProvider"
    x, y = (onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [1]) for value in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnxruntime.set_default_logger_severity(4)  # the message below says enough
    try:
        with redirect_stdout(StringIO()):
            onnxruntime.preload_dlls()  # the libraries in Python packages
        if provider == "Tensorrt":
            import_module("tensorrt")
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[name], enable_fallback=0)
        if name in session.get_providers():
            return None
    except Exception:  # onnxruntime's own types derive from Exception only
        pass
    finally:
        onnxruntime.set_default_logger_severity(2)
    packages = "'onnxruntime-gpu[cuda,cudnn]'" + (" 'tensorrt<11'" if provider == "Tensorrt" else "")
    return f"ONNX Runtime's {provider} provider lacks a library, or has the wrong version: pip install {packages}"


def no_package(module: str, extra: str) -> str | None:
    """Say how to get a package that is missing; None: it is installed."""
    return f"no package {module}: pip install 'scalenet-zoo[{extra}]'" if find_spec(module) is None else None


def _no_tensorrt(module: str, extra: str) -> Callable[[], str | None]:
    return lambda: no_package(module, extra) or no_gpu()


_ON_GPU = {"torch", "torch-compile", "ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"}
_PROBES: dict[str, Callable[[], str | None]] = {
    "torch": lambda: None,
    "torch-compile": _no_compiler,
    "ort-cpu": lambda: None,
    "ort-cuda": _no_provider("CUDA"),
    "ort-tensorrt": _no_provider("Tensorrt"),
    "openvino": lambda: no_package("openvino", "openvino"),
    "tensorrt": _no_tensorrt("tensorrt", "tensorrt"),
    "tensorrt-rtx": _no_tensorrt("tensorrt_rtx", "tensorrt-rtx"),
}
BACKENDS = tuple(_PROBES)
