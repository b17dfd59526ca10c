"""A latency budget: the best network of a family that meets it, by measurement.

budget --Latency(model).fit_budget--> spec --create_model, open_runner--> measured milliseconds
  ^                                                                     |
  +-- the next smaller as long as it is above, then larger ones --------+

Networks for dense tasks are not scaled but chosen from the zoo's entries, which are few: without a model, they are
measured from the cheapest on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from scalenet_zoo.arch.constraints import Latency, check_budget
from scalenet_zoo.arch.scaling import fit_budget
from scalenet_zoo.arch.spec import Result
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_count, format_ms
from scalenet_zoo.latency.model import LatencyModel, make_latency_model, model_path
from scalenet_zoo.latency.profile import QUICK, VISITS, Settings, device_name, prepare_yardstick, yardstick_network
from scalenet_zoo.latency.runners import check_batch, open_runner
from scalenet_zoo.latency.yardstick import Yardstick, at_best, quiet, quiet_ms
from scalenet_zoo.zoo.catalog import latency_name
from scalenet_zoo.zoo.create import create_model

if TYPE_CHECKING:
    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.zoo.catalog import Entries

_log = logging.getLogger(__name__)

MOST_MEASURED = 8
"""Networks that are measured before a budget counts as out of reach."""
UPWARDS = 2
"""Of these, larger ones that are tried once a network meets the budget."""
USED = 0.985
"""Share of a budget from which on nothing larger is tried: a measurement is no more exact than the rest."""
AIM = 0.995
"""Share of a budget that larger networks aim at: of those that aim at all of it, half miss it."""
STEP = 0.002
"""Share of its latency by which a network has to be larger than one that met the budget."""
REPEATS, PAUSE = 2, 10.0
"""How often a network is measured again as long as the machine was never undisturbed, and seconds before that."""
WITHIN = 0.1
"""The largest share of a budget by which an entry that is tried may be predicted to miss it."""


@dataclass(frozen=True)
class Attempt:
    """A network that was measured, since it may meet a budget.

    Attributes:
        spec: the network.
        predicted: milliseconds; None: there is no latency model.
        measured: milliseconds on the undisturbed machine, at its best speed.
        visits: medians of each visit, those of a disturbed machine too, scaled to that speed as `measured` is.
        quiet: how many visits were undisturbed.
    """

    spec: ArchSpec
    predicted: float | None
    measured: float
    visits: tuple[float, ...]
    quiet: int


@dataclass(frozen=True)
class LatencyChoice:
    """What a budget led to.

    Attributes:
        attempts: all networks that were measured, as they were; but the one that is taken is the last.
        settings: back end, threads and so on that they were measured with.
    """

    attempts: tuple[Attempt, ...]
    settings: Settings

    @property
    def taken(self) -> Attempt:
        """The largest of the networks that met the budget."""
        return self.attempts[-1]


def find_latency_model(
    family: Family, settings: Settings, on_progress: OnProgress = lambda what, done, total: None
) -> LatencyModel:
    """The cached latency model for these settings on this machine, or a quick one made now and cached.

    Raises:
        BackendError: the back end cannot run here.
        OutputError: there is none, and the cache cannot be written.
        SpecError, InputError: the file is damaged, or is of other settings.
    """
    path = model_path(settings)
    if not path.exists():
        return make_latency_model(family, settings, QUICK, path, on_progress)
    model = LatencyModel.load(path)
    if model.settings != settings:
        raise InputError(f"{path}: settings: found another model's, expected this one's: profile again")
    return model


def search_at_latency(
    budget: float,
    family: Family,
    latency_model: LatencyModel,
    classes: int | None = None,
    in_channels: int = 3,
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyChoice:
    """Find the best network of a family that meets a latency budget: predicted first, then measured.

    Once a network meets it, larger ones are tried as long as it leaves room: predictions are off by a few percent.

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
    check_budget(budget, "latency")
    settings = latency_model.settings
    if settings.family != (expected := latency_name(family)):
        raise InputError(f"latency model: found one for the family {settings.family}, expected {expected}")
    attempts: list[Attempt] = []

    def tell(what: str) -> None:
        on_progress(what, len(attempts), MOST_MEASURED)

    constant = yardstick_network(family, settings.divisor)
    with prepare_yardstick(constant, settings, known=latency_model.yardstick) as yardstick:
        while wanted := _wanted(attempts, budget):
            least, most = wanted
            limit = Latency(most, latency_model, floor=least)
            try:
                spec = fit_budget(family, limit, settings.divisor, classes, in_channels)
            except BudgetError:
                if attempts:  # nothing smaller, or nothing between, is left
                    break
                raise
            if (predicted := latency_model.predict_spec(spec)) < least:
                break
            spec = spec.replace(name=f"{family.name}_{format_ms(budget)}_{settings.place}")
            name = f"a network of {format_count(spec.cost.macs)} MACs"
            attempts.append(_attempt(spec, predicted, settings, yardstick, name, tell))
    if not any(attempt.measured <= budget for attempt in attempts):
        raise BudgetError(
            f"latency: found {format_ms(min(attempt.measured for attempt in attempts))} as the least of {len(attempts)}"
            f" measured networks of the family {family.name}, expected at most {format_ms(budget)}"
            f"{_disturbed(attempts)}"
        )
    return _found(attempts, budget, settings)


