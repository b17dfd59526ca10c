"""Samplers of the topologies that a training step of ScaleNAS's supernet trains: one class per rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scalenet_zoo.spaces.scalenas import Group, Topologies

if TYPE_CHECKING:
    import numpy as np

    from scalenet_zoo.spaces.scalenas import MultipathSpace


class TopologySampler(Protocol):
    """A rule that draws the multipath networks of a step."""

    def sample(self, rng: np.random.Generator) -> Topologies:
        """Draw one topology or several."""
        ...


@dataclass(frozen=True)
class GroupedSampler:
    """Grouped sampling (ScaleNAS, AutoML-Conf 2022, section 3): first a group, uniformly, then a topology within it."""

    space: MultipathSpace

    def sample(self, rng: np.random.Generator) -> Topologies:
        """Draw one topology."""
        return self.space.sample(rng, 1)


@dataclass(frozen=True)
class UniformTopologySampler:
    """Each depth uniformly among all, each path with probability 1/2; nearly all networks are of medium size."""

    space: MultipathSpace

    def sample(self, rng: np.random.Generator) -> Topologies:
        """Draw one topology."""
        return self.space.sample_group(rng, Group(self.space.depths, 0.5), 1)


@dataclass(frozen=True)
class TopologySandwichSampler:
    """The sandwich rule (BigNAS, ECCV 2020): the largest network, the smallest, and two drawn by another rule."""

    space: MultipathSpace
    between: TopologySampler

    def sample(self, rng: np.random.Generator) -> Topologies:
        """Draw four topologies."""
        ends = [self.space.largest[None], self.space.smallest[None]]
        return Topologies.joined([*ends, self.between.sample(rng), self.between.sample(rng)])
