"""Multi-scale topology evolution (ScaleNAS, AutoML-Conf 2022) and its baselines.

- `topology_evolution` draws networks from the groups of grouped sampling. Then, generation after generation, the best
  networks of the successive Pareto fronts (score against MACs) exchange modules, paths are flipped, and the offspring
  are scored.
- `random_search` draws all networks from the groups.
- `ageing_evolution` lets the oldest network die, and the winner of a tournament have a child with one change (Real et
  al., AAAI 2019).

All three are generators of scored networks. None of them scores a network twice, or a network that is not feasible.
What is drawn is a function of the seed and the generation: with the same scores, a killed search does the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.record import rng_at
from scalenet_zoo.spaces.scalenas import Topologies

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenas.config import TopologySettings
    from scalenet_zoo.spaces.scalenas import Bools, MultipathSpace

Judge = Callable[[Topologies], "Floats"]
"""Scores n topologies, (n,); larger is better."""
Feasible = Callable[[Topologies], "Bools"]
"""Tells which of n topologies keep the limits, (n,); the answer may change from one generation to the next."""
Draw = Callable[[], Topologies]

MOST_DRAWS = 20_000
"""Draws in a row without a new feasible network, after which a search gives up."""


@dataclass(frozen=True, eq=False)
class ScoredTopologies:
    """Topologies with their scores and costs.

    Attributes:
        topologies: n topologies, in the order in which they were scored.
        scores: their scores, (n,).
        macs: their MACs, (n,).
    """

    topologies: Topologies
    scores: Floats
    macs: Integers

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: slice | Integers | Bools) -> ScoredTopologies:
        return ScoredTopologies(self.topologies[which], self.scores[which], self.macs[which])

    @classmethod
    def joined(cls, parts: Sequence[ScoredTopologies]) -> ScoredTopologies:
        """Join several parts, in order."""
        return cls(
            Topologies.joined([part.topologies for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.macs for part in parts]),
        )

    @property
    def front(self) -> ScoredTopologies:
        """The Pareto front: the topologies that no other one beats in both score and MACs, the cheapest first."""
        return self[self.front_places]

    @property
    def front_places(self) -> Integers:
        """The positions of the topologies on the front."""
        front: Integers = NonDominatedSorting().do(self._losses, only_non_dominated_front=True)
        return front[np.lexsort((-self.scores[front], self.macs[front]))]

    def best(self, number: int) -> ScoredTopologies:
        """Take the best `number`, front by front; within a front, those with the widest gaps around them first."""
        order: list[int] = []
        for front in NonDominatedSorting().do(self._losses, n_stop_if_ranked=number):
            gaps = get_crowding_function("cd").do(self._losses[front])
            order.extend(front[np.argsort(-gaps, kind="stable")])
        return self[np.array(order[:number])]

    def hypervolume(self, macs: float) -> float:
        """Compute the area under the front up to `macs`, with MACs as shares of `macs`; 0 to 1 for scores of 0 to 1."""
        volume: float = HV(ref_point=np.array([0.0, 1.0]))(self._losses / [1.0, macs])
        return float(volume)

    @property
    def _losses(self) -> Floats:
        return np.stack([-self.scores, self.macs.astype(np.float64)], axis=1)


def cross(rng: np.random.Generator, parents: Topologies, probability: float) -> Topologies:
    """Make a child of each of n parents: each module comes, with a probability, from a second parent drawn for it."""
    number, modules = parents.depth.shape[:2]
    other = parents[(np.arange(number) + rng.integers(1, max(2, number), number)) % number]
    swapped = rng.random((number, modules)) < probability
    return Topologies(
        np.where(swapped[..., None], other.depth, parents.depth),
        np.where(swapped[..., None, None, None], other.fusion, parents.fusion),
    )


def mutate(space: MultipathSpace, rng: np.random.Generator, topologies: Topologies, probability: float) -> Topologies:
    """Flip each path of n topologies with a probability."""
    flipped = rng.random(topologies.fusion.shape) < probability
    return space.canonical(topologies.depth, topologies.fusion ^ flipped)


def change_one(space: MultipathSpace, rng: np.random.Generator, topologies: Topologies) -> Topologies:
    """Change one depth or one path of each of n topologies; both are equally likely, and may have no effect."""
    genomes, options = space.encode(topologies), np.array(space.gene_options)
    number, depths = len(genomes), sum(space.branches)
    genes = np.where(
        rng.random(number) < 0.5, rng.integers(depths, size=number), rng.integers(depths, len(options), number)
    )
    rows, options = np.arange(number), options[genes]
    genomes[rows, genes] = (genomes[rows, genes] + rng.integers(1, np.maximum(2, options))) % options
    return space.decode(genomes)


def topology_evolution(
    space: MultipathSpace, classes: int, judge: Judge, settings: TopologySettings, feasible: Feasible | None = None
) -> Iterator[ScoredTopologies]:
    """Search by multi-scale topology evolution.

    Args:
        space: the space to search.
        classes: number of classes or joints, on which MACs depend a little.
        judge: scores topologies; it is called only once for each topology.
        settings: the search's settings.
        feasible: tells which topologies keep the limits; None: all do.

    Yields:
        Scored topologies: first those drawn from the groups, then one generation at a time.

    Raises:
        BudgetError: no feasible network is found.
    """

    def breed(rng: np.random.Generator, known: ScoredTopologies) -> Draw:
        parents = known.best(settings.parents).topologies
        return lambda: mutate(space, rng, cross(rng, parents, settings.crossover), settings.mutation)

    search = _Search(space, classes, judge, settings, feasible)
    return search.run(settings.first, settings.parents, settings.evaluations, breed)


def random_search(
    space: MultipathSpace, classes: int, judge: Judge, settings: TopologySettings, feasible: Feasible | None = None
) -> Iterator[ScoredTopologies]:
    """Draw networks from the groups; the first are those that `topology_evolution` starts with.

    Arguments, yields and errors are those of `topology_evolution`.
    """

    def breed(rng: np.random.Generator, _: ScoredTopologies) -> Draw:
        return lambda: space.sample(rng, settings.parents)

    search = _Search(space, classes, judge, settings, feasible)
    return search.run(settings.first, settings.parents, 1, breed)


def ageing_evolution(
    space: MultipathSpace, classes: int, judge: Judge, settings: TopologySettings, feasible: Feasible | None = None
) -> Iterator[ScoredTopologies]:
    """Search by regularised evolution: the population consists of the youngest networks.

    Since there are two objectives, a tournament is won by a random one of the networks on its Pareto front. Arguments
    and errors are those of `topology_evolution`.

    Yields:
        Scored topologies: first the population, then one child at a time.
    """

    def breed(rng: np.random.Generator, population: ScoredTopologies) -> Draw:
        def child() -> Topologies:
            entrants = population[rng.permutation(len(population))[: settings.tournament]]
            winners = entrants.front.topologies
            return change_one(space, rng, winners[[int(rng.integers(len(winners)))]])

        return child

    search = _Search(space, classes, judge, settings, feasible)
    return search.run(settings.parents, 1, settings.parents, breed)


class _Search:
    """The loop that the three searches share; it scores each network only once."""

    def __init__(
        self,
        space: MultipathSpace,
        classes: int,
        judge: Judge,
        settings: TopologySettings,
        feasible: Feasible | None,
    ) -> None:
        self.space, self.classes, self.judge, self.settings, self.feasible = space, classes, judge, settings, feasible
        self.known: set[str] = set()
        self.parts: list[ScoredTopologies] = []

    def run(
        self, first: int, each: int, memory: int, breed: Callable[[np.random.Generator, ScoredTopologies], Draw]
    ) -> Iterator[ScoredTopologies]:
        """Score the first networks, drawn from the groups, then generations, until all evaluations are spent.

        Args:
            first: number of first networks.
            each: number of networks in a generation.
            memory: how many of the youngest networks breed.
            breed: takes the networks that breed, and returns a function that draws networks of the next generation; it
                is called as often as necessary.
        """
        drawn_by = rng_at(self.settings.seed, 0)
        yield self._score(self._new(lambda: self.space.sample(drawn_by, first), first))
        for generation in count(1):
            if len(self.known) >= self.settings.evaluations:
                return
            rng = rng_at(self.settings.seed, generation)
            breeding = self._youngest(memory)
            born = self._new(
                breed(rng, breeding) if len(breeding) else partial(self.space.sample, rng, self.settings.parents), each
            )
            if not len(born):  # the space is exhausted, or nearly so
                return
            yield self._score(born)

    def _youngest(self, number: int) -> ScoredTopologies:
        """The networks among the last `number` that keep the limits as they are now judged."""
        scored = ScoredTopologies.joined(self.parts[-number:])[-number:]
        return scored if self.feasible is None else scored[self.feasible(scored.topologies)]

    def _new(self, draw: Draw, number: int) -> Topologies:
        """Draw `number` new feasible networks, or fewer if evaluations run out or such networks are hard to find.

        Raises:
            BudgetError: not a single feasible network was ever found.
        """
        missing = min(number, self.settings.evaluations - len(self.known))
        kept: list[Topologies] = []
        misses = 0
        while missing and misses < MOST_DRAWS:
            drawn = draw()
            new = drawn if self.feasible is None else drawn[self.feasible(drawn)]
            keys = self.space.keys(new)
            _, firsts = np.unique(keys, return_index=True)
            places = [place for place in sorted(firsts.tolist()) if keys[place] not in self.known][:missing]
            kept.append(new[np.array(places, dtype=np.int64)])
            self.known.update(keys[place] for place in places)
            missing -= len(places)
            misses = 0 if places else misses + len(drawn)
        if not self.known:
            raise BudgetError(
                f"limits: found no network of the space {self.space.name} that keeps them among {misses:,} drawn,"
                " expected wider limits"
            )
        return Topologies.joined(kept)

    def _score(self, topologies: Topologies) -> ScoredTopologies:
        scores = np.asarray(self.judge(topologies), dtype=np.float64)
        scored = ScoredTopologies(topologies, scores, self.space.cost(topologies, self.classes).macs)
        self.parts.append(scored)
        return scored