def _wanted(attempts: Sequence[Attempt], budget: float) -> tuple[float, float] | None:
    """What the next network of a family is to take as predicted, at least and at most; None: the search is over."""
    if not attempts:
        return 0.0, budget
    if len(attempts) == MOST_MEASURED:
        return None
    known = [(attempt.predicted or 0.0, attempt.measured) for attempt in attempts]
    predicted, measured = known[-1]
    below = [0.99 * ms for ms, found in known if found > budget]
    most = min([predicted * budget / measured, *below])
    met = [i for i, (_, found) in enumerate(known) if found <= budget]
    if not met:
        return 0.0, most
    most = min([AIM * predicted * budget / measured, *below])
    least = max((1 + STEP) * known[i][0] for i in met)
    enough = max(known[i][1] for i in met) >= USED * budget or len(attempts) > met[0] + UPWARDS
    return None if enough or most < least else (least, most)


def choose_at_latency(
    budget: float,
    entries: Entries,
    settings: Settings,
    latency_model: LatencyModel | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyChoice:
    """Choose the largest of the zoo's entries that meets a latency budget when measured.

    With a model, those that it predicts to meet the budget, or to miss it by no more than it is usually off, are
    measured, the largest first, until one does. Without one, entries are measured from the cheapest on, until one
    does not.

    Args:
        budget: milliseconds.
        entries: to choose from.
        settings: on which back end, with how many threads and images at once.
        latency_model: for these settings.
        on_progress: told before each measurement.

    Raises:
        BudgetError: no entry met the budget when measured.
        BackendError: the back end cannot run here.
        InputError: the model is for other settings.
    """
    check_budget(budget, "latency")
    if latency_model and latency_model.settings != settings:
        raise InputError("latency model: settings: found another model's, expected these: profile again")
    attempts: list[Attempt] = []
    predicted: dict[str, float] = {}
    order = list(entries.specs)
    if latency_model:
        predicted = {spec.name: latency_model.predict_spec(spec) for spec in entries.specs}
        cheapest = order[0].name  # it is tried whatever is predicted
        most = budget * (1 + min(WITHIN, latency_model.held_out.rms))
        order = [spec for spec in reversed(order) if predicted[spec.name] <= most or spec.name == cheapest]
    known = latency_model.yardstick if latency_model else math.inf

    def tell(what: str) -> None:
        on_progress(what, len(attempts), len(order))

    with prepare_yardstick(yardstick_network(entries, settings.divisor), settings, known=known) as yardstick:
        for spec in order:
            attempts.append(_attempt(spec, predicted.get(spec.name), settings, yardstick, spec.name, tell))
            met = attempts[-1].measured <= budget
            if met == (latency_model is not None):  # down to the first that does, or up to the first that does not
                break
    if not any(attempt.measured <= budget for attempt in attempts):
        last = attempts[-1]
        raise BudgetError(
            f"latency: found {format_ms(budget)}, expected at least the {format_ms(last.measured)} that"
            f" {last.spec.name} takes on {settings.backend}, the cheapest of the zoo's {entries.name} networks"
            f"{_disturbed(attempts)}"
        )
    return _found(attempts, budget, settings)


def _attempt(
    spec: ArchSpec,
    predicted: float | None,
    settings: Settings,
    yardstick: Yardstick,
    name: str,
    tell: Callable[[str], None],
) -> Attempt:
    """Measure a network, a few times if the machine is never undisturbed meanwhile."""
    tell(f"measuring {name} on {settings.backend}")
    size = spec.input
    check_batch(settings.batch, (size.channels, size.height, size.width))
    images = torch.randn(settings.batch, size.channels, size.height, size.width)
    with open_runner(create_model(spec), images, settings.backend, settings.threads, settings.precision) as runner:
        visits = yardstick.visit(runner, VISITS)
        for _ in range(REPEATS):
            if quiet(visits, yardstick.best):
                break
            tell(f"waiting, since this machine is disturbed, to measure {name} again")
            time.sleep(PAUSE)
            visits += yardstick.visit(runner, VISITS)
    best = yardstick.best
    measured, undisturbed = quiet_ms(visits, best), len(quiet(visits, best))
    if not undisturbed:
        _log.warning(
            "%s: found this machine disturbed during all %d visits: %s is what they say of its best speed, less surely",
            name,
            len(visits),
            format_ms(measured),
        )
    return Attempt(spec, predicted, measured, tuple(at_best(visit, best) for visit in visits), undisturbed)


def _disturbed(attempts: Sequence[Attempt]) -> str:
    """What to add where no network met a budget."""
    return "" if all(attempt.quiet for attempt in attempts) else "; this machine was disturbed: try again"


def _found(attempts: Sequence[Attempt], budget: float, settings: Settings) -> LatencyChoice:
    """The largest network that met the budget comes last; its provenance tells of its latency."""
    taken = max((each for each in attempts if each.measured <= budget), key=lambda each: each.spec.cost.macs)
    provenance = taken.spec.provenance
    result = Result(metric="latency_ms", value=taken.measured, data=settings.conditions, origin="measured")
    details = settings.model_dump(mode="json", exclude={"family", "divisor"}) | {
        "budget_ms": budget,
        "predicted_ms": taken.predicted,
        "device": device_name(settings.backend),
    }
    told = provenance.model_copy(
        update={
            "results": (*provenance.results, result),
            "details": {**provenance.details, "latency": details},
        }
    )
    last = replace(taken, spec=taken.spec.model_copy(update={"provenance": told}))
    return LatencyChoice((*(each for each in attempts if each is not taken), last), settings)
