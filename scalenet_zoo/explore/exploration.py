"""All of the zoo's entries on this machine, measured or predicted by a latency model, on a page.

entries --Bench--> figures (kept) --> points --page.py--> explore.html
   +------latency models: only entries near the front are measured
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scalenet_zoo.core.backends import check_backend, machine
from scalenet_zoo.core.errors import BackendError, ExportError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.explore.entries import QuotedEntry, command_for, quoted_entries
from scalenet_zoo.explore.front import front, near_front
from scalenet_zoo.explore.page import write_explorer
from scalenet_zoo.explore.precisions import ANY, check_precisions, precisions_on

if TYPE_CHECKING:
    from scalenet_zoo.core.backends import Precision
    from scalenet_zoo.explore.bench import Bench
    from scalenet_zoo.explore.prediction import PredictedEntry

_log = logging.getLogger(__name__)

EXPLORE_PAGE = Path("explore.html")
"""The file that the page is written to by default."""


@dataclass(frozen=True)
class Point:
    """An entry of the zoo on a back end, in a precision.

    Attributes:
        name, task: name and task of the entry.
        metric, value, data, origin, weights, license: as in `QuotedEntry`; the value is that of fp32 in any precision.
        height, width: size of the image in pixels.
        macs, params: number of MACs and of parameters of the network.
        backend, precision: the back end and precision it ran in.
        ms: milliseconds on the undisturbed machine.
        measured: True if `ms` is measured, False if a latency model predicts it.
        quiet: number of undisturbed visits; 0 if the latency is predicted.
        command: the command that builds or exports it for the back end.
        front: True if no other point of the same metric and data is at least as good in less time.
    """

    name: str
    task: str
    metric: str
    value: float | None
    data: str
    origin: str
    weights: str | None
    license: str
    height: int
    width: int
    macs: int
    params: int
    backend: str
    precision: str
    ms: float
    measured: bool
    quiet: int
    command: str
    front: bool = False

    @property
    def figure(self) -> tuple[str, str, str]:
        """Task, metric and data, which two points must share for their values to be comparable."""
        return self.task, self.metric, self.data


@dataclass(frozen=True)
class Exploration:
    """The zoo's entries on this machine.

    Attributes:
        machine: what the machine is.
        threads, batch: CPU threads and batch size that the latencies were measured with.
        points: sorted by back end, precision, task and MACs.
        left_out: what could not be measured, and why: "NAME in PRECISION on BACKEND: ...".
        measured: how many points were measured now; the others are kept figures or predictions.
        page: the file that was written.
    """

    machine: Mapping[str, Any]
    threads: int
    batch: int
    points: tuple[Point, ...]
    left_out: tuple[str, ...]
    measured: int
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold."""
        return asdict(self) | {"page": str(self.page)}


