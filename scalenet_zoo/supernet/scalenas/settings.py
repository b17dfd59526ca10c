"""Settings for training ScaleNAS's supernet: the section `supernet` of a configuration. This needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.core.documents import Strict
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
    """Where the teacher comes from; by default, the largest network is trained first with the supernet's recipe.

    Attributes:
        weights: a trained teacher: a folder that `train` wrote, `hf-hub:org/name`, or a file of weights for the largest
            network.
        pretrained: the zoo entry that is trained first as the teacher, from its published weights, such as hrnet_w32;
            None: the largest network, from scratch.
        recipe: values of the teacher's recipe that differ from the supernet's.
    """

    weights: str | None = None
    pretrained: str | None = None
    recipe: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.weights is not None and (self.pretrained is not None or self.recipe):
            raise ValueError("found weights with pretrained or recipe, expected only weights, which need no training")
        return self

    def make_recipe(self, recipe: Recipe, task: Task) -> Recipe:
        """Make the teacher's recipe from the supernet's.

        Raises:
            InputError: a value is unknown, out of range, or for another task.
        """
        where = "supernet: teacher: recipe"
        changed = recipe.replace(self.recipe, where)
        changed.check_task(task, self.recipe, where)
        return changed


_RECIPES = {"segmentation": "cityscapes", "pose": "coco-pose"}
"""The recipes that a supernet's recipe is based on, by head."""


class ScaleNASSettings(LoopSettings):
    """Settings for training ScaleNAS's supernet.

    Attributes:
        sampler: how the networks of a step are drawn: `grouped` and `uniform` draw one, `sandwich` draws four.
        teacher: where the network that teaches the others comes from.
        distill_weight: the weight in the loss of the difference to the teacher's prediction; 0: no teacher.
        init: whether the supernet begins with the weights of the `teacher` or from `scratch`.
        recipe: values that differ from the recipe cityscapes or coco-pose, by the space's head; without `train_size`,
            images have the size of the space's input.
    """

    sampler: Literal["grouped", "uniform", "sandwich"] = "grouped"
    teacher: TeacherSettings = TeacherSettings()
    distill_weight: Annotated[float, Field(ge=0)] = 1.0
    init: Literal["teacher", "scratch"] = "teacher"

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = self.teacher.weights or self.teacher.pretrained
        if self.inherit is not None and given is not None and self.init == "teacher":
            raise ValueError(
                f"inherit: found it with the teacher {given}, expected one of them: the supernet begins with the"
                " teacher's weights"
            )
        return self

    def make_recipe(self, head: Literal["segmentation", "pose"]) -> Recipe:
        """Make the recipe for a space with this head.

        Raises:
            InputError: a value is unknown, out of range, for another task, or has no meaning for a supernet.
        """
        where = "supernet: recipe"
        if "distill_weight" in self.recipe:
            raise InputError(f"{where}: distill_weight: found it in the recipe, expected it in the section supernet")
        own = {"train_size": None, **self.recipe, "distill_weight": self.distill_weight}
        recipe = packaged_recipe(_RECIPES[head]).replace(own, where)
        recipe.check_task(head, self.recipe, where)
        return check_recipe(recipe, {})

    def make_sampler(self, space: MultipathSpace) -> TopologySampler:
        """Make the sampler; the sandwich rule draws the networks between the extremes uniformly."""
        if self.sampler == "grouped":
            return GroupedSampler(space)
        uniform = UniformTopologySampler(space)
        return TopologySandwichSampler(space, uniform) if self.sampler == "sandwich" else uniform

    @property
    def needs_teacher(self) -> bool:
        """Whether the training uses a teacher."""
        return self.distill_weight > 0 or self.init == "teacher"
