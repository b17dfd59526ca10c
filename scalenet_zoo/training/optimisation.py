"""timm's optimisers and schedules, and a check that batch norms can learn from a step."""

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
    """Make timm's optimiser for a network; biases and norms have no weight decay.

    Raises:
        InputError: timm has no optimiser of this name.
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
    """Make timm's schedule, a function of the optimiser steps only; return None for the schedule `none`.

    A warning is logged if training ends before the warm-up.

    Raises:
        InputError: timm has no schedule of this name, or the schedule depends on metrics.
    """
    if recipe.sched == "plateau":
        raise InputError("sched: found plateau, expected a schedule that depends on steps alone")
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
        raise InputError(f"sched: found {quoted(recipe.sched)}, expected one of timm's schedules: {error}") from None
    if scheduler is not None and recipe.warmup_epochs >= recipe.epochs and rank_and_world()[0] == 0:
        share = recipe.epochs / recipe.warmup_epochs
        _logger.warning(
            "warmup_epochs: found %g, expected fewer than the %d epochs:"
            " the learning rate ends at %.2g and never reaches %g",
            recipe.warmup_epochs,
            recipe.epochs,
            recipe.warmup_lr + share * (recipe.lr - recipe.warmup_lr),
            recipe.lr,
        )
    return scheduler


def check_batch_norm(spec: ArchSpec, recipe: Recipe) -> None:
    """Check that each batch norm gets more than one value per channel in a step: one value has no variance.

    Args:
        spec: the spec of the network.
        recipe: the recipe, which sets how many images all processes handle at once, and their size.

    Raises:
        InputError: images are processed one at a time, and shrink to 1x1 before a batch norm.
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
    """Tell whether a batch norm follows an operation, whose parameters then include its weight and bias."""
    before, after = shapes[op.inputs[0]][0], shapes[op.output][0]
    return op.kind == "conv" and op.params - before // op.groups * after * op.kernel**2 >= 2 * after


def restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's tensors the memory layout of its weights, so that sums run in the same order as before."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