def explore_zoo(
    on: str | Sequence[str] = "ort-cpu",
    precision: str | Sequence[str] = ANY,
    task: str | Sequence[str] = "classification",
    *,
    threads: int | None = None,
    batch: int = 1,
    models: str = "*",
    measure_all: bool = False,
    quick: bool = False,
    output: str | Path = EXPLORE_PAGE,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Exploration:
    """Measure the zoo's entries on this machine, and write a page that shows which of them are worth taking.

    Figures are kept: an interrupted exploration resumes where it stopped, and nothing is measured twice. Where
    `profile` made a latency model of a family, only those of its entries are measured that may be on the Pareto front.

    Args:
        on: one back end, or several.
        precision: fp32, fp16, int8 or any; one of them, or several.
        task: what the networks are for; one task, or several.
        threads: CPU threads; None: as many as torch uses.
        batch: images per batch.
        models: a shell pattern for the entries' names.
        measure_all: also measure entries that a latency model predicts to be far from the front.
        quick: pay one visit to each entry instead of three.
        output: the page to write.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: there is no such precision, or networks are not timed in it on a back end.
        ModelNotFoundError: there is no such task, or no entry of such a name.
        BackendError: there is no such back end, it cannot run here, or it runs none of the entries.
        TrainingError: another process is measuring.
        OutputError: the page or the figures cannot be written.
        SpecError: a file of the cache is damaged.
    """
    backends = list(dict.fromkeys([on] if isinstance(on, str) else on))
    tasks = cast("Any", [task] if isinstance(task, str) else list(task))
    for backend in backends:
        check_backend(backend)
        check_precisions(precision, backend)
    entries = quoted_entries(tasks, models=models)
    page = user_path(output)
    check_writable(page)

    import torch

    from scalenet_zoo.core.backends import require_backend
    from scalenet_zoo.explore.bench import BENCH_VISITS, open_bench
    from scalenet_zoo.explore.figures import Setting

    for backend in backends:
        require_backend(backend)
    threads = threads or torch.get_num_threads()
    points: list[Point] = []
    left_out: list[str] = []
    measured = 0
    for backend in backends:
        setting = Setting(backend=backend, threads=threads, batch=batch)
        with open_bench(setting, 1 if quick else BENCH_VISITS) as bench:
            made, failed = _explore(entries, precisions_on(precision, backend), bench, measure_all, on_progress)
            points, left_out, measured = points + made, left_out + failed, measured + bench.measured
    if not points:
        raise BackendError(
            f"{', '.join(backends)}: found that none of {len(entries)} entries runs, expected some: {left_out[0]}"
        )
    found = Exploration(machine(), threads, batch, _with_fronts(points), tuple(left_out), measured, page)
    write_explorer(found.to_dict(), page)
    return found


def _explore(
    entries: Sequence[QuotedEntry],
    precisions: Sequence[Precision],
    bench: Bench,
    measure_all: bool,
    on_progress: OnProgress,
) -> tuple[list[Point], list[str]]:
    """Give the points of one back end, and what was left out."""
    from scalenet_zoo.explore.prediction import predict_entries

    specs = [entry.spec for entry in entries]
    predictions = {
        precision: {} if measure_all else predict_entries(specs, bench.setting, precision) for precision in precisions
    }
    worth = {precision: _worth_measuring(entries, predictions[precision]) for precision in precisions}
    wanted = [
        (entry, precision) for entry in entries for precision in precisions if entry.spec.name in worth[precision]
    ]  # an entry's precisions come one after another, since they share its traced graph
    failed: dict[tuple[str, str], str] = {}
    for _ in range(2 if bench.thorough else 1):  # only at the end is it known which visits were undisturbed
        missing = [
            (entry, precision)
            for entry, precision in wanted
            if not bench.known(entry.spec, precision) and (entry.spec.name, precision) not in failed
        ]
        for done, (entry, precision) in enumerate(missing):

            def tell(what: str, done: int = done, total: int = len(missing)) -> None:
                on_progress(what, done, total)

            bench.make_ready(tell)  # outside the `try`: a failure here is not the entry's
            try:
                bench.measure(entry.spec, precision, tell)
            except (BackendError, ExportError) as error:
                told = f"{entry.spec.name} in {precision} on {bench.setting.backend}: {error}"
                failed[entry.spec.name, precision] = told
                _log.warning("%s", told)
    points = [
        point
        for precision in precisions
        for entry in entries
        if (point := _point(entry, precision, bench, predictions[precision].get(entry.spec.name)))
    ]
    return points, list(failed.values())


def _worth_measuring(entries: Sequence[QuotedEntry], predicted: Mapping[str, PredictedEntry]) -> set[str]:
    """Names of the entries that no model predicts, and of predicted ones that may be on the front of their metric."""
    names = {entry.spec.name for entry in entries} - predicted.keys()
    groups: dict[tuple[str, str, str], list[QuotedEntry]] = {}
    for entry in entries:
        if entry.spec.name in predicted and entry.value is not None:
            groups.setdefault((entry.spec.task, entry.metric, entry.data), []).append(entry)
    for group in groups.values():
        said = [predicted[entry.spec.name] for entry in group]
        near = near_front(
            [each.ms for each in said], [entry.value or 0.0 for entry in group], [each.error for each in said]
        )
        names.update(group[i].spec.name for i in near)
    return names


def _point(entry: QuotedEntry, precision: Precision, bench: Bench, predicted: PredictedEntry | None) -> Point | None:
    """An entry with its kept figure or, without one, as predicted; None: there is neither."""
    spec = entry.spec
    figure = bench.figures.find(spec, precision)
    if figure is None and predicted is None:
        return None
    return Point(
        name=spec.name,
        task=spec.task,
        metric=entry.metric,
        value=entry.value,
        data=entry.data,
        origin=entry.origin,
        weights=entry.weights,
        license=entry.license,
        height=spec.input.height,
        width=spec.input.width,
        macs=spec.cost.macs,
        params=spec.cost.params,
        backend=bench.setting.backend,
        precision=precision,
        ms=bench.figures.ms(figure) if figure else predicted.ms if predicted else 0.0,
        measured=figure is not None,
        quiet=bench.figures.quiet(figure) if figure else 0,
        command=command_for(entry, bench.setting.backend, precision),
    )


def _with_fronts(points: Sequence[Point]) -> tuple[Point, ...]:
    """The same points, with those marked that are on the front of their metric and data."""
    marked: set[int] = set()
    for figure in {point.figure for point in points}:
        group = [i for i, point in enumerate(points) if point.figure == figure and point.value is not None]
        kept = front([points[i].ms for i in group], [points[i].value or 0.0 for i in group])
        marked.update(group[i] for i in kept)
    return tuple(replace(point, front=i in marked) for i, point in enumerate(points))
