"""Samplers of the scaled base models that a training step of ScaleNet's supernet trains: one class per rule."""

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
    """A rule that draws the networks of a step."""

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Draw base models with their scaling."""
        ...


@dataclass(frozen=True)
class HierarchicalSampler:
    """The hierarchical sampling strategy (HSS; ScaleNet, ECCV 2022, section 3.3).

    It draws the scaling stage first, then the stage's depth, width and resolution uniformly, then the base model
    uniformly.

    Attributes:
        space: the space to draw from.
        probabilities: weights of the scaling stages, which need not sum to 1; None: in proportion to the number of a
            stage's multipliers.

    Raises:
        InputError: there are more or fewer weights than stages, one is negative, or all are 0.
    """

    space: Space
    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        weights, stages = self.probabilities, len(self.space.scaling)
        if weights is not None and (len(weights) != stages or min(weights) < 0 or not sum(weights) > 0):
            raise InputError(
                f"stage_probabilities: found {list(weights)}, expected {stages} numbers, none below 0 and not all 0,"
                f" one per scaling stage of the space {self.space.name}"
            )

    @cached_property
    def shares(self) -> np.ndarray:
        """The probability of each stage, (stages,)."""
        offered = [len(stage.depth) for stage in self.space.scaling]
        weights = np.asarray(offered if self.probabilities is None else self.probabilities, dtype=np.float64)
        shares: np.ndarray = weights / weights.sum()
        return shares

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Draw one network."""
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
    """Depth, width and resolution are drawn uniformly and independently over all stages, as is the base model.

    Small and large networks are rare then, since most networks mix multipliers of different stages.
    """

    space: Space

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Draw one network; its `stage` is the stage of its width."""
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

    The largest network comes first, since the others learn from it in the same step.
    """

    space: Space
    between: Sampler

    def sample(self, rng: np.random.Generator) -> list[Candidate]:
        """Draw four networks."""
        ends = [
            Candidate(self.space.largest, self.space.largest_scaling),
            Candidate(self.space.smallest, self.space.unscaled),
        ]
        return [*ends, *self.between.sample(rng), *self.between.sample(rng)]
