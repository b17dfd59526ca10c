"""Functions run in several processes that torch.distributed joins, over gloo."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed
from torch.multiprocessing.spawn import spawn


def run_processes(function: Callable[..., Any], world: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `function(rank, world, *arguments)` gives in each process; `folder` is an empty one."""
    spawn(_run, (function, world, folder, arguments), world)  # type: ignore[no-untyped-call]
    return [pickle.loads((folder / f"result{rank}").read_bytes()) for rank in range(world)]


def _run(rank: int, function: Callable[..., Any], world: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    try:
        (folder / f"result{rank}").write_bytes(pickle.dumps(function(rank, world, *arguments)))
    finally:
        torch.distributed.destroy_process_group()
