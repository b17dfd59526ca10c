"""The memory that this process may still take, and a check before more than that is needed."""

import sys
from pathlib import Path

from scalenet_zoo.core.errors import BackendError

FLOAT_BYTES = 4
"""Bytes of a parameter."""

_CGROUPS = Path("/sys/fs/cgroup")


def check_memory(needed: float, what: str) -> None:
    """Refuse to build what would not fit into memory.

    Args:
        needed: the bytes that it needs.
        what: the thing that needs them, named in the message.

    Raises:
        BackendError: fewer bytes are available; the message gives both figures.
    """
    if needed > (available := available_memory()):
        raise BackendError(
            f"{what}: found that it takes {needed / 1e9:,.1f} GB of memory, expected at most the"
            f" {available / 1e9:,.1f} GB that this process can have"
        )


def available_memory() -> int:
    """Bytes that this process may still take: the least that the machine, its container and its own limit leave."""
    import psutil  # type: ignore[import-untyped] # it has no stubs

    return max(0, min(int(psutil.virtual_memory().available), _left_of_address_space(), _left_of_container()))


def _left_of_address_space() -> int:
    """Bytes that `ulimit -v` leaves."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - int(psutil.Process().memory_info().vms)


def _left_of_container() -> int:
    """Bytes that this process's control groups leave, of version 1 or 2; cached files count as free."""
    left = sys.maxsize
    for version, limit, used, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        own = _own_group(version)
        for group in () if own is None else (own, *own.parents):
            if not group.is_relative_to(_CGROUPS):
                break
            try:
                free = int((group / limit).read_text()) - int((group / used).read_text())
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                left = min(left, free + int(statistics[cached]))
            except (OSError, ValueError, KeyError):  # no such group, or no limit ("max")
                continue
    return left


def _own_group(controller: str) -> Path | None:
    """The folder of this process's control group."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    names = [name.lstrip("/") for _, controllers, name in lines if controller in controllers.split(",")]
    return _CGROUPS / controller / names[0] if names else None
