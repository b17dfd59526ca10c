"""Limits on the cost of multipath networks: one each on MACs, parameters and latency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BeforeValidator

from scalenet_zoo.arch.constraints import Constraint, Latency, Macs, Params
from scalenet_zoo.search.limits import Costs, SearchLimits, check_within, parse_amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.multipath_cost import MultipathCost
    from scalenet_zoo.core.backends import Precision
    from scalenet_zoo.latency.model import LatencyModel
    from scalenet_zoo.spaces.scalenas import Bools, MultipathSpace, Topologies


def _one(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 1:  # the command line gives lists
        value = value[0]
    if value is not None and not isinstance(value, str):
        raise ValueError("expected one quantity with its unit, such as 20G or 40ms")
    return value


Amount = Annotated[str | None, BeforeValidator(_one)]


class TopologyLimits(SearchLimits):
    """Limits on the networks, as YAML.

        limits: {macs: 20G, latency: 40ms, backend: ort-cpu}

    Attributes:
        macs: the most MACs (multiply-adds).
        params: the most parameters.
        latency: the longest latency.
    """

    macs: Amount = None
    params: Amount = None
    latency: Amount = None

    @property
    def given(self) -> dict[str, tuple[str | None, ...]]:
        """The limits as they are written; see `SearchLimits.given`."""
        return {"macs": (self.macs,), "params": (self.params,), "latency": (self.latency,)}

    @property
    def milliseconds(self) -> float | None:
        """The limit on latency in milliseconds; None: there is none."""
        return parse_amount("latency", self.latency) if self.latency else None


@dataclass(frozen=True)
class TopologyPopulation:
    """Topologies of a space, whose costs can be computed.

    Attributes:
        space: the space of the topologies.
        topologies: n topologies.
        classes: number of classes or joints.
    """

    space: MultipathSpace
    topologies: Topologies
    classes: int

    @cached_property
    def cost(self) -> MultipathCost:
        """Number of MACs and of parameters, (n,) each."""
        return self.space.cost(self.topologies, self.classes)

    def terms(self, precision: Precision = "fp32") -> Floats:
        """The terms of their latency in a precision, (terms, n); see `latency/terms.py`."""
        from scalenet_zoo.latency.terms import multipath_terms

        space, depth, fusion = self.space, self.topologies.depth, self.topologies.fusion
        return multipath_terms(depth, fusion, space.width, space.head, space.input, self.classes, precision)


@dataclass(frozen=True)
class TopologyPredictor:
    """Adapts a latency model of multipath networks to `constraints.Latency`."""

    model: LatencyModel

    def predict(self, population: TopologyPopulation) -> Floats:
        """Predict latencies in milliseconds, (n,)."""
        return self.model.predict_terms(population.terms(self.model.settings.precision))


@dataclass(frozen=True)
class TopologyBounds:
    """The limits on the networks of a space.

    Attributes:
        space: the space of the networks.
        classes: number of classes or joints.
        limits: the limits to keep.
        model: predicts latency; None: a limit on latency is not applied yet.
    """

    space: MultipathSpace
    classes: int
    limits: TopologyLimits
    model: LatencyModel | None = None

    def check(self) -> None:
        """Compare the limits with the smallest and the largest network.

        Raises:
            BudgetError: no network of the space can keep one of the limits.
        """
        smallest, largest = (self.population(end[None]) for end in (self.space.smallest, self.space.largest))
        for constraint in self.constraints:
            check_within(constraint, constraint.measure(smallest), constraint.measure(largest), "", self.space.name)

    def with_model(self, model: LatencyModel) -> TopologyBounds:
        """The same limits, with another latency model."""
        return replace(self, model=model)

    @property
    def without_latency(self) -> TopologyBounds:
        """The limits on MACs and parameters only."""
        return replace(self, model=None)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The limits that can be applied: those on MACs and parameters, and that on latency if there is a model."""
        amounts = ((kind, self.limits.given[kind.measure_name][0]) for kind in (Macs, Params))
        found: list[Constraint] = [kind(parse_amount(kind.measure_name, text)) for kind, text in amounts if text]
        if self.limits.milliseconds is not None and self.model is not None:
            found.append(Latency(self.limits.milliseconds, TopologyPredictor(self.model)))
        return tuple(found)

    def population(self, topologies: Topologies) -> TopologyPopulation:
        """Make a population of topologies, whose costs can be computed."""
        return TopologyPopulation(self.space, topologies, self.classes)

    def costs(self, keys: Sequence[str]) -> Costs:
        """Compute the costs of topologies by their keys."""
        population = self.population(self.space.from_keys(keys))
        predicted = None if self.model is None else TopologyPredictor(self.model).predict(population)
        return Costs(population.cost.macs, population.cost.params, predicted)

    def feasible(self, topologies: Topologies) -> Bools:
        """Tell which of n topologies keep all limits, (n,)."""
        population = self.population(topologies)
        feasible = np.ones(len(topologies), dtype=bool)
        for constraint in self.constraints:
            feasible &= constraint.feasible(population)
        return feasible
