"""How ScaleNAS's supernet is trained: the section `supernet` of a configuration; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.arch.spec import Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.supernet.scalenas.samplers import (
    GroupedSampler,
    TopologySampler,
    TopologySandwichSampler,
    UniformTopologySampler,
)
from scalenet_zoo.supernet.settings import LoopSettings, check_recipe
from scalenet_zoo.training.recipe import Recipe, packaged_recipe

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task
    from scalenet_zoo.spaces.scalenas import MultipathSpace


class TeacherSettings(Strict):
    """How the teacher comes about; without any, the largest network is trained first, with the supernet's recipe.

    Attributes:
        weights: of one that is trained already: a folder of `train`, `hf-hub:org/name`, or a file of weights for the
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


class ScaleNASSettings(LoopSettings):
    """How ScaleNAS's supernet is trained.

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

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = self.teacher.weights or self.teacher.pretrained
        if self.inherit is not None and given is not None and self.init == "teacher":
            raise ValueError(f"inherit: found it with the teacher {given}, whose weights the supernet begins with")
        return self

    def make_recipe(self, head: Literal["segmentation", "pose"]) -> Recipe:
        """The recipe for a space with this head.

        Raises:
            InputError: a value is unknown, out of range, for another task, or has no meaning for a supernet.
        """
        where = "supernet: recipe"
        if "distill_weight" in self.recipe:
            raise InputError(f"{where}: distill_weight: found it in the recipe, expected supernet: distill_weight")
        own = {"train_size": None, **self.recipe, "distill_weight": self.distill_weight}
        recipe = packaged_recipe(_RECIPES[head]).replace(own, where)
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
