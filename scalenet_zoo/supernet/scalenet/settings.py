"""Settings for training ScaleNet's supernet: the section `supernet` of a configuration. This needs no torch."""

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
    """Settings for training ScaleNet's supernet.

    Attributes:
        sampler: how the networks of a step are drawn: `hierarchical` and `uniform` draw one, `sandwich` draws four.
        stage_probabilities: the hierarchical sampler's probabilities of scaling stages; None: in proportion to the
            number of a stage's multipliers.
        resolution: `stage` draws a resolution of the drawn scaling stage, `random` any resolution of the space.
        sides: which ends of the wide layers' channels networks take: `both` in turn, the paper's bilateral coupling, or
            only the `left`, where inherited channels are sorted by importance (as in BigNAS, ECCV 2020); None: left
            with `inherit`, else both.
        recipe: values that differ from recipe.yaml, the paper's recipe.
    """

    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    stage_probabilities: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    resolution: Literal["stage", "random"] = "stage"
    sides: Annotated[Literal["both", "left"] | None, Field(exclude_if=lambda sides: sides is None)] = None

    @model_validator(mode="after")
    def _one_sided(self) -> Self:
        if self.inherit is not None and self.sides == "both":
            raise ValueError("sides: found both with inherit, expected left, where the inherited channels are")
        return self

    @property
    def coupled(self) -> bool:
        """Whether networks take channels from both ends in turn (bilateral coupling)."""
        return self.sides == "both" or (self.sides is None and self.inherit is None)

    def make_recipe(self) -> Recipe:
        """Make the complete recipe.

        Raises:
            InputError: a value is unknown, out of range, or has no meaning for a supernet.
        """
        paper = packaged_recipe(str(files("scalenet_zoo.supernet.scalenet") / "recipe.yaml"))
        return check_recipe(paper.replace(self.recipe, "supernet: recipe"), {"opt": "sgd", "train_size": None})

    def make_sampler(self, space: Space) -> Sampler:
        """Make the sampler.

        Raises:
            InputError: the stage probabilities do not fit the space or the sampler.
        """
        if self.stage_probabilities is not None and self.sampler == "uniform":
            raise InputError("supernet: stage_probabilities: found some, expected none for the uniform sampler")
        if self.sampler == "uniform":
            return UniformSampler(space)
        hierarchical = HierarchicalSampler(space, self.stage_probabilities)
        return SandwichSampler(space, hierarchical) if self.sampler == "sandwich" else hierarchical
