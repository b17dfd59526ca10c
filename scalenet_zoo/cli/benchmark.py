"""`benchmark`: latencies of networks on back ends."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from scalenet_zoo.cli.models import check_model
from scalenet_zoo.cli.options import Json
from scalenet_zoo.core.bounds import THREADS

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Precision
    from scalenet_zoo.latency.benchmark import BenchmarkResult


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Names of the zoo, specs' JSON files, folders, ONNX files of `export` (.onnx), engines (.engine)."
        ),
    ],
    on: Annotated[
        str, typer.Option(help="Back ends, separated by commas; `scalenet-zoo doctor` lists them.")
    ] = "torch,ort-cpu",
    batch: Annotated[str, typer.Option(help="Images of one inference: 1, or several such as 1,8,32.")] = "1",
    resolution: Annotated[
        str | None, typer.Option(help="Such as 224,288 or 512x1024 (height x width); each network's own if not given.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of networks: fp32, fp16 or fp32,fp16; fp32 if not given. A file has its own.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=THREADS, help="CPU threads that an operator may use; torch's number if not given."),
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="With torch and torch-compile, channels last in memory.")
    ] = False,
    transfers: Annotated[
        bool, typer.Option("--transfers", help="On GPUs, include copies of the images to it and the output back.")
    ] = False,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds that each network runs before it is timed.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0, help="Time each network for at least so long in all.")] = 3.0,
    runs: Annotated[int, typer.Option(min=1, help="And for at least so many runs in all.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Visits to each network, in turn with the others.")] = 10,
    output: Annotated[Path | None, typer.Option(help="A JSON file to write: results, timing, this machine.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="A picture to write: latency against MACs (.png, .svg, .pdf).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latencies, of several networks and back ends in turn, so that their ratios hold on a noisy machine.

    Ratios are to the first network and back end; the spread is that between visits.

    Example: scalenet-zoo benchmark scalenet_s0 efficientnet_b0 --on torch,ort-cpu --threads 2
    """
    backends = [name.strip() for name in on.split(",")]
    batches = [_number(text, "--batch") for text in batch.split(",")]
    sizes = [_size(text) for text in resolution.split(",")] if resolution else []
    precisions = [_precision(text) for text in precision.split(",")] if precision else []

    for flag, given in (("--warmup", warmup), ("--seconds", seconds)):
        if not math.isfinite(given):
            raise typer.BadParameter(f"{flag}: found {given}, expected a finite number of seconds")

    from dataclasses import asdict

    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.core.backends import check_backend, machine
    from scalenet_zoo.core.files import format_json, replacing
    from scalenet_zoo.core.outputs import check_writable
    from scalenet_zoo.latency.plot import PLOT_FORMATS, plot_latencies

    if plot and plot.suffix not in PLOT_FORMATS:
        raise typer.BadParameter(f"--plot: found {plot}, expected a name that ends in {', '.join(PLOT_FORMATS)}")
    for backend in backends:
        check_backend(backend)
    for model in models:
        check_model(model)
    for path in filter(None, (output, plot)):
        check_writable(path)

    from scalenet_zoo.latency import benchmark as bench

    timing = bench.Timing(warmup, seconds, runs, repeats)
    here = machine()
    results: list[BenchmarkResult] = []
    try:
        with progress_lines() as on_progress:
            for cases in bench.plan(models, backends, batches, sizes, precisions):
                results += bench.benchmark(cases, threads, timing, transfers, channels_last, on_progress)
    finally:  # a sweep that fails late has measured something
        if results and not as_json:
            _print(results, here)
    document = {"machine": here, "timing": asdict(timing), "results": [asdict(result) for result in results]}
    if as_json:
        print_json(document)
    if output:
        with replacing(output) as temporary:
            temporary.write_text(format_json(document) + "\n", encoding="utf-8")
    if plot:
        plot_latencies(results, plot)
    if not as_json:
        for path in filter(None, (output, plot)):
            typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _number(text: str, flag: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text.strip()):
        raise typer.BadParameter(f"{flag}: found {text!r}, expected a whole number above 0")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """Read "224" or "512x1024"."""
    numbers = [_number(side, "--resolution") for side in text.split("x")]
    if len(numbers) > 2:
        raise typer.BadParameter(f"--resolution: found {text!r}, expected such as 224 or 512x1024 (height x width)")
    return numbers[0], numbers[-1]


def _precision(text: str) -> "Precision":
    if text.strip() not in ("fp32", "fp16"):
        raise typer.BadParameter(f"--precision: found {text!r}, expected fp32, fp16 or fp32,fp16")
    return cast("Precision", text.strip())


def _print(results: "list[BenchmarkResult]", here: dict[str, object]) -> None:
    """Print the machine, what all results have in common, and a table of the rest."""
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.core.quantities import format_count

    settings: dict[str, list[object]] = {
        "on": [result.backend for result in results],
        "device": [result.device for result in results],
        "threads": [result.threads for result in results],
        "precision": [result.precision for result in results],
        "batch": [result.batch for result in results],
        "input": [f"{result.height}x{result.width}" for result in results],
    }
    figures = {
        "MACs": [format_count(result.macs) for result in results],
        "median ms": [_figure(result.latency.median) for result in results],
        "spread": [_spread(result.latency.median, *result.latency.spread) for result in results],
        "p90": [_figure(result.latency.p90) for result in results],
        "p95": [_figure(result.latency.p95) for result in results],
        "p99": [_figure(result.latency.p99) for result in results],
        "images/s": [_figure(result.throughput) for result in results],
        "ratio": [f"{result.ratio.median:.3f}" for result in results],
        "spread ": [_spread(result.ratio.median, result.ratio.low, result.ratio.high) for result in results],
    }
    common = {name: values[0] for name, values in settings.items() if len(set(values)) == 1}
    varying = {name: values for name, values in settings.items() if name not in common}
    gpu = f"; {here['gpu']}, driver {here['driver']}" if here["gpu"] else ""
    typer.echo(f"{here['cpu']}, {here['cores']} cores{gpu}")
    typer.echo("; ".join(f"{name} {value}" for name, value in common.items()))
    columns = {"model": [result.model for result in results], **varying, **figures}
    align = "l" * (1 + len(varying)) + "r" * len(figures)
    print_table(tuple(columns), zip(*columns.values(), strict=True), align)


def _spread(middle: float, low: float, high: float) -> str:
    """How far the visits lie apart."""
    return f"{100 * (high - low) / middle:.1f}%"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
