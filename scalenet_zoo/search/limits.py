"""Limits on the cost of the networks of a search, common to all methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol, Self

from pydantic import Field, model_validator

from scalenet_zoo.core.documents import Strict
from scalenet_zoo.core.errors import BudgetError, QuantityError
from scalenet_zoo.core.quantities import parse_count, parse_ms

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Constraint, Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.latency.model import LatencyModel


class SearchLimits(Strict):
    """Limits of the networks of a search.

    Attributes:
        backend: the back end that latency is measured on (not called `on`, which YAML reads as a truth value).
        threads: CPU threads that the back end may use; None: as many as torch uses.
    """

    backend: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None

    @property
    @abstractmethod
    def given(self) -> dict[str, tuple[str | None, ...]]:
        """The limits as they are written in the configuration, by quantity: `macs`, `params`, `latency`."""

    @property
    def on_latency(self) -> bool:
        """Whether latency is limited."""
        return any(self.given["latency"])

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for name, amounts in self.given.items():
            for amount in filter(None, amounts):
                try:
                    parse_amount(name, amount)
                except QuantityError as error:
                    raise ValueError(str(error)) from None
        if self.on_latency and self.backend is None:
            raise ValueError("latency: found no back end, expected one in `backend`, such as ort-cpu")
        return self


@dataclass(frozen=True)
class Costs:
    """The costs of n networks, as arrays of shape (n,).

    Attributes:
        macs: number of MACs.
        params: number of parameters.
        latency_ms: latency in milliseconds as a model predicts it; None: there is no model.
    """

    macs: Integers
    params: Integers
    latency_ms: Floats | None = None


class SearchBounds(Protocol):
    """The costs of the networks of a space, by their keys, and the limits on these costs."""

    def costs(self, keys: Sequence[str]) -> Costs:
        """Give the costs of networks."""
        ...

    def with_model(self, model: LatencyModel) -> Self:
        """The same limits, with another latency model."""
        ...


def parse_amount(name: str, amount: str) -> float:
    """Parse a limit on `macs`, `params` or `latency`.

    Returns:
        A number of MACs or of parameters, or milliseconds.

    Raises:
        QuantityError: the limit cannot be read.
    """
    return parse_ms(amount, name) if name == "latency" else parse_count(amount, name)


def check_within(constraint: Constraint, smallest: Floats, largest: Floats, where: str, space: str) -> None:
    """Refuse a limit that no network can keep.

    Args:
        constraint: the limit.
        smallest, largest: the limited quantity of the smallest and of the largest networks of the space.
        where: what is limited, as messages put it after the limit.
        space: the name of the space.

    Raises:
        BudgetError: the smallest networks exceed the limit, or the largest fall short of its floor.
    """
    name, write = constraint.measure_name, constraint.format
    least, most = float(smallest.min()), float(largest.max())
    if least > constraint.budget:
        raise BudgetError(
            f"limits.{name}: found at most {write(constraint.budget)}{where}, expected {write(least)} or more,"
            f" as the smallest network of the space {space} has"
        )
    if most < constraint.floor:
        raise BudgetError(
            f"limits.{name}: found at least {write(constraint.floor)}{where}, expected {write(most)} or less,"
            f" as the largest network of the space {space} has"
        )
