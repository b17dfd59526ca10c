"""Which networks, base models with their scaling, a training step of ScaleNet's supernet works on: a class a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling

if TYPE_CHECKING:
    from scalenet_zoo.spaces.scalenet import Space


class Sampler(Protocol):
    """Draws the networks of a step."""

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Base models with their scaling."""
        ...


@dataclass(frozen=True)
class HierarchicalSampler:
    """The hierarchical sampling strategy (HSS; ScaleNet, ECCV 2022, section 3.3).

    First the scaling stage, then its depth, width and resolution uniformly, then the base model uniformly.

    Attributes:
        space: to draw from.
        probabilities: of the stages, in any unit; None: proportional to how many multipliers a stage offers.

    Raises:
        InputError: there are more or fewer probabilities than stages, or they are not positive.
    """

    space: Space
    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        weights, stages = self.probabilities, len(self.space.scaling)
        if weights is not None and (len(weights) != stages or min(weights) < 0 or not sum(weights) > 0):
            raise InputError(
                f"stage_probabilities: found {list(weights)}, expected {stages} numbers, one a scaling stage of the"
                f" space {self.space.name}, none below 0"
            )

    @cached_property
    def shares(self) -> np.ndarray:
        """The probability of each stage, (stages,)."""
        offered = [len(stage.depth) for stage in self.space.scaling]
        weights = np.asarray(offered if self.probabilities is None else self.probabilities, dtype=np.float64)
        shares: np.ndarray = weights / weights.sum()
        return shares

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """One network."""
        stage = self.space.scaling[rng.choice(len(self.shares), p=self.shares)]
        scaling = Scaling(
            stage.stage,
            float(rng.choice(stage.depth)),
            float(rng.choice(stage.width)),
            int(rng.choice(stage.resolution)),
        )
        return [Candidate(self.space.sample(rng, 1)[0], scaling)]


@dataclass(frozen=True)
class UniformSampler:
    """Depth, width and resolution uniformly among those of all stages, each apart; then the base model uniformly.

    Small and large networks are then rare: most mix multipliers of different stages.
    """

    space: Space

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """One network; its `stage` is the one that its width is from."""
        space = self.space
        depths = [depth for stage in space.scaling for depth in stage.depth]
        widths = [(stage.stage, width) for stage in space.scaling for width in stage.width]
        resolutions = [pixels for stage in space.scaling for pixels in stage.resolution]
        stage, width = widths[rng.integers(len(widths))]
        scaling = Scaling(stage, float(rng.choice(depths)), width, int(rng.choice(resolutions)))
        return [Candidate(space.sample(rng, 1)[0], scaling)]


@dataclass(frozen=True)
class SandwichSampler:
    """The sandwich rule (BigNAS, ECCV 2020): the largest network, the smallest, and two drawn by another rule.

    The largest one comes first: the others learn from it in the same step.
    """

    space: Space
    between: Sampler

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Four networks."""
        ends = [
            Candidate(self.space.largest, self.space.largest_scaling),
            Candidate(self.space.smallest, self.space.unscaled),
        ]
        return [*ends, *self.between.sample(rng), *self.between.sample(rng)]
