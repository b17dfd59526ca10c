"""What processes that torch.distributed joins do together."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from scalenet_zoo.core.errors import ZooError

_T = TypeVar("_T")


def rank_and_world() -> tuple[int, int]:
    """Which process this is, of how many."""
    if "torch" not in sys.modules:  # nobody can have joined processes, and reading a run's files needs no torch
        return 0, 1
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def is_launched_first() -> bool:
    """Whether this is the first process that torchrun or accelerate launch started; known before they have joined."""
    return os.environ.get("RANK", "0") == "0"


def on_all_ranks(make: Callable[[], _T]) -> list[_T]:
    """What `make` gives in each process, for all of them; where it fails in one, all fail alike.

    Raises:
        ZooError: as `make`.
    """
    if rank_and_world()[1] == 1:
        return [make()]
    made: _T | ZooError
    try:
        made = make()
    except ZooError as error:
        made = error
    shared = all_gather(made)
    for each in shared:
        if isinstance(each, ZooError):
            raise each
    return shared  # type: ignore[return-value]


def on_main_rank(make: Callable[[], _T]) -> _T:
    """What `make` gives in the first process, for all of them; where it fails there, all fail alike.

    Raises:
        ZooError: as `make`.
    """
    made: _T = on_all_ranks(lambda: make() if rank_and_world()[0] == 0 else None)[0]  # type: ignore[assignment]
    return made


def all_gather(share: _T) -> list[_T]:
    """What each process has, for all processes."""
    world = rank_and_world()[1]
    if world == 1:
        return [share]
    import torch.distributed

    shares: list[Any] = [None] * world
    torch.distributed.all_gather_object(shares, share)
    return shares


def leave() -> None:
    """Leave the processes that torch.distributed joined, if it did."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
