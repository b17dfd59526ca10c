"""A latency budget: the best network of a family that meets it, by measurement.

budget --Latency(model).fit_budget--> spec --create_model, prepare--> measured milliseconds
  ^                                                                     |
  +------------ the next smaller, as long as it is above the budget ----+

Networks for dense tasks are not scaled but chosen from the zoo's entries, which are few: without a model, they are
measured from the cheapest on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scalenet_zoo.export import OnProgress
from scalenet_zoo.export.latency_model import LatencyModel, make_latency_model, model_path
from scalenet_zoo.export.profile import QUICK, VISITS, Settings, prepare_yardstick, yardstick_network
from scalenet_zoo.export.runners import prepare
from scalenet_zoo.export.yardstick import Yardstick, quiet, quiet_ms

from scalenet_zoo.constraints import Latency
from scalenet_zoo.errors import BudgetError, InputError
from scalenet_zoo.quantities import format_ms
from scalenet_zoo.scaling import fit_budget
from scalenet_zoo.zoo import create_model

if TYPE_CHECKING:
    from scalenet_zoo.family import Family
    from scalenet_zoo.spec import ArchSpec
    from scalenet_zoo.zoo import Entries

ATTEMPTS = 8
"""Networks that are measured before a budget counts as out of reach."""


@dataclass(frozen=True)
class Attempt:
    """A network that was measured, since it may meet a budget.

    Attributes:
        spec: the network.
        predicted: milliseconds; None: there is no latency model.
        measured: milliseconds on the undisturbed machine.
        visits: medians of each visit, those of a disturbed machine too.
        quiet: how many visits were undisturbed.
    """

    spec: ArchSpec
    predicted: float | None
    measured: float
    visits: tuple[float, ...]
    quiet: int


@dataclass(frozen=True)
class Found:
    """What a budget led to.

    Attributes:
        attempts: all networks that were measured; the last one meets the budget and is taken.
        settings: back end, threads and so on that they were measured with.
    """

    attempts: tuple[Attempt, ...]
    settings: Settings


def find_latency_model(
    family: Family, settings: Settings, on_progress: OnProgress = lambda what, done, total: None
) -> LatencyModel:
    """The cached latency model for these settings on this machine, or a quick one made now and cached.

    Raises:
        BackendError: the back end cannot run here.
    """
    path = model_path(settings)
    return LatencyModel.load(path) if path.exists() else make_latency_model(family, settings, QUICK, path, on_progress)


def search_at_latency(
    budget: float,
    family: Family,
    latency_model: LatencyModel,
    classes: int | None = None,
    in_channels: int = 3,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Found:
    """Find the best network of a family that meets a latency budget: predicted first, then measured.

    Args:
        budget: milliseconds.
        family: that the model is for.
        latency_model: it says on which back end, with how many threads and images at once.
        classes: None: the family's.
        in_channels: of the image.
        on_progress: told before each measurement.

    Raises:
        BudgetError: the budget is out of range, or no network met it when measured.
        BackendError: the back end cannot run here.
        InputError: the model is for another family.
    """
    settings = latency_model.settings
    if settings.family != family.name:
        raise InputError(f"latency model: found one for the family {settings.family}, expected {family.name}")
    attempts: list[Attempt] = []
    target = budget
    constant = yardstick_network(family, settings.divisor)
    with prepare_yardstick(constant, settings, known=latency_model.yardstick) as yardstick:
        while len(attempts) < ATTEMPTS:
            on_progress(f"measuring on {settings.backend}", len(attempts), ATTEMPTS)
            try:
                spec = fit_budget(family, Latency(target, latency_model), settings.divisor, classes, in_channels)
            except BudgetError:
                if attempts:  # nothing smaller is left
                    break
                raise
            spec = spec.replace(name=f"{family.name}_{format_ms(budget)}_{settings.backend}")
            predicted = latency_model.predict_spec(spec)
            attempts.append(_attempt(spec, predicted, settings, yardstick))
            if (measured := attempts[-1].measured) <= budget:
                return Found(tuple(attempts), settings)
            target = min(0.99 * predicted, predicted * budget / measured)
    raise BudgetError(
        f"latency: found {format_ms(min(attempt.measured for attempt in attempts))} as the least of {len(attempts)}"
        f" measured networks of the family {family.name}, expected at most {format_ms(budget)}"
    )


def choose_at_latency(
    budget: float,
    entries: Entries,
    settings: Settings,
    latency_model: LatencyModel | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Found:
    """Choose the largest of the zoo's entries that meets a latency budget when measured.

    With a model, those that it predicts to meet the budget are measured, the largest first, until one does. Without
    one, entries are measured from the cheapest on, until one does not.

    Args:
        budget: milliseconds.
        entries: to choose from.
        settings: on which back end, with how many threads and images at once.
        latency_model: for these settings.
        on_progress: told before each measurement.

    Raises:
        BudgetError: no entry met the budget when measured.
        BackendError: the back end cannot run here.
    """
    attempts: list[Attempt] = []
    predicted: dict[str, float] = {}
    order = list(entries.specs)
    if latency_model:
        predicted = {spec.name: latency_model.predict_spec(spec) for spec in entries.specs}
        cheapest = order[0].name  # it is tried whatever is predicted
        order = [spec for spec in reversed(order) if predicted[spec.name] <= budget or spec.name == cheapest]
    known = latency_model.yardstick if latency_model else math.inf
    with prepare_yardstick(yardstick_network(entries, settings.divisor), settings, known=known) as yardstick:
        for spec in order:
            on_progress(f"measuring {spec.name} on {settings.backend}", len(attempts), len(order))
            attempts.append(_attempt(spec, predicted.get(spec.name), settings, yardstick))
            met = attempts[-1].measured <= budget
            if met == (latency_model is not None):  # down to the first that does, or up to the first that does not
                break
    attempts.sort(key=lambda attempt: attempt.measured <= budget)
    if (last := attempts[-1]).measured > budget:
        raise BudgetError(
            f"latency: found {format_ms(budget)}, expected at least the {format_ms(last.measured)} that"
            f" {last.spec.name} takes on {settings.backend}, the cheapest of the zoo's {entries.name} networks"
        )
    return Found(tuple(attempts), settings)


def _attempt(spec: ArchSpec, predicted: float | None, settings: Settings, yardstick: Yardstick) -> Attempt:
    """Measure a network."""
    images = torch.randn(settings.batch, spec.input.channels, spec.input.height, spec.input.width)
    with prepare(create_model(spec), images, settings.backend, settings.threads, settings.precision) as runner:
        visits = yardstick.visit(runner, VISITS)
    times = tuple(visit.ms for visit in visits)
    best = yardstick.best
    return Attempt(spec, predicted, quiet_ms(visits, best), times, len(quiet(visits, best)))
