"""Which back ends can run networks on this machine, and what the others lack."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

PACKAGES = (
    "scalenet-zoo",
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
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
        about: the device it runs on or, if not ready, what is missing and how to get it.
    """

    name: str
    ready: bool
    about: str


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter here; "not installed" where one is missing."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def find_backends() -> list[Backend]:
    """Look at this machine: packages, compilers, providers, GPU."""
    missing = {name: probe() for name, probe in _PROBES.items()}
    return [
        Backend(name, reason is None, reason or (_gpu_name() if name in _ON_GPU else "CPU"))
        for name, reason in missing.items()
    ]


def _gpu_name() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return "CPU"


def _no_gpu() -> str | None:
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
        return _no_gpu()

    return probe


def _no_tensorrt(module: str, extra: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        if find_spec(module) is None:
            return f"no package {module}: pip install 'scalenet-zoo[{extra}]'"
        return _no_gpu()

    return probe


_ON_GPU = {"torch", "torch-compile", "ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"}
_PROBES: dict[str, Callable[[], str | None]] = {
    "torch": lambda: None,
    "torch-compile": _no_compiler,
    "ort-cpu": lambda: None,
    "ort-cuda": _no_provider("CUDA"),
    "ort-tensorrt": _no_provider("Tensorrt"),
    "tensorrt": _no_tensorrt("tensorrt", "tensorrt"),
    "tensorrt-rtx": _no_tensorrt("tensorrt_rtx", "tensorrt-rtx"),
}
