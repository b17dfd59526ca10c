"""Choices of networks that studies train alone: drawn at random, or spread over the range of a figure."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.candidates import Candidate

Network = TypeVar("Network")


def draw_networks(bounds: Bounds, stage: int, count: int, rng: np.random.Generator) -> list[Candidate]:
    """Draw different networks of a stage: base models within the limits, each with a strategy that is admissible."""
    sampler, drawn = FeasibleSampler(bounds), dict[str, Candidate]()
    while len(drawn) < count:
        (base,) = sampler.draw(rng, 1)
        if admissible := bounds.admissible(stage, base[None]):
            candidate = Candidate(base, admissible[rng.integers(len(admissible))])
            drawn[candidate.key] = candidate
    return list(drawn.values())


def spread(networks: Iterable[Network], figure: Callable[[Network], float], count: int) -> list[Network]:
    """Choose different networks whose figures lie nearest to `count` values spread evenly over the whole range."""
    left = sorted(networks, key=figure)
    chosen = []
    for target in np.linspace(figure(left[0]), figure(left[-1]), count):
        chosen.append(min(left, key=lambda network: abs(figure(network) - target)))
        left.remove(chosen[-1])
    return chosen
