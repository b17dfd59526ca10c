"""Work shared by the processes of torch.distributed."""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from scalenet_zoo.core.errors import ZooError

_T = TypeVar("_T")


def rank_and_world() -> tuple[int, int]:
    """The rank of this process and the number of processes; (0, 1) if there is only this one."""
    if "torch" not in sys.modules:  # then there is no process group, and reading a run's files needs no torch
        return 0, 1
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def is_launched_first() -> bool:
    """Tell whether torchrun or accelerate launch started this process first; known before processes have joined."""
    return os.environ.get("RANK", "0") == "0"


def on_all_ranks(make: Callable[[], _T]) -> list[_T]:
    """Call `make` in each process and give all results to each of them; if it fails in one process, all fail.

    Raises:
        ZooError: `make` raised it, in this process or another.
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
    """Call `make` in the first process and give its result to all; if it fails there, all processes fail.

    Raises:
        ZooError: `make` raised it.
    """
    made: _T = on_all_ranks(lambda: make() if rank_and_world()[0] == 0 else None)[0]  # type: ignore[assignment]
    return made


def all_gather(share: _T) -> list[_T]:
    """Give the shares of all processes, in the order of their ranks, to each of them."""
    world = rank_and_world()[1]
    if world == 1:
        return [share]
    import torch.distributed

    shares: list[Any] = [None] * world
    torch.distributed.all_gather_object(shares, share)
    return shares


def leave() -> None:
    """Leave torch.distributed's process group, if there is one."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # networks in reference cycles hold the group too, and its threads end with it
