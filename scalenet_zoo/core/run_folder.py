"""A run's folder, in which one process works at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scalenet_zoo.core.errors import OutputError, TrainingError
from scalenet_zoo.core.files import clear_leftovers
from scalenet_zoo.core.locks import try_lock, unlock

LOCK = ".scalenet-zoo.lock"
"""The file in a run's folder that the working process locks."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder during a run; first remove what killed processes left in it.

    Raises:
        TrainingError: another process works in it.
        OutputError: the folder cannot be written.
    """
    path = folder / LOCK
    try:
        lock = _take(path)
    except BlockingIOError:
        raise TrainingError(f"{folder}: found another process at work in it, expected one at a time") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        clear_leftovers(folder)
        yield
    finally:
        path.unlink(missing_ok=True)
        unlock(lock)


def _take(path: Path) -> int | None:
    """Make and lock a file; try again if its former holder removed it meanwhile."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lock = try_lock(path)
        with suppress(FileNotFoundError):
            if lock is None or os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        unlock(lock)
