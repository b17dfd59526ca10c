"""The configuration of a ScaleNet search: base model and scaling strategies of a family of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.search.config import SearchConfig
from scalenet_zoo.search.scalenet.limits import Limits, scaled_stages
from scalenet_zoo.search.settings import LatencySettings, ScoringSettings, SearchSettings, Whole
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.zoo.kinship import check_inheritance

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats

Baseline = Literal["random", "compound", "separate"]


class ScaleNetScoring(ScoringSettings):
    """How networks are scored.

    Attributes:
        paths: `both` coupled paths, or only the left one (`single`), which is all that a one-sided supernet has.
    """

    paths: Literal["both", "single"] = "both"


class MCEASettings(SearchSettings):
    """Settings of Markov-chain evolution; the defaults are the paper's (ScaleNet, ECCV 2022).

    Attributes:
        population: number of base models in a generation.
        generations: number of generations in a round.
        rounds: number of rounds of the Markov chain, after round 0.
        keep: number of base models that a round passes on to the next.
        first_bases: number of random base models with which round 0 ranks strategies.
        weights: weights of the stages above 0 in a base model's fitness; None: equal weights.
        strategies_at_most: the most strategies of a stage to score; if more are admissible, evolution chooses them.
    """

    population: Annotated[int, Field(ge=2)] = 64
    generations: Whole = 40
    rounds: Whole = 8
    keep: Whole = 50
    first_bases: Whole = 20
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    strategies_at_most: Annotated[int, Field(ge=4)] = 200

    def shares(self, stages: Sequence[int]) -> Floats:
        """Compute the share of each stage in the fitness, (stages,).

        Raises:
            InputError: there is not one weight per stage, or all weights are 0.
        """
        weights = np.ones(len(stages)) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if len(weights) != len(stages) or weights.sum() == 0:
            raise InputError(
                f"weights: found {weights.tolist()}, expected one for each of the stages"
                f" {', '.join(map(str, stages))}, not all 0"
            )
        shares: Floats = weights / weights.sum()
        return shares


class ScaleNetConfig(SearchConfig):
    """The configuration of a ScaleNet search.

    Attributes:
        extrapolate: number of stages that the family gets beyond those searched.
    """

    limits: Limits = Limits()
    supernet: ScaleNetSettings = ScaleNetSettings()
    scoring: ScaleNetScoring = ScaleNetScoring()
    search: MCEASettings = MCEASettings()
    latency: LatencySettings = LatencySettings()
    baselines: tuple[Baseline, ...] = ()
    extrapolate: Annotated[int, Field(ge=0, le=10)] = 2

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str) -> Self:
        """See `SearchConfig.from_values`; networks of a one-sided supernet have a single path."""
        supernet, scoring = (values.get(name, {}) for name in ("supernet", "scoring"))
        one_sided = isinstance(supernet, dict) and (supernet.get("inherit") or supernet.get("sides") == "left")
        if one_sided and isinstance(scoring, dict):
            values = {**values, "scoring": {"paths": "single", **scoring}}
        return super().from_values(values, source)

    def open_space(self) -> Space:
        """See `SearchConfig.open_space`."""
        return Space.load(self.space) if isinstance(self.space, str) else Space.from_values(self.space, "space")

    @property
    def task(self) -> Task:
        """Classification."""
        return "classification"

    def make_recipe(self) -> Recipe:
        """See `SearchConfig.make_recipe`."""
        return self.supernet.make_recipe()

    def check_settings(self) -> None:
        """See `SearchConfig.check_settings`."""
        space = self.open_space()
        self.search.shares(scaled_stages(space))
        self.supernet.make_sampler(space)
        if self.supernet.inherit is not None:
            check_inheritance(self.supernet.inherit, space.largest_spec(classes=2))
        if not self.supernet.coupled and self.scoring.paths == "both":
            raise InputError("scoring: paths: found both, expected single: the supernet is one-sided (left)")
        for name in self.limits.given:
            self.limits.amounts(name, [each.stage for each in space.scaling])
