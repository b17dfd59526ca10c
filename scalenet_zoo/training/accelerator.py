"""The set-up of every training loop: processes, precision, seeds, and a locked folder."""

import atexit
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

from scalenet_zoo.core.distributed import leave, on_main_rank
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.training.recipe import Recipe

PROCESS_TIMEOUT = timedelta(hours=12)
"""How long processes wait for one another: the first may decode images or measure latencies for hours."""


def make_accelerator(recipe: Recipe, cpu: bool, has_dead_ends: bool = False) -> Accelerator:
    """Set up Accelerate for a new run.

    Args:
        recipe: the recipe, which sets the precision and the seed.
        cpu: use the CPU, even if there is a GPU.
        has_dead_ends: whether some weights get no gradient.

    Raises:
        InputError: fp16 is requested without a GPU.
    """
    cpu = cpu or not torch.cuda.is_available()
    if recipe.amp == "fp16" and cpu:
        raise InputError("amp: found fp16 without a GPU, expected bf16 or no")
    AcceleratorState._reset_state()  # an earlier run in this process may have used another precision
    accelerator = Accelerator(
        mixed_precision=recipe.amp,
        cpu=cpu,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=recipe.seed),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=has_dead_ends),
            InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT),
        ],
    )
    if accelerator.num_processes > 1 and torch.distributed.get_backend() == "gloo":
        # A thread of gloo that frees the tensors of the last collective while Python ends would abort the process.
        atexit.register(leave)
    return accelerator


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder for this run and all its processes; see `run_folder.hold`.

    Raises:
        TrainingError: another run is working in the folder; all processes of this run raise the error.
        OutputError: the folder cannot be written.
    """
    with ExitStack() as held:
        on_main_rank(lambda: held.enter_context(hold(folder)))
        yield


def seed_step(*values: int) -> None:
    """Seed every random generator that a step uses, from a hash of the values."""
    number = int(np.random.SeedSequence(values).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
