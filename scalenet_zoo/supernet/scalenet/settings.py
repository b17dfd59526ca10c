"""How ScaleNet's supernet is trained: the section `supernet` of a configuration; needs no torch."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.supernet.scalenet.samplers import HierarchicalSampler, Sampler, SandwichSampler, UniformSampler
from scalenet_zoo.supernet.settings import LoopSettings, check_recipe
from scalenet_zoo.training.recipe import Recipe, packaged_recipe

if TYPE_CHECKING:
    from scalenet_zoo.spaces.scalenet import Space


class ScaleNetSettings(LoopSettings):
    """How ScaleNet's supernet is trained.

    Attributes:
        sampler: which networks a step works on: `hierarchical` and `uniform` one, `sandwich` four.
        stage_probabilities: of the hierarchical sampler; None: by the number of multipliers.
        resolution: `stage`: of the scaling stage that was drawn; `random`: any of the space's.
        sides: which ends of the wide layers' channels networks take, in turns: `both`, the paper's bilateral coupling,
            or the `left` alone, where inherited channels are sorted by importance (as in BigNAS, ECCV 2020); None:
            left with `inherit`, else both.
        recipe: values that differ from recipe.yaml, the paper's.
    """

    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    stage_probabilities: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    resolution: Literal["stage", "random"] = "stage"
    sides: Annotated[Literal["both", "left"] | None, Field(exclude_if=lambda sides: sides is None)] = None

    @model_validator(mode="after")
    def _one_sided(self) -> Self:
        if self.inherit is not None and self.sides == "both":
            raise ValueError("sides: found both with inherit, expected left: inherited channels lie there, sorted")
        return self

    @property
    def coupled(self) -> bool:
        """Whether networks take channels from both ends."""
        return self.sides == "both" or (self.sides is None and self.inherit is None)

    def make_recipe(self) -> Recipe:
        """The recipe.

        Raises:
            InputError: a value is unknown, out of range, or has no meaning for a supernet.
        """
        paper = packaged_recipe(str(files("scalenet_zoo.supernet.scalenet") / "recipe.yaml"))
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
