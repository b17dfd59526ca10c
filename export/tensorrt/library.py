"""The two TensorRT libraries, opened the same way: `tensorrt` (10 and 11) and `tensorrt_rtx` share one API."""

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
    """A library, and what it says while it works.

    A process has one logger for each, whichever builder or runtime it was given to, and one thread
    at a time listens.

    Attributes:
        name: as `--to` takes it.
        module: the Python package.
        version: the package's.
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
        """Keep what the library says, for `messages` and `complaint`, until the end."""
        with self._lock:
            try:
                yield
            finally:
                self._messages.clear()

    @property
    def messages(self) -> list[str]:
        """All that was said."""
        return [message for _, message in self._messages]

    @property
    def complaint(self) -> str:
        """The errors among it, on one line."""
        severity = self.module.ILogger.Severity
        errors = [
            on_one_line(text) for level, text in self._messages if level in (severity.ERROR, severity.INTERNAL_ERROR)
        ]
        return "; ".join(dict.fromkeys(errors)) or f"{self.name} does not say why"


@cache
def open_library(name: Library) -> TensorRT:
    """Import a library.

    Raises:
        BackendError: it is not installed, or cannot be loaded.
    """
    package = name.replace("-", "_")
    if reason := no_package(package, name):
        raise BackendError(f"{name}: cannot be used on this machine: {reason}")
    try:
        return TensorRT(name, import_module(package))
    except Exception as error:  # ImportError, OSError and RuntimeError, for a shared library that is missing or wrong
        raise BackendError(f"{name}: cannot be loaded: {on_one_line(str(error))}") from error


def find_gpu() -> Device | None:
    """The GPU that torch uses, if there is one."""
    if no_gpu():
        return None
    import torch

    major, minor = torch.cuda.get_device_capability()
    return Device(name=torch.cuda.get_device_name(), compute_capability=f"{major}.{minor}")


def require_gpu(name: Library, otherwise: str = "") -> Device:
    """The GPU that torch uses.

    Args:
        name: the library that needs it.
        otherwise: what to do without one.

    Raises:
        BackendError: there is none, or no driver.
    """
    device = find_gpu()
    if device is None:
        raise BackendError(f"{name}: cannot be used on this machine: {no_gpu()}{otherwise}")
    return device


def on_one_line(text: str) -> str:
    """The text with every run of blanks and line ends as one blank."""
    return " ".join(text.split())
