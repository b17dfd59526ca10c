"""How any supernet is trained: what the sections `supernet` of both searches' configurations share; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from scalenet_zoo.arch.spec import Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.training.recipe import Recipe

_FIXED = {
    "grad_accum_steps": 1,
    "layer_decay": None,
    "model_ema_decay": None,
    "torchcompile": False,
    "drop": 0.0,
    "drop_path": 0.0,
}
"""What a supernet's recipe cannot change."""


class LoopSettings(Strict):
    """How any supernet is trained.

    Attributes:
        processes: whether all processes work on the `same` architectures in a step, or on `different` ones.
        inherit: the network whose weights the supernet begins with, as `create_model` takes it, with its published
            weights; None: it begins with weights drawn at random.
        recipe: values that differ from the recipe of the supernet's kind.
    """

    inherit: Annotated[str | None, Field(exclude_if=lambda source: source is None)] = None
    processes: Literal["same", "different"] = "same"
    recipe: dict[str, JsonValue] = Field(default_factory=dict)


def check_recipe(recipe: Recipe, fixed: Mapping[str, object]) -> Recipe:
    """Refuse what has no meaning for a supernet.

    Args:
        recipe: how to train.
        fixed: what the supernet's kind cannot change besides what none can.

    Returns:
        The same.

    Raises:
        InputError: a value is such.
    """
    for name, expected in {**fixed, **_FIXED}.items():
        if (found := getattr(recipe, name)) != expected:
            raise InputError(f"supernet: recipe: {name}: found {found}, expected {expected} for a supernet")
    if recipe.amp == "fp16":
        raise InputError("supernet: recipe: amp: found fp16, expected bf16 or no for a supernet")
    return recipe
