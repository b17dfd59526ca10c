"""What every training loop sets up alike: processes, precision, seeds, and a folder that is its own."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, InitProcessGroupKwargs

from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.training.recipe import Recipe

PROCESS_TIMEOUT = timedelta(hours=12)
"""How long processes wait for each other: for hours the first one alone may decode images or measure latencies."""


def make_accelerator(recipe: Recipe, cpu: bool, has_dead_ends: bool = False) -> Accelerator:
    """Accelerate, for a run of its own.

    Args:
        recipe: its precision and seed.
        cpu: stay on the CPU, GPU or not.
        has_dead_ends: whether some weights get no gradient.

    Raises:
        InputError: fp16 is asked for without a GPU.
    """
    cpu = cpu or not torch.cuda.is_available()
    if recipe.amp == "fp16" and cpu:
        raise InputError("amp: found fp16 without a GPU, expected bf16 or no")
    AcceleratorState._reset_state()  # of an earlier run in this process, whose precision may have been another
    return Accelerator(
        mixed_precision=recipe.amp,
        cpu=cpu,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=recipe.seed),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=has_dead_ends),
            InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT),
        ],
    )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let this run, all its processes together, be the only one at work in a folder; see `run_folder.hold`.

    Raises:
        TrainingError: another run is at work in it; all processes of this one say so.
        OutputError: the folder cannot be written.
    """
    with ExitStack() as held:
        on_main_rank(lambda: held.enter_context(hold(folder)))
        yield


def seed_step(*values: int) -> None:
    """Seed everything that draws numbers in a step."""
    number = int(np.random.SeedSequence(values).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
