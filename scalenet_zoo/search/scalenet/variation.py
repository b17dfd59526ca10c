"""Evolution of genomes by pymoo's genetic algorithm: mutation, crossover, selection and survival.

A genome is a vector of choices, gene i one of 0 .. options[i] - 1, without an order among them. Genomes that mean
the same (genes of layers that are not there) are made the same before duplicates are thrown away.
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
"""The probability that a gene is drawn anew."""


class _Canonical(Repair):  # type: ignore[misc]
    """Writes genomes in the one way that stands for all that mean the same."""

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
    """Evolve genomes, generation by generation, for as long as the caller asks.

    Tournaments choose parents, uniform crossover and mutation make as many new genomes as survive; of old and
    new, the fittest survive, and those that violate a constraint only where there are too few that do not.

    Args:
        start: the first generation (n, genes).
        options: how many values each gene may take.
        judge: the fitness (n,), larger is better, and the violation of the constraints (n,), 0 for none, of genomes
            (n, genes); the fitness of those that violate one does not matter.
        population: how many survive.
        seed: of all that is random.
        canonical: writes genomes (n, genes) in the one way that stands for all that mean the same.

    Yields:
        The survivors that violate nothing, (m, genes), and their fitness (m,), the best first.
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
