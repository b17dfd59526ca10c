"""Optimisers and schedules, timm's."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from scalenet_zoo.errors import InputError
from scalenet_zoo.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Timm's optimiser for a network; biases and norms have no weight decay.

    Raises:
        InputError: timm has none of this name.
    """
    more = {"eps": recipe.opt_eps} if recipe.opt_eps is not None else {}
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            recipe.opt,
            recipe.lr,
            recipe.weight_decay,
            recipe.momentum,
            layer_decay=recipe.layer_decay,
            **more,
        )
    except (ValueError, AssertionError) as error:
        raise InputError(f"opt: found {recipe.opt!r}, expected one of timm's optimisers: {error}") from None
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:  # noqa: ANN401 - timm's
    """Timm's schedule, a function of the optimiser's steps alone; None for the schedule `none`.

    Raises:
        InputError: timm has none of this name, or it depends on metrics.
    """
    if recipe.sched == "plateau":
        raise InputError("sched: found plateau, expected a schedule of steps alone")
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            recipe.sched,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.warmup_lr,
            min_lr=recipe.min_lr,
            decay_epochs=recipe.decay_epochs,
            decay_milestones=list(recipe.decay_milestones),
            decay_rate=recipe.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
    except (ValueError, AssertionError) as error:
        raise InputError(f"sched: found {recipe.sched!r}: {error}") from None
    return scheduler


def restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimiser's tensors out in memory as its weights are: sums over them are then taken in the same order."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
