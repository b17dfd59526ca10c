"""Locks that end with their process, even if it is killed: the kernel's (flock). Without flock, nothing is locked.

Child processes do not inherit the locks. Otherwise children that outlive a killed parent for a while, such as workers
that load images, would keep them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_held: set[int] = set()
"""Descriptors of the files and folders that this process has locked."""


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
        path: the existing file or folder to lock.
        wait: whether to wait until no other process holds it.

    Returns:
        The lock, for `unlock`; None: it cannot be locked, since the file system has no locks or it may not be read.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
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
    except BaseException as error:  # also an interrupt while it waits
        unlock(descriptor)
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def unlock(lock: int | None) -> None:
    """Release a lock from `try_lock`; do nothing for None."""
    if lock in _held:  # in a forked child it is closed already
        _held.discard(lock)
        os.close(lock)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for a moment; other callers of this function wait."""
    lock = try_lock(folder, wait=True)
    try:
        yield
    finally:
        unlock(lock)
