"""Latencies of networks on back ends, beside one another."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scalenet_zoo.core.backends import check_backend, machine
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import format_json, replacing
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.latency.plot import PLOT_FORMATS, plot_latencies
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.zoo.sources import NetworkSource, check_model, is_exported

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.core.timing import Timing
    from scalenet_zoo.latency.cases import BenchmarkResult


@dataclass(frozen=True)
class Benchmark:
    """What was measured, how, and where.

    Attributes:
        machine: what this machine is.
        timing: how long and how often each network was timed.
        results: of all sizes, batches, back ends, precisions and networks, in this order.
    """

    machine: dict[str, object]
    timing: "Timing"
    results: "tuple[BenchmarkResult, ...]"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def benchmark(
    models: "NetworkSource | nn.Module | Sequence[NetworkSource | nn.Module]",
    on: str | Sequence[str] = ("torch", "ort-cpu"),
    *,
    batch: int | Sequence[int] = 1,
    resolution: Sequence[tuple[int, int]] = (),
    precision: str | Sequence[str] = (),
    threads: int | None = None,
    channels_last: bool = False,
    transfers: bool = False,
    warmup: float = 1.0,
    seconds: float = 3.0,
    runs: int = 100,
    repeats: int = 10,
    output: str | Path | None = None,
    plot: str | Path | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_results: "Callable[[Benchmark], None]" = lambda measured: None,
) -> Benchmark:
    """Measure latencies, of several networks and back ends in turn, so that their ratios hold on a noisy machine.

    Ratios are to the first network and back end of the same size and batch.

    Args:
        models: what `create_model` takes, networks, of which the architecture alone counts, ONNX files of `export`, or
            engines; one or several.
        on: back ends; `scalenet-zoo doctor` lists them.
        batch: images of one inference: a number, or several to be measured one after another.
        resolution: heights and widths of the images; none: each network's own.
        precision: of networks: fp32, fp16 or, on ort-cpu and openvino, int8; or several; none: fp32. A file has its
            own.
        threads: CPU threads that an operator may use; None: as many as torch uses.
        channels_last: with torch and torch-compile, channels last in memory.
        transfers: on GPUs, include copies of the images to it and the output back.
        warmup: seconds that each network runs before it is timed.
        seconds: time each network for at least so long in all.
        runs: and for at least so many runs in all.
        repeats: visits to each network, in turn with the others.
        output: a JSON file to write.
        plot: a picture to write: latency against MACs.
        on_progress: told what is being done, how much of it is done, and how much there is.
        on_results: told what is measured so far whenever there is more: a sweep that fails late has measured something.

    Raises:
        UsageError: a number, a precision or the name of the picture is none.
        ModelNotFoundError, SpecError, InputError: a model is not to be had, or a file cannot be run in this way.
        BackendError: there is no such back end here, or it cannot run a network.
        OutputError: a file cannot be written.
    """
    several = [models] if isinstance(models, NetworkSource) or not isinstance(models, Sequence) else list(models)
    backends = [on] if isinstance(on, str) else list(on)
    batches = [batch] if isinstance(batch, int) else list(batch)
    precisions = [precision] if isinstance(precision, str) else list(precision)
    for argument, given in (("warmup", warmup), ("seconds", seconds)):
        if not math.isfinite(given):
            raise UsageError(f"`{argument}`: found {given}, expected a finite number of seconds")
    output, plot = user_path(output) if output else None, user_path(plot) if plot else None
    if plot and plot.suffix not in PLOT_FORMATS:
        raise UsageError(f"`plot`: found {plot}, expected a name that ends in {', '.join(PLOT_FORMATS)}")
    of_files = all(is_exported(model) for model in several)
    for backend in backends:
        check_backend(backend)
        for text in precisions:
            check_precision(text, "ort-cpu" if of_files else backend)  # a file in int8 runs elsewhere too
    opened = [check_model(model) for model in several]
    for path in filter(None, (output, plot)):
        check_writable(path)

    from scalenet_zoo.core.timing import Timing
    from scalenet_zoo.latency.cases import measure_cases, plan

    timing = Timing(warmup, seconds, runs, repeats)
    measured = Benchmark(machine(), timing, ())
    for cases in plan(opened, backends, batches, resolution, cast("Any", precisions)):
        more = measure_cases(cases, threads, timing, transfers, channels_last, on_progress)
        measured = Benchmark(measured.machine, timing, (*measured.results, *more))
        on_results(measured)
    if output:
        with replacing(output) as temporary:
            temporary.write_text(format_json(measured.to_dict()) + "\n", encoding="utf-8")
    if plot:
        plot_latencies(measured.results, plot)
    return measured
