"""`benchmark`: latencies of networks on back ends; with data, all that speaks for one or another, in a table."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalenet_zoo.cli.options import Json, Pretrained, Seed, WeightsOption, as_flags, parse_words
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.errors import UsageError

if TYPE_CHECKING:
    from scalenet_zoo.latency.benchmark import Benchmark
    from scalenet_zoo.latency.comparison.table import ComparisonTable


def benchmark_command(
    models: Annotated[
        list[str],
        typer.Argument(help="Names of the zoo, specs' JSON files, folders; files of `export` (.onnx, .xml, .engine)."),
    ],
    on: Annotated[
        str, typer.Option(help="Back ends, separated by commas; `scalenet-zoo doctor` lists them.")
    ] = "torch,ort-cpu",
    batch: Annotated[str, typer.Option(help="Images of one inference: 1, or several such as 1,8,32.")] = "1",
    resolution: Annotated[
        str | None, typer.Option(help="Such as 224,288 or 512x1024 (height x width); each network's own if not given.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of networks: fp32, fp16, int8, or several as fp32,int8; fp32 if not given, with --data fp32,int8."
            " A file has its own."
        ),
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
    data: Annotated[
        str | None,
        typer.Option(help="Compare accuracy, agreement, size and memory, too, on data as `evaluate` takes them."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="With --data: the part of it that networks are judged on; val, if not given.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --data: use so many images.")] = None,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="With --data: a folder of images for int8; of the training split, if not given."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="With --data: processes that load images; 2, if not given.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="With --data: export anew what is in the cache.")] = False,
    seed: Seed = 0,
    html: Annotated[Path | None, typer.Option(help="With --data: a page to write, with everything in it.")] = None,
    output: Annotated[Path | None, typer.Option(help="A JSON file to write: results, timing, this machine.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="A picture to write: latency against MACs (.png, .svg, .pdf).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latencies, of several networks and back ends in turn, so that their ratios hold on a noisy machine.

    Ratios are to the first network and back end; the spread is that between visits.

    With --data, one table of every network, precision and back end: accuracy with its standard error, agreement with
    fp32, latency, size of the file, and the memory that a fresh process takes to open and run it. Networks are exported
    as needed, into a cache. What cannot be made or run here is a row that says why.

    Example: scalenet-zoo benchmark scalenet_s0 efficientnet_b0 --on torch,ort-cpu --threads 2
    """
    timed = {
        "threads": threads,
        "warmup": warmup,
        "seconds": seconds,
        "runs": runs,
        "repeats": repeats,
        "output": output,
    }
    on_gpu = {"channels_last": channels_last, "transfers": transfers, "plot": plot}
    compared = {
        "split": split,
        "workers": workers,
        "limit": limit,
        "pretrained": pretrained,
        "weights": weights,
        "calibration": calibration,
        "rebuild": rebuild,
        "seed": seed,
        "html": html,
    }
    batches = [_number(text, "--batch") for text in batch.split(",")]
    sizes = [_size(text) for text in resolution.split(",")] if resolution else []
    precisions, backends = parse_words(precision), parse_words(on)
    if data is None:
        _refuse(compared, "without `data`, expected both")
        _measure(models, backends, as_json, batch=batches, resolution=sizes, precision=precisions, **timed, **on_gpu)
        return
    _refuse(on_gpu, "with `data`, expected one of them")
    for flag, several in (("batch", batches), ("resolution", sizes)):
        if len(several) > 1:
            raise UsageError(f"`{flag}`: found {len(several)} with `data`, expected one")
    _compare(
        models,
        data,
        backends,
        as_json,
        batch=batches[0],
        resolution=sizes[0] if sizes else None,
        precision=precisions or None,
        **timed,
        **compared,
    )


def _refuse(flags: Mapping[str, object], why: str) -> None:
    """Complain of the first flag that was given."""
    for flag, given in flags.items():
        if given:
            raise UsageError(f"`{flag}`: found it {why}")


def _measure(models: list[str], on: list[str], as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - flags
    """Measure latencies, and print them."""
    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.latency.benchmark import Benchmark, benchmark

    measured: Benchmark | None = None

    def keep(so_far: Benchmark) -> None:
        nonlocal measured
        measured = so_far

    try:
        with progress_lines() as advance:
            benchmark(models, on, **asked, on_progress=advance, on_results=keep)
    finally:  # a sweep that fails late has measured something
        if measured and not as_json:
            _print(measured)
    if as_json and measured:
        print_json(measured.to_dict())
        return
    _say_written(asked["output"], asked["plot"])


def _compare(models: list[str], data: str, on: list[str], as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - flags
    """Compare networks, precisions and back ends, and print the table."""
    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.latency.comparison.compare import compare
    from scalenet_zoo.latency.comparison.table import ComparisonTable

    table: ComparisonTable | None = None

    def keep(so_far: ComparisonTable) -> None:
        nonlocal table
        table = so_far

    try:
        with progress_lines() as advance:
            given = {name: value for name, value in asked.items() if value is not None}
            compare(models, data, on, **given, on_progress=advance, on_results=keep)
    finally:  # what was measured before an interrupt
        if table and not as_json:
            _print_table(table)
    if as_json and table:
        print_json(table.to_dict())
        return
    _say_written(asked["output"], asked["html"])


def _say_written(*paths: Path | None) -> None:
    for path in filter(None, paths):
        typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _print_table(table: "ComparisonTable") -> None:
    """Print where and how a table was made, its rows, and why some of them lack figures."""
    from scalenet_zoo.cli.console import print_table, say
    from scalenet_zoo.latency.comparison.cells import columns, failures, headline

    for line in headline(table):
        say(line)
    shown = columns(table)
    rows = ([column.text(row) for column in shown] for row in table.rows)
    print_table([column.name for column in shown], rows, "".join("r" if one.is_figure else "l" for one in shown))
    for name, why in failures(table.rows):
        say(f"{name}: {as_flags(why)}")


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
    from scalenet_zoo.latency.comparison.cells import figure_text, spread

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
        "median ms": [figure_text(result.latency.median) for result in results],
        "spread": [spread(result.latency.median, *result.latency.spread) for result in results],
        "p90": [figure_text(result.latency.p90) for result in results],
        "p95": [figure_text(result.latency.p95) for result in results],
        "p99": [figure_text(result.latency.p99) for result in results],
        "images/s": [figure_text(result.throughput) for result in results],
        "ratio": [f"{result.ratio.median:.3f}" for result in results],
        "spread ": [spread(result.ratio.median, result.ratio.low, result.ratio.high) for result in results],
    }
    common = {name: values[0] for name, values in settings.items() if len(set(values)) == 1}
    varying = {name: values for name, values in settings.items() if name not in common}
    gpu = f"; {here['gpu']}, driver {here['driver']}" if here["gpu"] else ""
    typer.echo(f"{here['cpu']}, {here['cores']} cores{gpu}")
    typer.echo("; ".join(f"{name} {value}" for name, value in common.items()))
    columns = {"model": [result.model for result in results], **varying, **figures}
    align = "l" * (1 + len(varying)) + "r" * len(figures)
    print_table(tuple(columns), zip(*columns.values(), strict=True), align)
