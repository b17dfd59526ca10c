"""Baselines that the joint search is compared with, at the same number of scored networks.

- `random` draws base models and scaling strategies together, at random.
- `compound` evolves a base model alone, by its own score, and scales it by EfficientNet's compound rule.
- `separate` searches every size separately, evolving its base model and its strategy together.

Each of them is recorded, and resumed after a kill, like the joint search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.arch.scaling import GrowthLaw, follow_law
from scalenet_zoo.arch.spec import Provenance
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.search.record import Record, rng_at
from scalenet_zoo.search.scalenet.ledger import Generation, HalfStep, ScaleNetLedger, scored_bases
from scalenet_zoo.search.scalenet.limits import Bounds, scaled_stages
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scalenet.variation import evolve
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.config import Baseline, MCEASettings

COMPOUND = GrowthLaw(math.log(1.2), math.log(1.1), math.log(1.15))
"""EfficientNet's rule (ICML 2019): depth 1.2^phi, width 1.1^phi, resolution 1.15^phi."""
PATIENCE = 20
"""Generations in a row without a new network, newcomers included, after which a space counts as exhausted."""


class _Baseline:
    """The three baselines, which share the record, the sampler and the budget of evaluations."""

    def __init__(self, record: Record[ScaleNetLedger, Bounds], settings: MCEASettings, evaluations: int) -> None:
        self.record, self.bounds, self.space = record, record.bounds, record.bounds.space
        self.settings, self.budget, self.stages = settings, evaluations, scaled_stages(self.space)
        if evaluations <= len(self.stages):
            raise InputError(
                f"evaluations: found {evaluations}, expected more than {len(self.stages)}, the stages to scale to"
            )
        self.sampler = FeasibleSampler(self.bounds)

    def random(self) -> list[str]:
        """Draw base models and strategies; one evaluation is reserved for the best base model by itself."""
        shares = self.settings.shares(self.stages)
        trials: dict[str, tuple[float, Integers, list[Scaling], list[float]]] = {}
        generations: list[Generation] = []
        budget, number, idle = self.budget - 1, 0, 0
        while self.record.evaluations < budget and idle < PATIENCE:
            rng, scored_before = rng_at(self.settings.seed, number), self.record.evaluations
            bases = self.sampler.draw(rng, self.settings.population)
            drawn = [(base, scalings) for base in bases if (scalings := self._draw_scalings(rng, base))]
            self.sampler.wasted += len(bases) - len(drawn)
            if not trials and not drawn:
                for stage in self.stages:
                    self.bounds.some_admissible(stage, bases[:1])
            keys = [Candidate(base, scaling).key for base, scalings in drawn for scaling in scalings]
            # The last trial may be cut off: it spends the rest of the budget, but does not count.
            scores = self.record.score(keys[: self.record.affordable(keys, budget)])
            fitness = []
            for i in range(len(scores) // len(self.stages)):
                own = slice(i * len(self.stages), (i + 1) * len(self.stages))
                fitness.append(float(shares @ scores[own]))
                trials[" ".join(keys[own])] = (fitness[-1], *drawn[i], scores[own])
            best = max(trials.values(), key=lambda trial: trial[0], default=None)
            scored = self.record.evaluations - scored_before
            generations.append(
                Generation(
                    best=best[0] if best else 0.0, mean=float(np.mean(fitness)) if fitness else 0.0, scored=scored
                )
            )
            if best:
                fittest, base, scalings, its_scores = best
                bases, rows = base[None], np.asarray([its_scores])
                self._save_bases(0, scalings, generations, bases, rows, np.array([fittest]))
            number, idle = number + 1, 0 if scored else idle + 1
        if not trials:
            raise BudgetError(
                "limits: found no base model with an admissible strategy for every stage, expected wider limits"
            )
        found = [Candidate(base, scaling).key for scaling in (self.space.unscaled, *scalings)]
        self.record.score(found[:1])
        return found

    def compound(self) -> list[str]:
        """Evolve a base model by itself, then scale it by the rule."""
        base, _ = self._evolve_size(0, 0, self.budget)
        provenance = Provenance(source=f"the space {self.space.name}")
        every = [scaling for stage in self.stages for scaling in self.space.scalings(stage)]
        family = self.space.family(base, every, self.bounds.classes, "compound", provenance)
        found = [Candidate(base, self.space.unscaled).key]
        for stage in self.stages:
            strategy = follow_law(family, COMPOUND, stage, 2.0 * stage, f"compound_s{stage}")
            scaling = Scaling(stage, strategy.depth, strategy.width, strategy.resolution)
            found.append(Candidate(base, scaling).key)
        return found

    def separate(self) -> list[str]:
        """Evolve each size, one after the other, each with an equal part of the budget."""
        found = []
        stages = [0, *self.stages]
        for place, stage in enumerate(stages):
            base, scaling = self._evolve_size(place, stage, self.budget * (place + 1) // len(stages))
            found.append(Candidate(base, scaling).key)
        return found

    def _evolve_size(self, place: int, stage: int, budget: int) -> tuple[Integers, Scaling]:
        """Evolve the base model and the strategy of a stage by their score, until `budget` evaluations are spent.

        A genome is that of a base model, followed by the number of a strategy.
        """
        scalings, seed = self.space.scalings(stage), self.settings.seed
        options = (*self.space.gene_options, len(scalings))

        def canonical(genomes: Integers) -> Integers:
            bases = self.space.encode(self.space.decode(genomes[:, :-1]))
            return np.concatenate([bases, genomes[:, -1:]], axis=1)

        def judge(genomes: Integers) -> tuple[Floats, Floats]:
            bases, chosen = self.space.decode(genomes[:, :-1]), genomes[:, -1]
            violation = np.zeros(len(bases))
            for i in np.unique(chosen):
                own = chosen == i
                violation[own] = self.bounds.violation(bases[own], list({self.space.unscaled, scalings[i]}))
            good = np.flatnonzero(violation == 0.0)
            keys = [Candidate(bases[i], scalings[chosen[i]]).key for i in good]
            count = self.record.affordable(keys, budget)
            violation[good[count:]] = 1.0  # the budget does not cover their scores
            fitness = np.zeros(len(bases))
            fitness[good[:count]] = self.record.score(keys[:count])
            return fitness, violation

        def begin(number: int, best: Integers) -> Iterator[tuple[Integers, Floats]]:
            """Begin an evolution with the best genomes so far and newcomers."""
            bases = self.sampler.draw(rng_at(seed, place, 1, number), self.settings.population - len(best))
            rng = rng_at(seed, place, 2, number)
            admissible = [self.bounds.admissible(stage, base[None]) or scalings for base in bases]
            numbers = [scalings.index(each[rng.integers(len(each))]) for each in admissible]
            newcomers = np.concatenate([self.space.encode(bases), np.array(numbers)[:, None]], axis=1)
            start = np.concatenate([best, newcomers])
            return evolve(start, options, judge, self.settings.population, (seed, place, 3, number), canonical)

        evolution = begin(0, np.empty((0, len(options)), dtype=np.int64))
        generations: list[Generation] = []
        idle = 0
        while self.record.evaluations < budget and idle < PATIENCE:
            scored_before = self.record.evaluations
            genomes, fitness = next(evolution)
            scored = self.record.evaluations - scored_before
            mean = float(fitness.mean()) if len(fitness) else 0.0
            generations.append(Generation(best=float(fitness.max(initial=0.0)), mean=mean, scored=scored))
            kept = self.space.decode(genomes[: self.settings.keep, :-1])
            its_scalings = [scalings[genomes[0, -1]]] if stage and len(genomes) else []
            self._save_bases(place, its_scalings, generations, kept, fitness[: len(kept), None], fitness[: len(kept)])
            idle = 0 if scored else idle + 1
            if idle:  # the genomes are too similar to give new networks
                evolution = begin(len(generations), genomes[: self.settings.population // 2])
        if not len(genomes):
            raise BudgetError(
                f"limits: found no network of stage {stage} that keeps them in {len(generations)} generations,"
                " expected wider limits"
            )
        return kept[0], scalings[genomes[0, -1]]

    def _draw_scalings(self, rng: np.random.Generator, base: Integers) -> list[Scaling]:
        """Draw an admissible strategy per stage for a base model (stages, layers); empty if a stage has none."""
        admissible = [self.bounds.admissible(stage, base[None]) for stage in self.stages]
        return [each[rng.integers(len(each))] for each in admissible] if all(admissible) else []

    def _save_bases(
        self,
        place: int,
        scalings: list[Scaling],
        generations: list[Generation],
        bases: Integers,
        scores: Floats,
        fitness: Floats,
    ) -> None:
        half_step = HalfStep(
            round=place,
            kind="bases",
            scalings=tuple(scalings),
            generations=tuple(generations),
            bases=scored_bases(self.bounds, bases, scores, fitness),
        )
        self.record.save(
            half_steps=(*self.record.ledger.half_steps[:place], half_step),
            drawn=self.sampler.drawn,
            wasted=self.sampler.wasted,
        )


def search_baseline(
    method: Baseline, record: Record[ScaleNetLedger, Bounds], settings: MCEASettings, evaluations: int
) -> list[str]:
    """Run a baseline of the joint search.

    `random` draws base models within the limits, each with strategies drawn from those admissible for it.

    `compound` evolves the base model alone, by its own score, and scales it by EfficientNet's rule, with phi as large
    as 2^s times the base model's MACs allow. The scaled networks have no scores, since they need not be of the space.

    `separate` searches each size separately, evolving base model and strategy together by the score of the scaled
    network. Every stage, including stage 0, gets an equal part of the evaluations.

    Args:
        method: one of these three names.
        record: the search's record, with its space and limits.
        settings: population, weights and seed; the other settings are not used.
        evaluations: number of networks to score; each counts once.

    Returns:
        The keys of the networks that the search ends with, one per stage.

    Raises:
        BudgetError: no network can keep the limits.
        InputError: there are too few evaluations for the stages.
    """
    search = _Baseline(record, settings, evaluations)
    found = {"random": search.random, "compound": search.compound, "separate": search.separate}[method]()
    record.note(drawn=search.sampler.drawn, wasted=search.sampler.wasted)
    return found
