"""Optimisers and schedules, timm's, and what a step needs to work."""

import logging
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec, Input
from scalenet_zoo.arch.trace import Op, trace
from scalenet_zoo.core.distributed import rank_and_world
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.training.recipe import Recipe

_logger = logging.getLogger(__name__)


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
        raise InputError(f"opt: found {quoted(recipe.opt)}, expected one of timm's optimisers: {error}") from None
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:  # noqa: ANN401 - timm's
    """Timm's schedule, a function of the optimiser's steps alone; None for the schedule `none`.

    A warm-up that training ends before is told.

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
        raise InputError(f"sched: found {quoted(recipe.sched)}: {error}") from None
    if scheduler is not None and recipe.warmup_epochs >= recipe.epochs and rank_and_world()[0] == 0:
        share = recipe.epochs / recipe.warmup_epochs
        _logger.warning(
            "warmup_epochs: found %g, expected fewer than the %d epochs: the learning rate ends at %.2g, never at %g",
            recipe.warmup_epochs,
            recipe.epochs,
            recipe.warmup_lr + share * (recipe.lr - recipe.warmup_lr),
            recipe.lr,
        )
    return scheduler


def check_batch_norm(spec: ArchSpec, recipe: Recipe) -> None:
    """See that each batch norm gets more than one value a channel in a step: of one there is no deviation.

    Args:
        spec: of the network.
        recipe: the images worked on at once, over all processes, and their size.

    Raises:
        InputError: one image alone is worked on at once, and shrinks to 1x1 before a batch norm.
    """
    if recipe.batch_size > recipe.grad_accum_steps:
        return
    height, width = recipe.train_size or (spec.input.height, spec.input.width)
    steps = trace(spec.network, Input(channels=spec.input.channels, height=height, width=width), spec.classes)
    if any(steps.shapes[op.output][1:] == (1, 1) and _is_normalised(op, steps.shapes) for op in steps.ops):
        raise InputError(
            f"batch_size: found {recipe.batch_size} with {recipe.grad_accum_steps} grad_accum_steps, expected"
            f" {2 * recipe.grad_accum_steps} or more: batch norms cannot learn from a single image of {height}x{width}"
        )


def _is_normalised(op: Op, shapes: list[tuple[int, int, int]]) -> bool:
    """Whether a batch norm follows an operation: its weight and bias then count among the operation's parameters."""
    before, after = shapes[op.inputs[0]][0], shapes[op.output][0]
    return op.kind == "conv" and op.params - before // op.groups * after * op.kernel**2 >= 2 * after


def restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimiser's tensors out in memory as its weights are: sums over them are then taken in the same order."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
