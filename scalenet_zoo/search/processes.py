"""What processes that torch.distributed joins do together."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed

from scalenet_zoo.errors import ZooError
from scalenet_zoo.metrics import gather

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Which process this is, of how many."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def main_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, for all of them; where it fails there, all fail alike.

    Raises:
        ZooError: as `make`.
    """
    made: T | None = None
    error: ZooError | None = None
    if place()[0] == 0:
        try:
            made = make()
        except ZooError as problem:
            error = problem
    shared: tuple[T, ZooError | None] = gather((made, error))[0]  # type: ignore[assignment]
    if shared[1] is not None:
        raise shared[1]
    return shared[0]
