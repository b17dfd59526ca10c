"""Search for the best network of a family that meets a latency budget when measured.

budget --Latency(model).fit_budget--> spec --create_seeded, open_runner--> measured milliseconds
  ^                                                                     |
  +-- smaller networks until one meets the budget, then larger ones ----+

Networks for dense tasks are not scaled but chosen from the few entries of the zoo. Without a latency model, these are
measured in order, from the cheapest on.
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
from scalenet_zoo.latency.measuring import VISITS, prepare_yardstick, yardstick_network
from scalenet_zoo.latency.model import LatencyModel, make_latency_model, model_path
from scalenet_zoo.latency.plan import QUICK
from scalenet_zoo.latency.profile import Settings, device_name
from scalenet_zoo.latency.runners import check_batch, open_runner
from scalenet_zoo.latency.yardstick import Yardstick, at_best, quiet, quiet_ms
from scalenet_zoo.zoo.catalog import latency_name
from scalenet_zoo.zoo.create import create_seeded

if TYPE_CHECKING:
    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.zoo.catalog import Entries

_log = logging.getLogger(__name__)

MOST_MEASURED = 8
"""The most networks that are measured for one budget."""
UPWARDS = 2
"""The most of these that are tried after a network meets the budget, each larger than that one."""
USED = 0.985
"""The share of a budget from which nothing larger is tried, since measurements are no more exact than what is left."""
AIM = 0.995
"""The share of a budget at which larger networks aim; if they aimed at the whole budget, half would miss it."""
STEP = 0.002
"""The least increase of predicted latency, as a share, over a network that met the budget."""
REPEATS, PAUSE = 2, 10.0
"""How often a network is measured again if no visit was undisturbed, and the seconds to wait before that."""
WITHIN = 0.1
"""An entry is tried only if its prediction exceeds the budget by at most this share of it."""


@dataclass(frozen=True)
class Attempt:
    """A network that was measured because it might meet a budget.

    Attributes:
        spec: the network.
        predicted: the predicted milliseconds; None: there is no latency model.
        measured: the measured milliseconds on the undisturbed machine, at its best speed.
        visits: the median of each visit in milliseconds, disturbed ones included, scaled to the same speed.
        quiet: the number of undisturbed visits.
    """

    spec: ArchSpec
    predicted: float | None
    measured: float
    visits: tuple[float, ...]
    quiet: int


@dataclass(frozen=True)
class LatencyChoice:
    """The result of a search at a latency budget.

    Attributes:
        attempts: all networks that were measured, in this order, but with the chosen one last.
        settings: back end, threads and the other settings of the measurements.
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
    """Load the cached latency model for these settings on this machine; if there is none, make a quick one.

    Raises:
        BackendError: the back end cannot run here.
        OutputError: there is no cached model, and the cache cannot be written.
        SpecError, InputError: the file is damaged, or is for other settings.
    """
    path = model_path(settings)
    if not path.exists():
        return make_latency_model(family, settings, QUICK, path, on_progress)
    model = LatencyModel.load(path)
    if model.settings != settings:
        raise InputError(f"{path}: settings: found another model's, expected the requested ones: profile again")
    return model


def search_at_latency(
    budget: float,
    family: Family,
    latency_model: LatencyModel,
    classes: int | None = None,
    in_channels: int = 3,
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyChoice:
    """Find the best network of a family that meets a latency budget, first by prediction, then by measurement.

    Predictions are off by a few percent. So once a network meets the budget and leaves room, larger ones are tried.

    Args:
        budget: the budget in milliseconds.
        family: the family that the model is for.
        latency_model: the model; its settings give the back end, the threads and the batch.
        classes: the number of classes; None: the family's.
        in_channels: the channels of the image.
        on_progress: reports the next measurement.

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
                if attempts:  # no smaller network, or none in between, is left
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
    """Choose the least and most predicted milliseconds of the next network; None: the search is over."""
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

    With a model, the candidates are the entries that it predicts to meet the budget, or to miss it by no more than its
    usual error. They are measured from the largest down until one meets the budget. Without a model, entries are
    measured from the cheapest up until one does not meet it.

    Args:
        budget: the budget in milliseconds.
        entries: the entries to choose from.
        settings: the back end, the threads and the batch.
        latency_model: a latency model for these settings.
        on_progress: reports the next measurement.

    Raises:
        BudgetError: no entry met the budget when measured.
        BackendError: the back end cannot run here.
        InputError: the model is for other settings.
    """
    check_budget(budget, "latency")
    if latency_model and latency_model.settings != settings:
        raise InputError("latency model: settings: found another model's, expected the requested ones: profile again")
    attempts: list[Attempt] = []
    predicted: dict[str, float] = {}
    order = list(entries.specs)
    if latency_model:
        predicted = {spec.name: latency_model.predict_spec(spec) for spec in entries.specs}
        cheapest = order[0].name  # the cheapest entry is always tried
        most = budget * (1 + min(WITHIN, latency_model.held_out.rms))
        order = [spec for spec in reversed(order) if predicted[spec.name] <= most or spec.name == cheapest]
    known = latency_model.yardstick if latency_model else math.inf

    def tell(what: str) -> None:
        on_progress(what, len(attempts), len(order))

    with prepare_yardstick(yardstick_network(entries, settings.divisor), settings, known=known) as yardstick:
        for spec in order:
            attempts.append(_attempt(spec, predicted.get(spec.name), settings, yardstick, spec.name, tell))
            met = attempts[-1].measured <= budget
            if met == (latency_model is not None):  # the first that meets it on the way down, or misses it going up
                break
    if not any(attempt.measured <= budget for attempt in attempts):
        last = attempts[-1]
        raise BudgetError(
            f"latency: found {format_ms(budget)}, expected at least {format_ms(last.measured)}, which"
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
    """Measure a network; repeat this a few times while no visit is undisturbed."""
    tell(f"measuring {name} on {settings.backend}")
    size = spec.input
    check_batch(settings.batch, (size.channels, size.height, size.width))
    shape = settings.batch, size.channels, size.height, size.width
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with open_runner(create_seeded(spec), images, settings.backend, settings.threads, settings.precision) as runner:
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
            "%s: found this machine disturbed during all %d visits: %s is a less certain estimate than usual",
            name,
            len(visits),
            format_ms(measured),
        )
    return Attempt(spec, predicted, measured, tuple(at_best(visit, best) for visit in visits), undisturbed)


def _disturbed(attempts: Sequence[Attempt]) -> str:
    """Return the end of the error that no network meets a budget."""
    return "" if all(attempt.quiet for attempt in attempts) else "; this machine was disturbed: try again"


def _found(attempts: Sequence[Attempt], budget: float, settings: Settings) -> LatencyChoice:
    """Put the largest network that met the budget last, with its latency in its provenance."""
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
