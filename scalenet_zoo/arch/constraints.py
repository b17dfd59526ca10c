"""What a network may cost: one protocol for multiply-adds, parameters and latency."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.quantities import format_count, format_ms
from scalenet_zoo.core.quoting import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.rounding import Integers

    Floats = NDArray[np.float64]


class CostLike(Protocol):
    """What each of many networks costs, in an array of any shape."""

    @property
    def macs(self) -> Integers: ...  # noqa: D102
    @property
    def params(self) -> Integers: ...  # noqa: D102


class CostedPopulation(Protocol):
    """Many networks: `population.Population`, (N, M), or `search.scalenas.limits.TopologyPopulation`, (N,)."""

    @property
    def cost(self) -> CostLike: ...  # noqa: D102


def check_budget(budget: float, what: str) -> None:
    """See that a budget is one.

    Args:
        budget: the most of something.
        what: it limits, for the message.

    Raises:
        BudgetError: it is not positive, not finite, or not a number.
    """
    if not 0.0 < budget < math.inf:
        raise BudgetError(f"{what}: found {quoted(budget)}, expected a positive, finite number")


@dataclass(frozen=True)
class Constraint(ABC):
    """At most so much of something.

    Attributes:
        budget: the largest value that is feasible.
        floor: the smallest.
        measure_name: what it limits, in messages and names of networks.
        sees_resolution: whether the image's size makes a difference.
    """

    budget: float
    floor: float = field(default=0.0, kw_only=True)
    measure_name: ClassVar[str]
    sees_resolution: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_budget(self.budget, self.measure_name)

    @abstractmethod
    def measure(self, population: CostedPopulation) -> Floats:
        """What the networks of a population cost, in the population's shape."""

    def feasible(self, population: CostedPopulation) -> NDArray[np.bool_]:
        """Which networks keep the budget."""
        feasible: NDArray[np.bool_] = self.excess(self.measure(population)) == 0.0
        return feasible

    def violation(self, population: CostedPopulation) -> Floats:
        """By which share of the budget networks exceed it; 0 for those that keep it."""
        return self.excess(self.measure(population))

    def excess(self, values: Floats) -> Floats:
        """By which share of the budget values exceed it, or fall short of the floor; 0 for those that do neither."""
        excess: Floats = np.maximum(0.0, np.maximum(values - self.budget, self.floor - values) / self.budget)
        return excess

    def format(self, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
        """A value as people write it."""
        return format_count(value, rounding)


@dataclass(frozen=True)
class Macs(Constraint):
    """At most so many multiply-adds."""

    measure_name: ClassVar[str] = "macs"

    def measure(self, population: CostedPopulation) -> Floats:
        """Multiply-adds."""
        return population.cost.macs.astype(np.float64)


@dataclass(frozen=True)
class Params(Constraint):
    """At most so many parameters."""

    measure_name: ClassVar[str] = "params"
    sees_resolution: ClassVar[bool] = False

    def measure(self, population: CostedPopulation) -> Floats:
        """Parameters."""
        return population.cost.params.astype(np.float64)


class Predictor(Protocol):
    """What can predict latencies of one kind of population: `latency.model.LatencyModel`, say."""

    def predict(self, population: Any) -> Floats:  # noqa: ANN401
        """Milliseconds, in the population's shape."""
        ...


@dataclass(frozen=True)
class Latency(Constraint):
    """At most so many predicted milliseconds.

    Attributes:
        model: that predicts them.
    """

    model: Predictor
    measure_name: ClassVar[str] = "latency"

    def measure(self, population: CostedPopulation) -> Floats:
        """Predicted milliseconds."""
        return self.model.predict(population)

    def format(self, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
        """A value as people write it."""
        return format_ms(value, rounding)
