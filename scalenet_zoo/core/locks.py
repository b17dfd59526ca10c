"""Locks that die with their process, killed or not: the kernel's (flock); where there are none, no locks.

A child process does not inherit them: what outlives a killed parent for a while, workers that load images say, would
keep them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_held: set[int] = set()
"""Descriptors of what this process has locked."""


def _forget() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)


def try_lock(path: Path, wait: bool = False) -> int | None:
    """Lock a folder or a file.

    Args:
        path: what to lock; it exists.
        wait: until nobody else holds it.

    Returns:
        What `unlock` takes; None: it cannot be locked: a file system without locks, a folder that may not be read.

    Raises:
        BlockingIOError: another process holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:  # an interrupt while it waits is one, too
        unlock(descriptor)
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def unlock(lock: int | None) -> None:
    """Give back what `try_lock` gave."""
    if lock in _held:  # a forked child has closed it already
        _held.discard(lock)
        os.close(lock)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for a moment, against others who ask for it in this way: they wait."""
    lock = try_lock(folder, wait=True)
    try:
        yield
    finally:
        unlock(lock)
