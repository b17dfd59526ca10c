"""How much memory this process may still take, and a word before more than that is asked for."""

import sys
from pathlib import Path

from scalenet_zoo.core.errors import BackendError

FLOAT_BYTES = 4
"""Bytes of a parameter."""

_CGROUPS = Path("/sys/fs/cgroup")


def check_memory(needed: float, what: str) -> None:
    """Refuse what would not fit into memory, before it is built.

    Args:
        needed: bytes.
        what: needs them, for the message.

    Raises:
        BackendError: there are fewer; the message has both figures.
    """
    if needed > (available := available_memory()):
        raise BackendError(
            f"{what}: found that it takes {needed / 1e9:,.1f} GB of memory, expected at most {available / 1e9:,.1f} GB,"
            " which this process can have"
        )


def available_memory() -> int:
    """Bytes that this process may still take: of the machine's, its container's and its own limit, the least."""
    import psutil  # type: ignore[import-untyped] # it has no stubs

    return max(0, min(int(psutil.virtual_memory().available), _left_of_address_space(), _left_of_container()))


def _left_of_address_space() -> int:
    """What `ulimit -v` leaves."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - int(psutil.Process().memory_info().vms)


def _left_of_container() -> int:
    """What the control groups of this process leave, of either version; files that the kernel caches count as free."""
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
