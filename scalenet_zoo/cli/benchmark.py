"""`benchmark`: latencies of networks on back ends."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.options import Json
from scalenet_zoo.core.bounds import THREADS

if TYPE_CHECKING:
    from scalenet_zoo.latency.benchmark import Benchmark


def benchmark_command(
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
    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.latency.benchmark import Benchmark, benchmark

    measured: Benchmark | None = None

    def keep(so_far: Benchmark) -> None:
        nonlocal measured
        measured = so_far

    try:
        with progress_lines() as advance:
            benchmark(
                models,
                [name.strip() for name in on.split(",")],
                batch=[_number(text, "--batch") for text in batch.split(",")],
                resolution=[_size(text) for text in resolution.split(",")] if resolution else [],
                precision=[text.strip() for text in precision.split(",")] if precision else [],
                threads=threads,
                channels_last=channels_last,
                transfers=transfers,
                warmup=warmup,
                seconds=seconds,
                runs=runs,
                repeats=repeats,
                output=output,
                plot=plot,
                on_progress=advance,
                on_results=keep,
            )
    finally:  # a sweep that fails late has measured something
        if measured and not as_json:
            _print(measured)
    if as_json and measured:
        print_json(measured.to_dict())
        return
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


def _print(measured: "Benchmark") -> None:
    """Print the machine, what all results have in common, and a table of the rest."""
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.core.quantities import format_count

    results, here = measured.results, measured.machine
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
