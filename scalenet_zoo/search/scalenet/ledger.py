"""The fields that ScaleNet's searches add to the ledger: the half-steps of the Markov chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from scalenet_zoo.core.documents import Strict
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.spaces.candidates import Candidate, Kernels, to_kernels
from scalenet_zoo.spaces.scalenet import Scaling

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.spaces.scalenet import Space


class ScoredBase(Strict):
    """A base model under one strategy per stage.

    Attributes:
        kernels: kernel sizes of its layers.
        macs: number of MACs of the unscaled network.
        fitness: weighted mean of `scores`.
        scores: accuracy of the scaled network at each stage, 0 to 1.
    """

    kernels: Kernels
    macs: int
    fitness: float
    scores: tuple[float, ...]


class Generation(Strict):
    """A generation of base models.

    Attributes:
        best: fitness of the best base model.
        mean: mean fitness of the survivors.
        scored: number of networks scored for the first time.
    """

    best: float
    mean: float
    scored: int


class ScoredScaling(Strict):
    """A scaling strategy with its score.

    Attributes:
        scaling: the strategy.
        score: mean score of the base models concerned under the strategy, 0 to 1.
        macs: their mean MACs under the strategy.
    """

    scaling: Scaling
    score: float
    macs: float


class HalfStep(Strict):
    """Half a round of the Markov chain.

    Attributes:
        round: counted from 0; round 0 has no `bases` half. For baselines: the stage that was searched, or 0.
        kind: `strategies`: each stage's strategies were ranked; `bases`: base models were evolved.
        scalings: the strategy of each stage above 0, after this half-step.
        ranked: for `strategies`, the admissible strategies of each stage, the best first.
        generations: for `bases`, the generations.
        bases: for `bases`, the best base models, the best first.
    """

    round: Annotated[int, Field(ge=0)]
    kind: Literal["strategies", "bases"]
    scalings: tuple[Scaling, ...]
    ranked: tuple[tuple[ScoredScaling, ...], ...] = ()
    generations: tuple[Generation, ...] = ()
    bases: tuple[ScoredBase, ...] = ()


class ScaleNetLedger(Ledger):
    """A ScaleNet search that has ended or is under way; it ends with one network for each of the stages 0, 1, ...

    Attributes:
        half_steps: the half-steps so far; the last may be unfinished while `ended` is false.
        drawn, wasted: number of base models drawn under the limits, and how many of these draws were discarded.
    """

    half_steps: tuple[HalfStep, ...] = ()
    drawn: int = 0
    wasted: int = 0

    @property
    def stages(self) -> tuple[int, ...]:
        """The scaling stages above 0 that are searched."""
        scaling = cast(Sequence[dict[str, int]], self.space["scaling"])
        return tuple(each["stage"] for each in scaling if each["stage"] > 0)

    def candidates(self, space: Space) -> list[Candidate]:
        """The networks found, each with its own scaling stage."""
        found = (Candidate.from_key(space, network.key) for network in self.found)
        stages = zip((0, *self.stages), found, strict=False)
        return [Candidate(each.kernels, replace(each.scaling, stage=stage)) for stage, each in stages]

    def last_step(self, kind: Literal["strategies", "bases"]) -> HalfStep | None:
        """The last half-step of a kind; None: there is none."""
        return next((step for step in reversed(self.half_steps) if step.kind == kind), None)


def scored_bases(bounds: Bounds, bases: Integers, scores: Floats, fitness: Floats) -> tuple[ScoredBase, ...]:
    """Combine base models (n, stages, layers) with their scores (n, scaling stages) and fitness (n,)."""
    if not len(bases):
        return ()
    macs = bounds.population(bases, [bounds.space.unscaled]).cost.macs[:, 0]
    return tuple(
        ScoredBase(kernels=to_kernels(base), macs=int(cost), fitness=float(score), scores=tuple(map(float, row)))
        for base, cost, score, row in zip(bases, macs, fitness, scores, strict=True)
    )
