"""Constraints on the cost of a network: one protocol for multiply-adds, parameters and latency."""

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
    """The cost of many networks, as arrays of any one shape."""

    @property
    def macs(self) -> Integers: ...  # noqa: D102
    @property
    def params(self) -> Integers: ...  # noqa: D102


class CostedPopulation(Protocol):
    """Many networks: `population.Population`, (N, M), or `search.scalenas.limits.TopologyPopulation`, (N,)."""

    @property
    def cost(self) -> CostLike: ...  # noqa: D102


def check_budget(budget: float, what: str) -> None:
    """Check that a budget is a positive, finite number.

    Args:
        budget: the upper limit.
        what: the measure that it limits, named in the message.

    Raises:
        BudgetError: it is not positive, not finite, or not a number.
    """
    if not 0.0 < budget < math.inf:
        raise BudgetError(f"{what}: found {quoted(budget)}, expected a positive, finite number")


@dataclass(frozen=True)
class Constraint(ABC):
    """Limits on one measure of a network's cost.

    Attributes:
        budget: the largest feasible value.
        floor: the smallest feasible value.
        measure_name: the name of the measure in messages and in names of networks.
        sees_resolution: whether the measure depends on the image's size.

    Raises:
        BudgetError: the budget is not positive, not finite, or not a number.
    """

    budget: float
    floor: float = field(default=0.0, kw_only=True)
    measure_name: ClassVar[str]
    sees_resolution: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_budget(self.budget, self.measure_name)

    @abstractmethod
    def measure(self, population: CostedPopulation) -> Floats:
        """Measure the cost of each network, as an array of the population's shape."""

    def feasible(self, population: CostedPopulation) -> NDArray[np.bool_]:
        """Mark the networks within the limits, as an array of the population's shape."""
        feasible: NDArray[np.bool_] = self.excess(self.measure(population)) == 0.0
        return feasible

    def violation(self, population: CostedPopulation) -> Floats:
        """How far each network is outside the limits, as a share of the budget; 0 for those within them."""
        return self.excess(self.measure(population))

    def excess(self, values: Floats) -> Floats:
        """How far values are above the budget or below the floor, as a share of the budget; 0 for those within."""
        excess: Floats = np.maximum(0.0, np.maximum(values - self.budget, self.floor - values) / self.budget)
        return excess

    def format(self, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
        """A value as people write it."""
        return format_count(value, rounding)


@dataclass(frozen=True)
class Macs(Constraint):
    """A limit on multiply-adds."""

    measure_name: ClassVar[str] = "macs"

    def measure(self, population: CostedPopulation) -> Floats:
        """Multiply-adds of each network."""
        return population.cost.macs.astype(np.float64)


@dataclass(frozen=True)
class Params(Constraint):
    """A limit on parameters."""

    measure_name: ClassVar[str] = "params"
    sees_resolution: ClassVar[bool] = False

    def measure(self, population: CostedPopulation) -> Floats:
        """Parameters of each network."""
        return population.cost.params.astype(np.float64)


class Predictor(Protocol):
    """A predictor of latency for one kind of population, such as `latency.model.LatencyModel`."""

    def predict(self, population: Any) -> Floats:  # noqa: ANN401
        """Predict milliseconds, as an array of the population's shape."""
        ...


@dataclass(frozen=True)
class Latency(Constraint):
    """A limit on predicted milliseconds.

    Attributes:
        model: predicts the latency.
    """

    model: Predictor
    measure_name: ClassVar[str] = "latency"

    def measure(self, population: CostedPopulation) -> Floats:
        """Predicted milliseconds of each network."""
        return self.model.predict(population)

    def format(self, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
        """A value as people write it."""
        return format_ms(value, rounding)
