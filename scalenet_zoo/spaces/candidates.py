"""Candidates of ScaleNet's search: base models under scaling strategies, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from scalenet_zoo.spaces.scalenet import Scaling

if TYPE_CHECKING:
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.spaces.scalenet import Space

Kernels = tuple[tuple[int, ...], ...]
"""A base model: the kernels of each stage's layers, without zeros."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A base model under a scaling strategy.

    Attributes:
        kernels: kernels of the base model's layers, (stages, layers); 0 where there is no such layer.
        scaling: the strategy.
    """

    kernels: Integers
    scaling: Scaling

    @cached_property
    def key(self) -> str:
        """The network's name: kernels of each stage, depth, width and resolution, such as `3-5.7-3@1.1x1.2x40`.

        It leaves out the scaling stage, so two stages that share a strategy share its scores.
        """
        return candidate_key(to_kernels(self.kernels), self.scaling.depth, self.scaling.width, self.scaling.resolution)

    @classmethod
    def from_key(cls, space: Space, key: str) -> Candidate:
        """Make the candidate of a name; its stage is the first that offers its strategy, or 0 if none does."""
        stages, _, scaling = key.partition("@")
        depth, width, resolution = scaling.split("x")
        figures = float(depth), float(width), int(resolution)
        offering = (
            each.stage
            for each in space.scaling
            if figures[0] in each.depth and figures[1] in each.width and figures[2] in each.resolution
        )
        kernels = space.to_array([[int(kernel) for kernel in stage.split(".")] for stage in stages.split("-")])
        return cls(kernels, Scaling(next(offering, 0), *figures))


def candidate_key(kernels: Sequence[Sequence[int]], depth: float, width: float, resolution: int) -> str:
    """Make the name of a base model under a strategy; see `Candidate.key`."""
    stages = "-".join(".".join(map(str, stage)) for stage in kernels)
    return f"{stages}@{float(depth)!r}x{float(width)!r}x{int(resolution)}"


def to_kernels(base: Integers) -> Kernels:
    """Convert a base model (stages, layers) to tuples of kernels, without the zeros of absent layers."""
    return tuple(tuple(int(kernel) for kernel in row if kernel) for row in base)
