"""Access to the two TensorRT libraries, `tensorrt` (10 and 11) and `tensorrt_rtx`, which share one API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from scalenet_zoo.core.backends import no_gpu, no_package
from scalenet_zoo.core.errors import BackendError
from scalenet_zoo.export.tensorrt.record import Device, Library


class TensorRT:
    """A library, with the messages that it logs while it works.

    A process has one logger per library, which all builders and runtimes share; one thread at a time listens.

    Attributes:
        name: the name that `--to` takes.
        module: the Python package.
        version: the version of the package.
    """

    def __init__(self, name: Library, module: Any) -> None:  # noqa: ANN401 - two packages without types
        self.name = name
        self.module = module
        self.version: str = module.__version__
        self._messages: list[tuple[Any, str]] = []
        self._lock = threading.Lock()
        messages = self._messages

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - an enumeration of the package
                messages.append((severity, message))

        self.logger = Logger()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the library's messages for `messages` and `complaint` until the block ends."""
        with self._lock:
            try:
                yield
            finally:
                self._messages.clear()

    @property
    def messages(self) -> list[str]:
        """All messages so far."""
        return [message for _, message in self._messages]

    @property
    def complaint(self) -> str:
        """The errors among the messages, on one line."""
        severity = self.module.ILogger.Severity
        errors = [
            on_one_line(text) for level, text in self._messages if level in (severity.ERROR, severity.INTERNAL_ERROR)
        ]
        return "; ".join(dict.fromkeys(errors)) or f"{self.name} gives no reason"


@cache
def open_library(name: Library) -> TensorRT:
    """Import a library.

    Raises:
        BackendError: it is not installed or cannot be loaded.
    """
    package = name.replace("-", "_")
    if reason := no_package(package, name):
        raise BackendError(f"{name}: cannot be used on this machine: {reason}")
    try:
        return TensorRT(name, import_module(package))
    except Exception as error:  # ImportError, OSError or RuntimeError if a shared library is missing or wrong
        raise BackendError(f"{name}: cannot be loaded: {on_one_line(str(error))}") from error


def find_gpu() -> Device | None:
    """Find the GPU that torch uses; None: there is none."""
    if no_gpu():
        return None
    import torch

    major, minor = torch.cuda.get_device_capability()
    return Device(name=torch.cuda.get_device_name(), compute_capability=f"{major}.{minor}")


def require_gpu(name: Library, otherwise: str = "") -> Device:
    """Find the GPU that torch uses, or raise an error.

    Args:
        name: the library that needs the GPU.
        otherwise: the end of the error's message: what to do without a GPU.

    Raises:
        BackendError: there is no GPU or no driver.
    """
    device = find_gpu()
    if device is None:
        raise BackendError(f"{name}: cannot be used on this machine: {no_gpu()}{otherwise}")
    return device


def on_one_line(text: str) -> str:
    """Replace every run of white space in a text with one space, and strip it at the ends."""
    return " ".join(text.split())
