"""How supernets are trained: the section `supernet` of a configuration, apart from what uses it and needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.arch.spec import Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.supernet.samplers import (
    GroupedSampler,
    HierarchicalSampler,
    Sampler,
    SandwichSampler,
    TopologySampler,
    TopologySandwichSampler,
    UniformSampler,
    UniformTopologySampler,
)
from scalenet_zoo.training.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task
    from scalenet_zoo.spaces.scalenas import MultipathSpace
    from scalenet_zoo.spaces.scalenet import Space

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
        recipe: values that differ from the recipe of the supernet's kind.
    """

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


class SupernetSettings(LoopSettings):
    """How a super-supernet is trained.

    Attributes:
        sampler: which networks a step works on: `hierarchical` and `uniform` one, `sandwich` four.
        stage_probabilities: of the hierarchical sampler; None: by the number of multipliers.
        resolution: `stage`: of the scaling stage that was drawn; `random`: any of the space's.
        recipe: values that differ from recipe.yaml, the paper's.
    """

    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    stage_probabilities: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    resolution: Literal["stage", "random"] = "stage"

    def make_recipe(self) -> Recipe:
        """The recipe.

        Raises:
            InputError: a value is unknown, out of range, or has no meaning for a supernet.
        """
        paper = load_recipe(str(files("scalenet_zoo.supernet") / "recipe.yaml"))
        return check_recipe(paper.replace(self.recipe, "supernet: recipe"), {"opt": "sgd", "train_size": None})

    def make_sampler(self, space: Space) -> Sampler:
        """The sampler.

        Raises:
            InputError: the stage probabilities are not for the space, or for another sampler.
        """
        if self.stage_probabilities is not None and self.sampler == "uniform":
            raise InputError("supernet: stage_probabilities: found some, expected none for the uniform sampler")
        if self.sampler == "uniform":
            return UniformSampler(space)
        hierarchical = HierarchicalSampler(space, self.stage_probabilities)
        return SandwichSampler(space, hierarchical) if self.sampler == "sandwich" else hierarchical


class TeacherSettings(Strict):
    """How the teacher comes about; without any, the largest network is trained first, with the supernet's recipe.

    Attributes:
        weights: of one that is trained already: a folder of `train`, `hf-hub:org/name`, or a safetensors file for the
            largest network.
        pretrained: the zoo's name of the one that is trained first, from published weights, such as hrnet_w32; None:
            the largest, from nothing.
        recipe: values of its training that differ from the supernet's.
    """

    weights: str | None = None
    pretrained: str | None = None
    recipe: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.weights is not None and (self.pretrained is not None or self.recipe):
            raise ValueError("found weights with pretrained or recipe, expected one: what has weights is not trained")
        return self

    def make_recipe(self, recipe: Recipe, task: Task) -> Recipe:
        """How it is trained, where the supernet is trained by `recipe`.

        Raises:
            InputError: a value is unknown, out of range, or for another task.
        """
        where = "supernet: teacher: recipe"
        changed = recipe.replace(self.recipe, where)
        changed.check_task(task, self.recipe, where)
        return changed


_RECIPES = {"segmentation": "cityscapes", "pose": "coco-pose"}
"""Recipes that a supernet's differs from."""


class MultipathSettings(LoopSettings):
    """How a multipath supernet is trained.

    Attributes:
        sampler: which networks a step works on: `grouped` and `uniform` one, `sandwich` four.
        teacher: how the network comes about that the others learn from.
        distill_weight: of the difference to the teacher's prediction in the loss; 0: nobody teaches.
        init: where the supernet's weights begin: at the `teacher`'s, or from `scratch`.
        recipe: values that differ from the recipe cityscapes or coco-pose, by the space's head; images have the size
            of the space's input if no `train_size` is given.
    """

    sampler: Literal["grouped", "uniform", "sandwich"] = "grouped"
    teacher: TeacherSettings = TeacherSettings()
    distill_weight: Annotated[float, Field(ge=0)] = 1.0
    init: Literal["teacher", "scratch"] = "teacher"

    def make_recipe(self, head: Literal["segmentation", "pose"]) -> Recipe:
        """The recipe for a space with this head.

        Raises:
            InputError: a value is unknown, out of range, for another task, or has no meaning for a supernet.
        """
        where = "supernet: recipe"
        if "distill_weight" in self.recipe:
            raise InputError(f"{where}: distill_weight: found it in the recipe, expected supernet: distill_weight")
        own = {"train_size": None, **self.recipe, "distill_weight": self.distill_weight}
        recipe = load_recipe(_RECIPES[head]).replace(own, where)
        recipe.check_task(head, self.recipe, where)
        return check_recipe(recipe, {})

    def make_sampler(self, space: MultipathSpace) -> TopologySampler:
        """The sampler; what the sandwich rule has between the ends is drawn uniformly."""
        if self.sampler == "grouped":
            return GroupedSampler(space)
        uniform = UniformTopologySampler(space)
        return TopologySandwichSampler(space, uniform) if self.sampler == "sandwich" else uniform

    @property
    def needs_teacher(self) -> bool:
        """Whether there is anything for a teacher to do."""
        return self.distill_weight > 0 or self.init == "teacher"
