"""Limits on MACs, parameters and latency, of the base model alone or of every scaling stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BeforeValidator, Field

from scalenet_zoo.arch.constraints import Constraint, Latency, Macs, Params
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.core.quantities import format_range
from scalenet_zoo.search.limits import Costs, SearchLimits, check_within, parse_amount
from scalenet_zoo.spaces.candidates import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scalenet_zoo.arch.constraints import Floats, Predictor
    from scalenet_zoo.arch.population import Population
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.spaces.scalenet import Scaling, Space


def _one_a_stage(value: object) -> object:
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    if not isinstance(value, (list, tuple)) or any(not isinstance(each, str | None) for each in value):
        raise ValueError("expected a quantity with its unit, such as 306M or 4ms, or a list of them, one per stage")
    return tuple(value)


TOGETHER = 256
"""How many candidates are costed at a time, by costing all their base models under all their strategies."""
Amounts = Annotated[tuple[str | None, ...], BeforeValidator(_one_a_stage)]
"""A quantity for the base model, or a list of quantities for stages 0, 1, ..., with null for stages without a limit."""


class Limits(SearchLimits):
    """Limits on the networks, as YAML.

        limits: {macs: 306M, tolerance: 0.08, latency: [4ms, null, 9ms], backend: ort-cpu}

    Attributes:
        macs: the most MACs (multiply-adds); for the base model, its MACs up to `tolerance`.
        params: the most parameters.
        latency: the longest latency.
        tolerance: the MACs of base models may differ from `macs` by this share (in the paper, 25M of 306M).
        growth: the MACs of networks at stage s may differ from 2^s times their base models' by this share (in the
            paper, 50M of 306M); None: by any amount.
    """

    macs: Amounts = ()
    params: Amounts = ()
    latency: Amounts = ()
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.08
    growth: Annotated[float, Field(gt=0, lt=1)] | None = 0.16

    @property
    def given(self) -> dict[str, tuple[str | None, ...]]:
        """The limits as they are written, one per stage; see `SearchLimits.given`."""
        return {"macs": self.macs, "params": self.params, "latency": self.latency}

    def amounts(self, name: str, stages: Sequence[int]) -> dict[int, float]:
        """Parse the limits on `macs`, `params` or `latency` (in milliseconds) for the stages of a space.

        Returns:
            The limits by stage, for stages that have one.

        Raises:
            BudgetError: there are more limits than stages.
        """
        given = self.given[name]
        if len(given) > len(stages):
            raise BudgetError(
                f"limits.{name}: found {len(given)} limits, expected at most {len(stages)}, one per stage of the space"
            )
        return {stage: parse_amount(name, text) for stage, text in zip(stages, given, strict=False) if text is not None}


@dataclass(frozen=True)
class Bounds:
    """The limits on the networks of a space.

    Attributes:
        space: the space of the networks.
        classes: number of classes.
        limits: the limits to keep.
        model: predicts latency; None: a limit on latency is not applied yet.

    Raises:
        BudgetError: no network of the space can keep a limit, or a limit contradicts another.
    """

    space: Space
    classes: int
    limits: Limits
    model: Predictor | None = None

    def __post_init__(self) -> None:
        for stage, constraints in self.constraints.items():
            for constraint in constraints:
                self._check(stage, constraint)

    def with_model(self, model: Predictor) -> Bounds:
        """The same limits, with another latency model."""
        return replace(self, model=model)

    @cached_property
    def constraints(self) -> dict[int, tuple[Constraint, ...]]:
        """The limits of each stage; those on latency are included if there is a model."""
        found: dict[int, tuple[Constraint, ...]] = {each.stage: () for each in self.space.scaling}
        for stage, amount in self.limits.amounts("macs", list(found)).items():
            slack = 0.0 if stage else self.limits.tolerance
            found[stage] += (Macs(amount * (1 + slack), floor=0.0 if stage else amount * (1 - slack)),)
        for stage, amount in self.limits.amounts("params", list(found)).items():
            found[stage] += (Params(amount),)
        if self.model is not None:
            for stage, amount in self.limits.amounts("latency", list(found)).items():
                found[stage] += (Latency(amount, self.model),)
        return found

    def population(self, bases: Integers, scalings: Sequence[Scaling]) -> Population:
        """Make a population of base models (n, stages, layers) under m strategies, whose costs can be computed."""
        return self.space.population(bases, scalings, self.classes)

    def costs(self, keys: Sequence[str]) -> Costs:
        """Compute the costs of candidates by their keys."""
        macs, params = np.zeros((2, len(keys)), dtype=np.int64)
        latency = np.zeros(len(keys))
        for start in range(0, len(keys), TOGETHER):
            candidates = [Candidate.from_key(self.space, key) for key in keys[start : start + TOGETHER]]
            bases = {candidate.kernels.tobytes(): candidate.kernels for candidate in candidates}
            scalings = list(dict.fromkeys(candidate.scaling for candidate in candidates))
            row = {name: i for i, name in enumerate(bases)}
            column = {scaling: i for i, scaling in enumerate(scalings)}
            places = tuple(np.array([(row[c.kernels.tobytes()], column[c.scaling]) for c in candidates]).T)
            population, part = self.population(np.stack(list(bases.values())), scalings), slice(start, start + TOGETHER)
            macs[part], params[part] = population.cost.macs[places], population.cost.params[places]
            if self.model is not None:
                latency[part] = self.model.predict(population)[places]
        return Costs(macs, params, None if self.model is None else latency)

    def predict(self, keys: Sequence[str]) -> list[float]:
        """Predict the latencies of candidates in milliseconds; there must be a model."""
        predicted = self.costs(keys).latency_ms
        assert predicted is not None
        return list(map(float, predicted))

    @property
    def budgets(self) -> dict[int, float]:
        """The latency limit of each limited stage, in milliseconds."""
        return self.limits.amounts("latency", [each.stage for each in self.space.scaling])

    def violation(self, bases: Integers, scalings: Sequence[Scaling]) -> Floats:
        """Compute how far base models (n, stages, layers) are from keeping all limits: (n,), 0 if they keep them.

        Each base model is judged under every given strategy, by the limits of the strategy's stage and by the growth
        rule; the unscaled strategy stands for the base model itself.
        """
        total = np.zeros(len(bases))
        if not len(bases):
            return total
        base_macs = self.population(bases, [self.space.unscaled]).cost.macs[:, 0].astype(np.float64)
        for scaling in scalings:
            population = self.population(bases, [scaling])
            total += self._excess_growth(np.abs(population.cost.macs[:, 0] / 2**scaling.stage - base_macs) / base_macs)
            for constraint in self.constraints[scaling.stage]:
                total += constraint.violation(population)[:, 0]
        return total

    def feasible(self, bases: Integers, scalings: Sequence[Scaling]) -> NDArray[np.bool_]:
        """Tell which base models (n, stages, layers) keep all limits under all given strategies: (n,)."""
        feasible: NDArray[np.bool_] = self.violation(bases, scalings) == 0.0
        return feasible

    def admissible(self, stage: int, bases: Integers) -> list[Scaling]:
        """List the strategies of a stage under which base models (n, stages, layers) keep its limits on average.

        The MACs may differ from 2^s times the base models' by the share `growth`, also on average (ScaleNet, ECCV
        2022, section 3: 50M * 2^s).
        """
        scalings = self.space.scalings(stage)
        return [scaling for scaling, excess in zip(scalings, self._excess(stage, bases), strict=True) if excess == 0.0]

    def some_admissible(self, stage: int, bases: Integers) -> list[Scaling]:
        """Like `admissible`, but at least one strategy is required.

        Raises:
            BudgetError: no strategy is admissible; the message has the closest.
        """
        if found := self.admissible(stage, bases):
            return found
        excess = self._excess(stage, bases)
        closest = self.space.scalings(stage)[int(excess.argmin())]
        rules = [in_words(constraint) for constraint in self.constraints[stage]]
        if self.limits.growth is not None:
            rules.insert(0, f"{2**stage} times the base models' MACs, give or take {self.limits.growth:.0%}")
        raise BudgetError(
            f"stage {stage}: found no strategy with {' and '.join(rules)}, expected wider limits; the closest has depth"
            f" {closest.depth:g}, width {closest.width:g}, resolution {closest.resolution}, {excess.min():.1%} beyond"
        )

    def _excess(self, stage: int, bases: Integers) -> Floats:
        """How far the strategies of a stage are from being admissible, (m,)."""
        population = self.population(bases, self.space.scalings(stage))
        base_macs = self.population(bases, [self.space.unscaled]).cost.macs.astype(np.float64)
        off = np.abs(population.cost.macs / 2**stage - base_macs).mean(axis=0) / base_macs.mean()
        total = self._excess_growth(off)
        for constraint in self.constraints[stage]:
            total = total + constraint.excess(constraint.measure(population).mean(axis=0))
        return total

    def _excess_growth(self, off: Floats) -> Floats:
        growth = np.inf if self.limits.growth is None else self.limits.growth
        excess: Floats = np.maximum(0.0, off - growth)
        return excess

    def _check(self, stage: int, constraint: Constraint) -> None:
        write = constraint.format
        scalings = self.space.scalings(stage)
        smallest, largest = (
            constraint.measure(self.population(base, scalings))
            for base in (self.space.smallest[None], self.space.largest[None])
        )
        check_within(constraint, smallest, largest, f" for stage {stage}", self.space.name)
        base = next((each for each in self.constraints[0] if isinstance(each, Macs)), None)
        if stage and isinstance(constraint, Macs) and base is not None and self.limits.growth is not None:
            least = 2**stage * base.floor * (1 - self.limits.growth)
            if constraint.budget < least:
                growth = f"{self.limits.growth}{'' if 'growth' in self.limits.model_fields_set else ', the default,'}"
                raise BudgetError(
                    f"limits.macs: found at most {write(constraint.budget)} for stage {stage}, expected"
                    f" {write(least)} or more, as the base model's limit and growth {growth} require"
                )


def in_words(constraint: Constraint) -> str:
    """Write a limit in words."""
    if constraint.floor:
        return f"{constraint.measure_name} {format_range(constraint.floor, constraint.budget, constraint.format)}"
    return f"{constraint.measure_name} of at most {constraint.format(constraint.budget)}"


def scaled_stages(space: Space) -> tuple[int, ...]:
    """The scaling stages of a space above 0.

    Raises:
        InputError: there are none.
    """
    stages = tuple(each.stage for each in space.scaling if each.stage > 0)
    if not stages:
        raise InputError(f"scaling: found only stage 0 in the space {space.name}, expected a stage above 0")
    return stages
