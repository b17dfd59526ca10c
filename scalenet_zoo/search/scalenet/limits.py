"""What the networks of a search may cost: MACs, parameters and latency, of the base model or of every scaling stage."""

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
        raise ValueError("expected a quantity with its unit, such as 306M or 4ms, or a list of them, one a stage")
    return tuple(value)


TOGETHER = 256
"""Candidates that are costed at once: all their base models under all their strategies."""
Amounts = Annotated[tuple[str | None, ...], BeforeValidator(_one_a_stage)]
"""A quantity, for the base model, or a list of them, for stages 0, 1, ...; null where a stage has no limit."""


class Limits(SearchLimits):
    """What people ask of the networks, as YAML.

        limits: {macs: 306M, tolerance: 0.08, latency: [4ms, null, 9ms], backend: ort-cpu}

    Attributes:
        macs: at most so many multiply-adds; the base model, too, has about as many.
        params: at most so many parameters.
        latency: at most so long.
        tolerance: base models lie within this share of their MACs (the paper: 25M of 306M).
        growth: the MACs of networks of stage s may differ from 2^s times their base models' by this share
            (the paper: 50M of 306M); None: by any.
    """

    macs: Amounts = ()
    params: Amounts = ()
    latency: Amounts = ()
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.08
    growth: Annotated[float, Field(gt=0, lt=1)] | None = 0.16

    @property
    def given(self) -> dict[str, tuple[str | None, ...]]:
        """The quantities asked for, one a stage."""
        return {"macs": self.macs, "params": self.params, "latency": self.latency}

    def amounts(self, name: str, stages: Sequence[int]) -> dict[int, float]:
        """The limits on `macs`, `params` or `latency` (milliseconds) of a space's stages, for those that have one.

        Raises:
            BudgetError: there are more limits than stages.
        """
        given = self.given[name]
        if len(given) > len(stages):
            raise BudgetError(
                f"limits.{name}: found {len(given)} limits, expected at most {len(stages)}, one a stage of the space"
            )
        return {stage: parse_amount(name, text) for stage, text in zip(stages, given, strict=False) if text is not None}


@dataclass(frozen=True)
class Bounds:
    """Limits on the networks of a space.

    Attributes:
        space: whose networks are judged.
        classes: of the networks.
        limits: to be kept.
        model: that predicts latency; None: a limit on latency counts for nothing yet.

    Raises:
        BudgetError: a limit cannot be kept by any network of the space, or contradicts another.
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
        """The same limits, judged with another model of latency."""
        return replace(self, model=model)

    @cached_property
    def constraints(self) -> dict[int, tuple[Constraint, ...]]:
        """The limits of each stage."""
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
        """Base models (n, stages, layers) under m strategies, to be costed."""
        return self.space.population(bases, scalings, self.classes)

    def costs(self, keys: Sequence[str]) -> Costs:
        """What candidates cost, by their keys."""
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
        """Milliseconds of candidates as the model predicts them."""
        predicted = self.costs(keys).latency_ms
        assert predicted is not None
        return list(map(float, predicted))

    @property
    def budgets(self) -> dict[int, float]:
        """The most milliseconds of each limited stage."""
        return self.limits.amounts("latency", [each.stage for each in self.space.scaling])

    def violation(self, bases: Integers, scalings: Sequence[Scaling]) -> Floats:
        """How far base models (n, stages, layers) are from keeping all limits: (n,), 0 for those that keep them.

        Each is judged under every one of the strategies, by the limits of the strategy's stage and the growth
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
        """Which base models (n, stages, layers) keep all limits under all of the strategies: (n,)."""
        feasible: NDArray[np.bool_] = self.violation(bases, scalings) == 0.0
        return feasible

    def admissible(self, stage: int, bases: Integers) -> list[Scaling]:
        """The strategies of a stage under which base models (n, stages, layers) keep its limits in the mean.

        Their MACs may differ from 2^s times the base models' by the share `growth`, in the mean as well
        (ScaleNet, section 3: 50M * 2^s).
        """
        scalings = self.space.scalings(stage)
        return [scaling for scaling, excess in zip(scalings, self._excess(stage, bases), strict=True) if excess == 0.0]

    def some_admissible(self, stage: int, bases: Integers) -> list[Scaling]:
        """As `admissible`.

        Raises:
            BudgetError: there is none.
        """
        if found := self.admissible(stage, bases):
            return found
        excess = self._excess(stage, bases)
        closest = self.space.scalings(stage)[int(excess.argmin())]
        rules = [in_words(constraint) for constraint in self.constraints[stage]]
        if self.limits.growth is not None:
            rules.insert(0, f"{2**stage} times the base models' MACs, give or take {self.limits.growth:.0%}")
        raise BudgetError(
            f"stage {stage}: found no strategy with {' and '.join(rules)}; the closest is depth {closest.depth:g},"
            f" width {closest.width:g}, resolution {closest.resolution}, {excess.min():.1%} beyond"
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
                    f" {write(least)} or more, since the base model's limit and growth {growth} ask for it"
                )


def in_words(constraint: Constraint) -> str:
    """A limit in words."""
    if constraint.floor:
        return f"{constraint.measure_name} {format_range(constraint.floor, constraint.budget, constraint.format)}"
    return f"{constraint.measure_name} of at most {constraint.format(constraint.budget)}"


def scaled_stages(space: Space) -> tuple[int, ...]:
    """Those above 0.

    Raises:
        InputError: there are none.
    """
    stages = tuple(each.stage for each in space.scaling if each.stage > 0)
    if not stages:
        raise InputError(f"scaling: found only stage 0 in the space {space.name}, expected a stage above 0")
    return stages
