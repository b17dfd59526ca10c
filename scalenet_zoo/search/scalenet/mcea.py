"""Markov-chain evolution (ScaleNet, ECCV 2022, section 3): base model and scaling strategies are searched in turn.

Round 0 ranks the admissible strategies of every stage by their mean score over random base models. Each later round
(a) evolves base models under the best strategies, and (b) ranks the strategies for the best base model.

Beyond the paper, base models must keep the growth rule and every stage's limits under the strategies that they are
scored with. So base model and strategies are feasible together at any time, and larger networks cannot win by
exceeding the MACs of their stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.record import Record, rng_at
from scalenet_zoo.search.scalenet.latency import to_measure, verify_budgets
from scalenet_zoo.search.scalenet.ledger import Generation, HalfStep, ScaleNetLedger, ScoredScaling, scored_bases
from scalenet_zoo.search.scalenet.limits import Bounds, scaled_stages
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scalenet.variation import evolve
from scalenet_zoo.spaces.candidates import Candidate

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.config import MCEASettings
    from scalenet_zoo.spaces.scalenet import Scaling

DRAWS = 20
"""How often base models that keep the limits of all stages are drawn, before others are accepted as well."""


class MCEA:
    """A joint search for a base model and a strategy for each stage above 0; call `run`.

    Args:
        record: the search's record, with its space and limits.
        settings: the search's settings.
        measured: number of networks to measure after a round at each limited stage, if latency is limited.

    Raises:
        BudgetError: no network can keep the limits.
        InputError: the space has no stage above 0, or the weights do not fit its stages.
    """

    def __init__(self, record: Record[ScaleNetLedger, Bounds], settings: MCEASettings, measured: int = 4) -> None:
        self.record, self.settings, self.measured = record, settings, measured
        self.sampler = FeasibleSampler(record.bounds)
        self.space = self.bounds.space
        self.stages = scaled_stages(self.space)
        self.shares = settings.shares(self.stages)
        self.bases: Integers = np.zeros((0, len(self.space.stages), self.space.longest), dtype=np.int64)
        self.ranked: list[list[ScoredScaling]] = []

    @property
    def bounds(self) -> Bounds:
        """The limits, with the latency model that was fitted last."""
        return self.sampler.bounds

    @property
    def scalings(self) -> list[Scaling]:
        """The strategies that base models are scored with, one per stage above 0."""
        return [ranked[0].scaling for ranked in self.ranked]

    def run(self) -> list[str]:
        """Search to the end.

        Returns:
            The keys of the networks that the search ends with, one per stage.

        Raises:
            BudgetError: no network keeps the limits.
            BackendError: latency is limited, and the back end cannot run here.
        """
        self.before()
        for number in range(1, self.settings.rounds + 1):
            self.evolve_bases(number)
            self.rank_strategies(number, self.bases[:1])
            self.judge_anew(number)
        return self.after()

    def before(self, number: int = 0) -> None:
        """Rank strategies with random base models, then rank these base models under the best strategies."""
        bases = self.sampler.draw(rng_at(self.settings.seed, number, 0), self.settings.first_bases)
        self.rank_strategies(number, bases)
        violation = self.bounds.violation(bases, self.scalings)
        self.bases = bases[np.lexsort((-self._scores(bases) @ self.shares, violation))]

    def evolve_bases(self, number: int) -> None:
        """Evolve base models under the best strategies, starting from the best base models of the round before.

        Raises:
            BudgetError: no base model is found that keeps all limits.
        """
        generations: list[Generation] = []
        half_steps = self.record.ledger.half_steps
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
            self._save((*half_steps, half_step))
        if not len(bases):
            raise BudgetError(
                "limits: found no base model that keeps them under the strategies"
                f" {', '.join(map(_in_words, self.scalings))}, expected wider limits; another seed may help, too"
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
        self._save((*self.record.ledger.half_steps, half_step))

    def judge_anew(self, number: int) -> None:
        """Measure latency, fit its model again, and drop what no longer keeps the limits."""
        if self.record.latency is None:
            return
        best = self.record.ledger.last_step("bases")
        bases = [] if best is None else [self.space.to_array(each.kernels) for each in best.bases]
        scalings = [self.space.unscaled, *self.scalings]
        self.record.measure(number, to_measure(self.bounds, bases, scalings, self.record.times, self.measured))
        bounds = self.record.bounds
        sampler = FeasibleSampler(bounds)
        sampler.drawn, sampler.wasted = self.sampler.drawn, self.sampler.wasted
        self.sampler = sampler
        self._save(self.record.ledger.half_steps)
        for i in np.flatnonzero(bounds.feasible(self.bases, [self.space.unscaled])):
            ranked = [self._still_admissible(stage, place, self.bases[i]) for place, stage in enumerate(self.stages)]
            if all(ranked):
                self.ranked = ranked
                self.bases = self.bases[i:]
                return
        self.before(number)

    def after(self) -> list[str]:
        """Choose the best base model with its strategies; if latency is limited, its networks meet it when measured.

        Returns:
            The keys of the networks, one per stage.

        Raises:
            BudgetError: no base model keeps the limits.
        """
        base = self.bases[self.bounds.feasible(self.bases, [self.space.unscaled, *self.scalings])][:1]
        if not len(base):
            raise BudgetError(
                "limits: found no base model that keeps them after the last measurements, expected wider limits"
            )
        found = [Candidate(base[0], scaling) for scaling in (self.space.unscaled, *self.scalings)]
        if self.record.latency is not None:
            found = self._verified(found)
        keys = [candidate.key for candidate in found]
        self.record.score(keys)
        return keys

    def _verified(self, found: list[Candidate]) -> list[Candidate]:
        """Replace networks found by ones that meet their budgets when measured; see `verify_budgets`."""
        record, ledger = self.record, self.record.ledger
        assert record.latency is not None
        bases, strategies = ledger.last_step("bases"), ledger.last_step("strategies")
        others = [self.space.to_array(each.kernels) for each in bases.bases] if bases else []
        ranked = strategies.ranked if strategies else ()
        options = [
            list(dict.fromkeys((first.scaling, *(each.scaling for each in stage))))
            for first, stage in zip(found[1:], ranked, strict=True)
        ]
        chosen, tried = verify_budgets(
            self.bounds, [found[0].kernels, *others], [[self.space.unscaled], *options], record.latency, record.times
        )
        if new := [key for key in tried if key not in record.times]:
            record.measure(ledger.half_steps[-1].round + 1, new)
        return chosen

    def _save(self, half_steps: tuple[HalfStep, ...]) -> None:
        self.record.save(half_steps=half_steps, drawn=self.sampler.drawn, wasted=self.sampler.wasted)

    def _with_newcomers(self, number: int) -> Integers:
        """Fill the base models of the round before up to a population; new ones keep all limits where possible."""
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

    def _keys(self, bases: Integers) -> list[str]:
        return [Candidate(base, scaling).key for base in bases for scaling in self.scalings]

    def _scores(self, bases: Integers) -> Floats:
        """Score base models (n, stages, layers) under the best strategies, (n, stages above 0)."""
        return np.reshape(self.record.score(self._keys(bases)), (len(bases), len(self.stages)))

    def _judge(self, genomes: Integers) -> tuple[Floats, Floats]:
        bases = self.space.decode(genomes)
        violation = self.bounds.violation(bases, [self.space.unscaled, *self.scalings])
        fitness = np.zeros(len(bases))
        good = violation == 0.0
        fitness[good] = self._scores(bases[good]) @ self.shares
        return fitness, violation

    def _rank(self, number: int, stage: int, bases: Integers, before: list[Scaling]) -> list[ScoredScaling]:
        """Score admissible strategies of a stage, `before` in any case; return them, the best first."""
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
        """Compute the mean scores of m strategies over base models, (m,)."""
        keys = [Candidate(base, scaling).key for scaling in scalings for base in bases]
        means: Floats = np.reshape(self.record.score(keys), (len(scalings), len(bases))).mean(axis=1)
        return means

    def _evolve_strategies(
        self, number: int, stage: int, bases: Integers, admissible: list[Scaling], before: list[Scaling]
    ) -> list[Scaling]:
        """Choose the strategies to score by evolution, if there are too many to score all."""
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
        """The ranked strategies of a stage that are still admissible for a base model (stages, layers)."""
        admissible = set(self.bounds.admissible(stage, base[None]))
        return [each for each in self.ranked[place] if each.scaling in admissible]


def _in_words(scaling: Scaling) -> str:
    return f"{scaling.depth:g}/{scaling.width:g}/{scaling.resolution}"
