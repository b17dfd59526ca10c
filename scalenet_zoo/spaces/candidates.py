"""What is scored, a base model under a scaling strategy, and what scores it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.spaces.scalenet import Scaling


@dataclass(frozen=True, eq=False)
class Candidate:
    """A base model under a scaling strategy.

    Attributes:
        kernels: of the base model's layers, (stages, layers), 0 where there is no such layer.
        scaling: the strategy.
    """

    kernels: Integers
    scaling: Scaling

    @cached_property
    def key(self) -> str:
        """Canonical JSON: kernels without the absent layers, depth, width, resolution; the same for the same network.

        The stage is left out: two stages that share a strategy share its scores.
        """
        kernels = [[int(kernel) for kernel in row if kernel] for row in self.kernels]
        return json.dumps(
            [kernels, float(self.scaling.depth), float(self.scaling.width), int(self.scaling.resolution)],
            separators=(",", ":"),
        )


class Scorer(Protocol):
    """What scores networks and remembers the scores on disk.

    Attributes:
        seconds: spent scoring, in this sitting.
    """

    seconds: float

    @property
    def images_each(self) -> int:
        """Images that pass forward to score one network: along all paths, and to estimate batch-norm statistics."""
        ...

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """Accuracy, 0 to 1, of each; they may repeat, and those that have a score cost nothing."""
        ...
