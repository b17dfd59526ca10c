"""What processes that torch.distributed joins do together."""

import sys
from collections.abc import Callable
from typing import TypeVar

from scalenet_zoo.errors import ZooError

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Which process this is, of how many."""
    if "torch" not in sys.modules:  # nobody can have joined processes, and reading a run's files needs no torch
        return 0, 1
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def everywhere(make: Callable[[], T]) -> list[T]:
    """What `make` gives in each process, for all of them; where it fails in one, all fail alike.

    Raises:
        ZooError: as `make`.
    """
    if place()[1] == 1:
        return [make()]
    from scalenet_zoo.metrics import gather

    made: T | ZooError
    try:
        made = make()
    except ZooError as error:
        made = error
    shared = gather(made)
    for each in shared:
        if isinstance(each, ZooError):
            raise each
    return shared  # type: ignore[return-value]


def main_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, for all of them; where it fails there, all fail alike.

    Raises:
        ZooError: as `make`.
    """
    made: T = everywhere(lambda: make() if place()[0] == 0 else None)[0]  # type: ignore[assignment]
    return made
