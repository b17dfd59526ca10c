"""Settings for training any supernet: what the section `supernet` has in both searches' configurations. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from scalenet_zoo.core.documents import Strict
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
"""Values that no supernet's recipe can change."""


class LoopSettings(Strict):
    """Settings for training any supernet.

    Attributes:
        processes: whether all processes train the `same` architectures in a step, or `different` ones.
        inherit: the network, as `create_model` takes it, with whose published weights the supernet begins; None: it
            begins with random weights.
        recipe: values that differ from the recipe for this kind of supernet.
    """

    inherit: Annotated[str | None, Field(exclude_if=lambda source: source is None)] = None
    processes: Literal["same", "different"] = "same"
    recipe: dict[str, JsonValue] = Field(default_factory=dict)


def check_recipe(recipe: Recipe, fixed: Mapping[str, object]) -> Recipe:
    """Refuse values of a recipe that have no meaning for a supernet.

    Args:
        recipe: the recipe to check.
        fixed: values that this kind of supernet cannot change, in addition to those that no supernet can.

    Returns:
        The same recipe.

    Raises:
        InputError: a value has no meaning for the supernet.
    """
    for name, expected in {**fixed, **_FIXED}.items():
        if (found := getattr(recipe, name)) != expected:
            raise InputError(f"supernet: recipe: {name}: found {found}, expected {expected} for a supernet")
    if recipe.amp == "fp16":
        raise InputError("supernet: recipe: amp: found fp16, expected bf16 or no for a supernet")
    return recipe
