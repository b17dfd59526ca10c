"""The most accurate published network that meets a latency budget on this machine, by measurement.

    entries x precisions --the most accurate first--> measured, kept figures first, until one meets the budget

A network is ruled out without a measurement only if it would be too slow even at half the least time per MAC that was
measured in its precision. To have such figures, a few networks around the budget are measured first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalenet_zoo.arch.constraints import check_budget
from scalenet_zoo.arch.spec import ArchSpec, Result
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import BackendError, BudgetError, ExportError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.explore.bench import Bench
from scalenet_zoo.explore.entries import QuotedEntry
from scalenet_zoo.explore.figures import Setting
from scalenet_zoo.explore.precisions import ORDER
from scalenet_zoo.latency.profile import Settings, device_name

_log = logging.getLogger(__name__)

SLACK = 0.5
"""Share of the least measured time per MAC; no network is assumed to be faster than this share of it."""


@dataclass(frozen=True)
class MeasuredEntry:
    """A published network that was measured in a precision.

    Attributes:
        entry: the zoo's entry, with its quoted accuracy.
        precision: the precision it was measured in.
        ms: milliseconds on the undisturbed machine at its best speed.
        quiet: number of undisturbed visits.
        visits: number of all visits.
    """

    entry: QuotedEntry
    precision: Precision
    ms: float
    quiet: int
    visits: int

    @property
    def accuracy(self) -> float:
        """The quoted top-1 accuracy in percent; it is that of fp32, whatever the precision."""
        assert self.entry.value is not None
        return self.entry.value


@dataclass(frozen=True)
class Choice:
    """The network chosen for a latency budget, and what it was compared with.

    Attributes:
        budget: the budget in milliseconds.
        setting: back end, threads and batch size.
        precisions: the precisions that were allowed.
        candidates: all networks with a measured figure, the most accurate first.
        measured: how many of them were measured now; the figures of the others were kept earlier.
        unmeasured: how many networks more accurate than the one taken were ruled out by their MACs.
        taken: the most accurate network that meets the budget, in the widest precision that does.
        spec: its spec, whose provenance has its latency and its accuracy.
    """

    budget: float
    setting: Setting
    precisions: tuple[Precision, ...]
    candidates: tuple[MeasuredEntry, ...]
    measured: int
    unmeasured: int
    taken: MeasuredEntry
    spec: ArchSpec


def choose_entry(
    budget: float,
    entries: Sequence[QuotedEntry],
    precisions: Sequence[Precision],
    bench: Bench,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Choice:
    """Choose the entry of the highest quoted accuracy that meets a latency budget when measured.

    Args:
        budget: the budget in milliseconds.
        entries: the entries to choose from; each has a quoted accuracy.
        precisions: the precisions that are allowed.
        bench: measures entries, or knows their figures.
        on_progress: called before each measurement.

    Raises:
        BudgetError: no entry meets the budget; the message has the least latency found.
        BackendError: the back end cannot run any of the entries.
        TrainingError: another process is measuring.
        OutputError: figures cannot be written.
    """
    check_budget(budget, "latency")
    order = sorted(
        ((entry, precision) for entry in entries for precision in precisions),
        key=lambda each: (-_accuracy(each[0]), each[0].spec.cost.macs, each[0].spec.name, ORDER.index(each[1])),
    )

    def tell(what: str) -> None:
        on_progress(what, bench.measured, len(order))

    for precision in precisions:
        _look_around(budget, entries, precision, bench, tell)
    before = None
    while bench.figures is not before:  # each measurement tells more precisely which visits were undisturbed
        before = bench.figures
        taken, unmeasured = _first_that_meets(budget, order, bench, tell)
    known = [found for entry, precision in order if (found := _known(entry, precision, bench))]
    if taken is None and not known:
        raise BackendError(
            f"{bench.setting.backend}: found that it runs none of {len(entries)} networks, expected it to run some"
        )
    if taken is None:
        least = min(known, key=lambda each: each.ms)
        raise BudgetError(
            f"latency: found {format_ms(least.ms)} as the lowest of {len(known)} measured ({least.entry.spec.name} in"
            f" {least.precision} on {bench.setting.backend}), expected at most {format_ms(budget)}"
        )
    spec = _with_provenance(taken, budget, bench.setting)
    return Choice(budget, bench.setting, tuple(precisions), tuple(known), bench.measured, unmeasured, taken, spec)


def _first_that_meets(
    budget: float,
    order: Sequence[tuple[QuotedEntry, Precision]],
    bench: Bench,
    tell: Callable[[str], None],
) -> tuple[MeasuredEntry | None, int]:
    """The first network that meets a budget, or None; and how many before it are ruled out by their MACs alone."""
    unmeasured = 0
    for entry, precision in order:
        least = SLACK * entry.spec.cost.macs * bench.figures.least_a_mac(precision)
        if bench.figures.find(entry.spec, precision) is None and least > budget:
            unmeasured += 1
        elif (found := _measure(entry, precision, bench, tell)) and found.ms <= budget:
            return found, unmeasured
    return None, unmeasured


def _accuracy(entry: QuotedEntry) -> float:
    assert entry.value is not None
    return entry.value


def _look_around(
    budget: float,
    entries: Sequence[QuotedEntry],
    precision: Precision,
    bench: Bench,
    tell: Callable[[str], None],
) -> None:
    """Measure a few networks about as large as the budget allows, by bisection over their MACs."""
    ordered = sorted(entries, key=lambda each: (each.spec.cost.macs, each.spec.name))
    low, high = 0, len(ordered)  # the next network to try lies in between
    while low < high:
        middle = (low + high) // 2
        found = _measure(ordered[middle], precision, bench, tell)
        low, high = (middle + 1, high) if found and found.ms <= budget else (low, middle)


def _measure(
    entry: QuotedEntry, precision: Precision, bench: Bench, tell: Callable[[str], None]
) -> MeasuredEntry | None:
    """Give an entry with its figure, measured now if none is kept; None, with a warning: the back end cannot run it."""
    if bench.known(entry.spec, precision) is None:
        bench.make_ready(tell)  # outside the `try`: a failure here is not the entry's
    try:
        bench.measure(entry.spec, precision, tell)
    except (BackendError, ExportError) as error:
        _log.warning("%s in %s: left out: %s", entry.spec.name, precision, error)
    return _known(entry, precision, bench)


def _known(entry: QuotedEntry, precision: Precision, bench: Bench) -> MeasuredEntry | None:
    figure = bench.figures.find(entry.spec, precision)
    if figure is None:
        return None
    return MeasuredEntry(entry, precision, bench.figures.ms(figure), bench.figures.quiet(figure), len(figure.visits))


def _with_provenance(taken: MeasuredEntry, budget: float, setting: Setting) -> ArchSpec:
    """The spec of the network taken, with its latency, its accuracy and whose figure that is in its provenance."""
    spec, entry = taken.entry.spec, taken.entry
    settings = Settings(
        family="zoo",
        backend=setting.backend,
        precision=taken.precision,
        threads=setting.threads,
        batch=setting.batch,
    )
    result = Result(metric="latency_ms", value=taken.ms, data=settings.conditions, origin="measured")
    latency = settings.model_dump(mode="json", exclude={"family", "divisor"}) | {
        "budget_ms": budget,
        "device": device_name(setting.backend),
    }
    accuracy = {
        "metric": entry.metric,
        "value": taken.accuracy,
        "data": entry.data,
        "origin": entry.origin,
        "precision": "fp32",
        "weights": entry.weights,
        "license": entry.license,
    }
    told = spec.provenance
    provenance = told.model_copy(
        update={
            "results": (*told.results, result),
            "details": {**told.details, "latency": latency, "accuracy": accuracy},
        }
    )
    return spec.model_copy(update={"provenance": provenance})
