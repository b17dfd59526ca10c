"""Markov-chain evolution (ScaleNet, ECCV 2022, section 3): base model and scaling strategies, found in turn.

Round 0 ranks the admissible strategies of every stage by the mean score over random base models. Each later round
(a) evolves base models under the strategies, and (b) ranks the strategies for the best base model.

Beyond the paper, base models must keep the growth rule and every stage's limits under the strategies that they are
scored with: so base model and strategies are feasible together at any time, and larger networks cannot win by
exceeding the MACs of their stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.scalenet.record import OnStep, Record, first_state, found_network, rng_at, scored_bases
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scalenet.state import Generation, HalfStep, LatencyRound, ScoredScaling, SearchState
from scalenet_zoo.search.scalenet.variation import evolve
from scalenet_zoo.spaces.candidates import Candidate

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.search.settings import MCEASettings
    from scalenet_zoo.spaces.candidates import Scorer
    from scalenet_zoo.spaces.scalenet import Scaling

AfterRound = Callable[[SearchState], "tuple[LatencyRound, Bounds] | None"]
"""Called after every round above 0 with the state, in which `latency_rounds` has this round, too, if an earlier sitting
measured it; gives what was measured and the limits judged anew, or None where latency is not limited."""

DRAWS = 20
"""Times that base models are drawn so as to keep the limits of all stages, before others are taken as well."""


class MCEA:
    """A joint search for a base model and a strategy for each stage above 0; call `run`.

    Args:
        bounds: the space and its limits.
        scorer: scores networks.
        settings: of the search.
        path: of the state, written after every generation and half-step; an unfinished search is gone on with.
        name: of the family.
        context: what else the results depend on, JSON values: how networks are scored, say.
        after_round: measures latency and judges the limits anew.
        on_step: called with every new state.

    Raises:
        TrainingError: `path` holds a search with other settings.
        BudgetError: the limits cannot be kept.
        InputError: the space or the weights do not fit a search.
    """

    def __init__(
        self,
        bounds: Bounds,
        scorer: Scorer,
        settings: MCEASettings,
        path: Path,
        name: str,
        context: Mapping[str, object] | None = None,
        after_round: AfterRound | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.space, self.settings, self.after_round = bounds.space, settings, after_round
        self.record = Record(path, first_state("joint", name, bounds, settings, context or {}), scorer, on_step)
        self.stages = self.record.state.stages
        self.shares = settings.shares(self.stages)
        self.sampler = FeasibleSampler(bounds)
        self.bases: Integers = np.zeros((0, len(self.space.stages), self.space.longest), dtype=np.int64)
        self.ranked: list[list[ScoredScaling]] = []

    @property
    def bounds(self) -> Bounds:
        """The limits as now judged."""
        return self.sampler.bounds

    @property
    def scalings(self) -> list[Scaling]:
        """The strategies that base models are scored with, one a stage above 0."""
        return [ranked[0].scaling for ranked in self.ranked]

    def run(self) -> SearchState:
        """Search, or go on with the search, to the end; what was ended before is given as it is."""
        if self.record.earlier and self.record.earlier.ended:
            return self.record.earlier
        self.before()
        for number in range(1, self.settings.rounds + 1):
            self.evolve_bases(number)
            self.rank_strategies(number, self.bases[:1])
            self.judge_anew(number)
        return self.after()

    def before(self, number: int = 0) -> None:
        """Rank strategies with random base models, and those by the strategies found."""
        bases = self.sampler.draw(rng_at(self.settings.seed, number, 0), self.settings.first_bases)
        self.rank_strategies(number, bases)
        violation = self.bounds.violation(bases, self.scalings)
        self.bases = bases[np.lexsort((-self._scores(bases) @ self.shares, violation))]

    def evolve_bases(self, number: int) -> None:
        """Evolve base models under the strategies, from the best ones of the round before.

        Raises:
            BudgetError: no base model is found that keeps all limits.
        """
        generations: list[Generation] = []
        half_steps = self.record.state.half_steps
        evolution = evolve(
            self.space.encode(self._with_newcomers(number)),
            self.space.gene_options,
            self._judge,
            self.settings.population,
            (self.settings.seed, number, 2),
            lambda genomes: self.space.encode(self.space.decode(genomes)),
        )
        for _ in range(self.settings.generations):
            scored_before = self.record.evaluations
            genomes, fitness = next(evolution)
            bases = self.space.decode(genomes[: self.settings.keep])
            generations.append(
                Generation(
                    best=float(fitness.max(initial=0.0)),
                    mean=float(fitness.mean()) if len(fitness) else 0.0,
                    scored=self.record.evaluations - scored_before,
                )
            )
            half_step = HalfStep(
                round=number,
                kind="bases",
                scalings=tuple(self.scalings),
                generations=tuple(generations),
                bases=scored_bases(self.bounds, bases, self._scores(bases), fitness[: len(bases)]),
            )
            self._save(half_steps=(*half_steps, half_step))
        if not len(bases):
            raise BudgetError(
                "limits: found no base model that keeps them under the strategies"
                f" {', '.join(map(_describe, self.scalings))}; wider limits or another seed may help"
            )
        self.bases = bases

    def rank_strategies(self, number: int, bases: Integers) -> None:
        """Rank the strategies of each stage by their mean score over base models (n, stages, layers)."""
        before = self.scalings if self.ranked else []
        self.ranked = [
            self._rank(number, stage, bases, [scaling for scaling in before if scaling.stage == stage])
            for stage in self.stages
        ]
        half_step = HalfStep(
            round=number,
            kind="strategies",
            scalings=tuple(self.scalings),
            ranked=tuple(map(tuple, self.ranked)),
        )
        self._save(half_steps=(*self.record.state.half_steps, half_step))

    def judge_anew(self, number: int) -> None:
        """Have latency measured; drop what does not keep the limits as they are judged then."""
        if self.after_round is None:
            return
        before = self.record.state.latency_rounds
        known = (*before, *self.record.measured_earlier(number))
        judged = self.after_round(self.record.state.model_copy(update={"latency_rounds": known}))
        if judged is None:
            return
        measured, bounds = judged
        sampler = FeasibleSampler(bounds)
        sampler.drawn, sampler.wasted = self.sampler.drawn, self.sampler.wasted
        self.sampler = sampler
        self._save(latency_rounds=(*before, measured))
        for i in np.flatnonzero(bounds.feasible(self.bases, [self.space.unscaled])):
            ranked = [self._still_admissible(stage, place, self.bases[i]) for place, stage in enumerate(self.stages)]
            if all(ranked):
                self.ranked = ranked
                self.bases = self.bases[i:]
                return
        self.before(number)

    def after(self) -> SearchState:
        """End the search with the best base model under the strategies.

        Raises:
            BudgetError: it does not keep the limits.
        """
        base = self.bases[self.bounds.feasible(self.bases, [self.space.unscaled, *self.scalings])][:1]
        if not len(base):
            raise BudgetError("limits: found no base model that keeps them, as judged after the last measurements")
        scalings = [self.space.unscaled, *self.scalings]
        scores = self.record.score([Candidate(base[0], scaling) for scaling in scalings])
        found = [
            found_network(self.bounds, base[0], scaling, score) for scaling, score in zip(scalings, scores, strict=True)
        ]
        self._save(ended=True, found=tuple(found))
        return self.record.state

    def _save(self, **changes: object) -> None:
        self.record.save(drawn=self.sampler.drawn, wasted=self.sampler.wasted, **changes)

    def _with_newcomers(self, number: int) -> Integers:
        """The base models handed on, filled up to a population with new ones, as far as possible within all limits."""
        rng = rng_at(self.settings.seed, number, 1)
        bases, others = self.bases, self.bases[:0]
        for _ in range(DRAWS):
            if (missing := self.settings.population - len(bases)) <= 0:
                break
            drawn = self.sampler.draw(rng, missing)
            good = self.bounds.feasible(drawn, self.scalings)
            self.sampler.wasted += int((~good).sum())
            bases, others = np.concatenate([bases, drawn[good]]), np.concatenate([others, drawn[~good]])
        return np.concatenate([bases, others])[: self.settings.population]

    def _candidates(self, bases: Integers) -> list[Candidate]:
        return [Candidate(base, scaling) for base in bases for scaling in self.scalings]

    def _scores(self, bases: Integers) -> Floats:
        """Scores of base models (n, stages, layers) under the strategies, (n, stages above 0)."""
        return np.reshape(self.record.score(self._candidates(bases)), (len(bases), len(self.stages)))

    def _judge(self, genomes: Integers) -> tuple[Floats, Floats]:
        bases = self.space.decode(genomes)
        violation = self.bounds.violation(bases, [self.space.unscaled, *self.scalings])
        fitness = np.zeros(len(bases))
        good = violation == 0.0
        fitness[good] = self._scores(bases[good]) @ self.shares
        return fitness, violation

    def _rank(self, number: int, stage: int, bases: Integers, before: list[Scaling]) -> list[ScoredScaling]:
        """The admissible strategies of a stage that were scored, the best first; `before` is scored in any case."""
        scalings = self.bounds.some_admissible(stage, bases)
        if len(scalings) > self.settings.strategies_at_most:
            scalings = self._evolve_strategies(number, stage, bases, scalings, before)
        means = self._means(bases, scalings)
        macs = self.bounds.population(bases, scalings).cost.macs.mean(axis=0)
        ranked = [
            ScoredScaling(scaling=scaling, score=float(score), macs=float(cost))
            for scaling, score, cost in zip(scalings, means, macs, strict=True)
        ]
        return sorted(ranked, key=lambda each: -each.score)

    def _means(self, bases: Integers, scalings: Sequence[Scaling]) -> Floats:
        """Mean scores of strategies over base models, (m,)."""
        candidates = [Candidate(base, scaling) for scaling in scalings for base in bases]
        means: Floats = np.reshape(self.record.score(candidates), (len(scalings), len(bases))).mean(axis=1)
        return means

    def _evolve_strategies(
        self, number: int, stage: int, bases: Integers, admissible: list[Scaling], before: list[Scaling]
    ) -> list[Scaling]:
        """The strategies that evolution scores where there are too many to score all."""
        every = self.space.scalings(stage)
        place = {scaling: i for i, scaling in enumerate(every)}
        own = next(each for each in self.space.scaling if each.stage == stage)
        options = (len(own.depth), len(own.width), len(own.resolution))
        most = self.settings.strategies_at_most
        rng = rng_at(self.settings.seed, number, 3, stage)
        population = min(self.settings.population, most // 2)
        start = dict.fromkeys([scaling for scaling in before if scaling in admissible])
        start |= dict.fromkeys(admissible[i] for i in rng.permutation(len(admissible))[:population])
        allowed = set(admissible)
        scored: dict[Scaling, float] = {}

        def judge(genomes: Integers) -> tuple[Floats, Floats]:
            found = [every[i] for i in np.ravel_multi_index(tuple(genomes.T), options)]
            new = [scaling for scaling in found if scaling in allowed and scaling not in scored]
            new = new[: most - len(scored)]
            scored.update(zip(new, map(float, self._means(bases, new)), strict=True))
            fitness = np.array([scored.get(scaling, 0.0) for scaling in found])
            return fitness, np.array([float(scaling not in scored) for scaling in found])

        genomes = np.stack(np.unravel_index([place[scaling] for scaling in start], options), axis=1)[:population]
        evolution = evolve(genomes, options, judge, population, (self.settings.seed, number, 4, stage))
        for _ in range(self.settings.generations):
            next(evolution)
            if len(scored) >= most:
                break
        return list(scored)

    def _still_admissible(self, stage: int, place: int, base: Integers) -> list[ScoredScaling]:
        """The strategies of a stage, ranked before, that a base model (stages, layers) may be scaled with."""
        admissible = set(self.bounds.admissible(stage, base[None]))
        return [each for each in self.ranked[place] if each.scaling in admissible]


def _describe(scaling: Scaling) -> str:
    return f"{scaling.depth:g}/{scaling.width:g}/{scaling.resolution}"
