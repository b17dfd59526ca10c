"""Comparison of the latencies of networks on back ends."""

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
    """The results of a benchmark, with the machine and the settings.

    Attributes:
        machine: the description of this machine.
        timing: how long and how often each network was timed.
        results: the results, ordered by size, batch, back end, network and precision.
    """

    machine: dict[str, object]
    timing: "Timing"
    results: "tuple[BenchmarkResult, ...]"

    def to_dict(self) -> dict[str, Any]:
        """Convert to values for JSON."""
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
    """Measure the latencies of networks on back ends, in turn, so that their ratios hold on a noisy machine.

    Each ratio compares with the first network and back end at the same size and batch.

    Args:
        models: one or several of: what `create_model` takes, networks (only their architecture matters), ONNX files or
            OpenVINO's IR from `export`, and engines.
        on: back ends; `scalenet-zoo doctor` lists them.
        batch: images per inference: a number, or several, which are measured one after another.
        resolution: heights and widths of the images; none: each network's own.
        precision: one or several precisions of networks: fp32, fp16 or, on ort-cpu and openvino, int8; none: fp32. A
            file has its own precision.
        threads: CPU threads that an operator may use; None: as many as torch uses.
        channels_last: with torch and torch-compile, put the channels last in memory.
        transfers: on GPUs, include the copies of the images to the GPU and of the output back.
        warmup: seconds that each network runs before it is timed.
        seconds: the least time in seconds to time each network, over all visits.
        runs: the least number of runs of each network, over all visits.
        repeats: visits to each network, in turn with the others.
        output: a JSON file to write.
        plot: a picture to write: latency against MACs.
        on_progress: reports the current task, the steps done and the number of steps.
        on_results: called with the results so far whenever there are more, so that a sweep that fails late still has
            results.

    Returns:
        The results.

    Raises:
        UsageError: a number, a precision or the name of the picture is not valid.
        ModelNotFoundError, SpecError, InputError: a model cannot be opened, or a file cannot be run with these options.
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
            check_precision(text, "ort-cpu" if of_files else backend)  # int8 files also run elsewhere
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
