"""Evolution of genomes by pymoo's genetic algorithm: mutation, crossover, selection and survival.

A genome is a vector of choices; gene i is one of 0 .. options[i] - 1, and these values have no order. Genomes that mean
the same (they differ in genes of layers that do not exist) are made equal before duplicates are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.variable import Choice
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.rm import ChoiceRandomMutation
from pymoo.termination.max_gen import MaximumGenerationTermination

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers

    Judge = Callable[[Integers], tuple[Floats, Floats]]

MUTATION = 0.1
"""The probability that a gene mutates to a random value."""


class _Canonical(Repair):  # type: ignore[misc]
    """Replaces each genome by the one that stands for all genomes with the same meaning."""

    def __init__(self, canonical: Callable[[Integers], Integers]) -> None:
        super().__init__(vtype=int)
        self.canonical = canonical

    def _do(self, problem: Problem, X: Integers, **_: Any) -> Integers:  # noqa: ANN401, N803 - pymoo's
        return self.canonical(X)


def evolve(
    start: Integers,
    options: Sequence[int],
    judge: Judge,
    population: int,
    seed: Sequence[int],
    canonical: Callable[[Integers], Integers] = lambda genomes: genomes,
) -> Iterator[tuple[Integers, Floats]]:
    """Evolve genomes, generation by generation, for as long as the caller iterates.

    Tournaments choose the parents; uniform crossover and mutation make as many new genomes as survive. The fittest of
    the old and new genomes survive; those that violate a constraint do so only if there are too few that do not.

    Args:
        start: the first generation, (n, genes).
        options: number of values that each gene may take.
        judge: takes genomes (n, genes), and returns their fitness (n,), larger is better, and their violation of the
            constraints (n,), 0 for none. The fitness of genomes that violate a constraint does not matter.
        population: number of survivors.
        seed: determines everything that is random.
        canonical: replaces each of n genomes (n, genes) by the one that stands for all genomes with the same meaning.

    Yields:
        The survivors that violate no constraint, (m, genes), and their fitness (m,), the best first.
    """
    problem = Problem(
        vars={str(i): Choice(options=range(count)) for i, count in enumerate(options)}, n_obj=1, n_ieq_constr=1
    )
    algorithm = GA(
        pop_size=population,
        sampling=canonical(start),
        crossover=UX(),
        mutation=ChoiceRandomMutation(prob_var=MUTATION),
        repair=_Canonical(canonical),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, seed=list(seed), termination=MaximumGenerationTermination(np.inf))
    while True:
        born = algorithm.ask()
        if born is not None:
            fitness, violation = judge(born.get("X").astype(np.int64))
            born.set("F", -fitness[:, None])
            born.set("G", violation[:, None])
            algorithm.tell(infills=born)
        survivors = algorithm.pop
        genomes, fitness = survivors.get("X").astype(np.int64), -survivors.get("F")[:, 0]
        good = np.flatnonzero(survivors.get("CV")[:, 0] == 0.0)
        best_first = good[np.argsort(-fitness[good], kind="stable")]
        yield genomes[best_first], fitness[best_first]
