"""`compare`, the comparison of networks in several precisions on several back ends, on one data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scalenet_zoo.core.backends import check_backend
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import format_json, replacing, scratch_folder
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.latency.comparison.table import ComparisonSettings, ComparisonTable
from scalenet_zoo.latency.precisions import PRECISIONS
from scalenet_zoo.zoo.sources import UNTRAINED, NetworkSource, check_model, has_weights, is_exported

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.core.backends import Precision
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.data.streams import Stream

_TALKATIVE = ("scalenet_zoo.inference.evaluate", "scalenet_zoo.models.evaluation")
"""Loggers that repeat the same warnings about the data for each row."""
_log = logging.getLogger(__name__)


def compare(
    models: NetworkSource | nn.Module | Sequence[NetworkSource | nn.Module],
    data: str | Examples | Stream,
    on: str | Sequence[str] = ("torch", "ort-cpu"),
    *,
    precision: str | Sequence[str] = ("fp32", "int8"),
    split: str = "val",
    limit: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    calibration: str | Path | None = None,
    batch: int = 1,
    resolution: tuple[int, int] | None = None,
    threads: int | None = None,
    workers: int = 2,
    warmup: float = 1.0,
    seconds: float = 3.0,
    runs: int = 100,
    repeats: int = 10,
    seed: int = 0,
    rebuild: bool = False,
    output: str | Path | None = None,
    html: str | Path | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_results: Callable[[ComparisonTable], None] = lambda table: None,
) -> ComparisonTable:
    """Compare networks, precisions and back ends: accuracy, agreement with fp32, latency, size of the file, memory.

    Each network is exported as needed, into the user's cache. All are timed in turn, so that ratios hold on a noisy
    machine. Then each is run in a fresh process to measure its memory, and judged on the data with the same back end
    and settings with which it was timed. If a network cannot be made or run here, its row gives the reason. After an
    interrupt, `output`, `html` and `on_results` have the measurements so far.

    Args:
        models: what `create_model` takes, or networks; or exported files (.onnx, .xml, .engine), which have their own
            precision and are run on the back ends in `on` that support them, or else on the one they were made for.
        data: the data, as `evaluate` takes it.
        on: back ends; `scalenet-zoo doctor` lists them.
        precision: the precisions of networks: fp32, fp16, int8.
        split: the split of the data that networks are judged on.
        limit: the most images to take from the split, spread evenly; None: all.
        pretrained: load published weights.
        weights: a file of weights to load.
        calibration: a folder of images from which int8's ranges are found; None: up to 128 images of the training
            split.
        batch: images per inference; exported files take exactly this number.
        resolution: height and width of the images; None: each network's own.
        threads: CPU threads that an operator may use; None: as many as torch uses.
        workers: the number of processes that load images.
        warmup: seconds that each network runs before it is timed.
        seconds: the least time in seconds to time each network, over all visits.
        runs: the least number of runs of each network, over all visits.
        repeats: visits to each network, in turn with the others.
        seed: the seed of weights that are not loaded.
        rebuild: export again even if the cache has the files.
        output: a JSON file to write.
        html: a self-contained page to write.
        on_progress: reports the current task, the steps done and the number of steps.
        on_results: called with the table whenever it has new results.

    Returns:
        The table.

    Raises:
        UsageError: the arguments do not fit one another, or a number, a precision or a name is not valid.
        ModelNotFoundError, SpecError, WeightsError: a model cannot be opened.
        InputError: there are no such data.
        BackendError: there is no back end of this name, or no row could be made; the message has the first reason.
        OutputError: a file cannot be written.
    """
    several = [models] if isinstance(models, NetworkSource) or not isinstance(models, Sequence) else list(models)
    backends = [on] if isinstance(on, str) else list(on)
    precisions = [precision] if isinstance(precision, str) else list(precision)
    for argument, given in (("models", several), ("on", backends), ("precision", precisions)):
        if not given:
            raise UsageError(f"`{argument}`: found none, expected at least one")
    for text in precisions:
        if text not in PRECISIONS:
            raise UsageError(f"`precision`: found {quoted(text)}, expected {', '.join(PRECISIONS[:-1])} or int8")
    for argument, number in (("warmup", warmup), ("seconds", seconds)):
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"`{argument}`: found {number}, expected a finite number of seconds")
    for argument, count in (("batch", batch), ("runs", runs), ("repeats", repeats), ("limit", limit or 1)):
        if count < 1:
            raise UsageError(f"`{argument}`: found {count}, expected 1 or more")
    for backend in backends:
        check_backend(backend)
    if isinstance(data, str):
        check_source(data)
    elif limit is not None:
        raise UsageError("`limit`: found it with open examples, expected it with the name of a data set")
    files = [is_exported(model) for model in several]
    if (pretrained or weights) and all(files):
        raise UsageError("found `pretrained` or `weights`, expected neither: an exported file has its own weights")
    if resolution and any(files):
        raise UsageError("`resolution`: found it with an exported file, expected none, since the file has its own")
    loaded = [(False, None) if file else (pretrained, weights) for file in files]
    opened = [check_model(model, *with_) for model, with_ in zip(several, loaded, strict=True)]
    folder = user_path(calibration) if calibration else None
    if folder and not folder.is_dir():
        raise UsageError(f"`calibration`: found no folder {folder}, expected one with images")
    output, html = user_path(output) if output else None, user_path(html) if html else None
    for path in filter(None, (output, html)):
        check_writable(path)

    from scalenet_zoo.core.timing import Timing
    from scalenet_zoo.latency.comparison.comparing import Comparing, Source
    from scalenet_zoo.latency.comparison.page import write_table_page

    have = f"of {weights}" if weights else "published" if pretrained else "the models' own"
    if not (pretrained or weights or all(map(has_weights, several))):
        have = "initial, not trained"
        _log.warning("%s (`pretrained`, `weights`)", UNTRAINED)
    settings = ComparisonSettings(
        data if isinstance(data, str) else data.source,
        split if isinstance(data, str) else data.split,
        limit,
        have,
        str(folder) if folder else None,
        Timing(warmup, seconds, runs, repeats),
    )
    sources = [
        Source(given, model, *with_, seed=seed, size=resolution)
        for given, model, with_ in zip(several, opened, loaded, strict=True)
    ]

    def keep(table: ComparisonTable) -> None:
        if output:
            with replacing(output) as temporary:
                temporary.write_text(format_json(table.to_dict()) + "\n", encoding="utf-8")
        if html:
            write_table_page(table, html)
        on_results(table)

    with scratch_folder() as scratch, _said_once():
        return Comparing(
            data,
            settings,
            backends,
            cast("Sequence[Precision]", precisions),
            batch,
            threads,
            workers,
            folder,
            rebuild,
            scratch,
            keep,
            on_progress,
        ).run(sources)


@contextmanager
def _said_once() -> Iterator[None]:
    """Log each warning about the data once, not for each row."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return text not in seen and not seen.add(text)  # type: ignore[func-returns-value]

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(is_new)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_new)
