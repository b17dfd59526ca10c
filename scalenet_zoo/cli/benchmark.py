"""`benchmark`: latencies of networks on back ends; with data, also accuracy, size and memory, in one table."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalenet_zoo.cli.completion import complete_backends, complete_model, complete_precisions
from scalenet_zoo.cli.options import Json, Pretrained, Seed, WeightsOption, as_flags, parse_words
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.errors import UsageError

if TYPE_CHECKING:
    from scalenet_zoo.latency.benchmark import Benchmark
    from scalenet_zoo.latency.comparison.table import ComparisonTable

MEASURED = "What is measured"
_TIMING = "How long it is timed"
ACCURACY = "Accuracy"

_LEAST = ("p99", "p95", "p90", "device", "images/s", "ratio spread")
"""Columns of latencies that narrow terminals leave out, the least important first."""
LEAST_COMPARED = ("ratio's range", "spread", "memory MiB", "MACs", "file MiB")
"""The same for comparisons with data."""


def benchmark_command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Entries, specs' JSON files, folders, or files of `export` (.onnx, .xml, .engine).",
            autocompletion=complete_model,
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            help="Back ends, separated by commas; `scalenet-zoo doctor` lists them.",
            autocompletion=complete_backends,
            rich_help_panel=MEASURED,
        ),
    ] = "torch,ort-cpu",
    batch: Annotated[
        str, typer.Option(help="Images per inference: 1, or several such as 1,8,32.", rich_help_panel=MEASURED)
    ] = "1",
    resolution: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the image, such as 224,288 or 512x1024 (height x width); each network's own if not given.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precisions of networks: fp32, fp16, int8, or several as fp32,int8; fp32 if not given, or fp32,int8"
            " with --data. A file has its own precision.",
            autocompletion=complete_precisions,
            rich_help_panel=MEASURED,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=THREADS, help="CPU threads per operator; torch's number if not given.", rich_help_panel=MEASURED
        ),
    ] = None,
    channels_last: Annotated[
        bool,
        typer.Option(
            "--channels-last", help="torch and torch-compile: keep channels last in memory.", rich_help_panel=MEASURED
        ),
    ] = False,
    transfers: Annotated[
        bool,
        typer.Option(
            "--transfers",
            help="GPUs: include the copies of the images to the GPU and of the output back.",
            rich_help_panel=MEASURED,
        ),
    ] = False,
    warmup: Annotated[
        float, typer.Option(min=0, help="Seconds that each network runs before it is timed.", rich_help_panel=_TIMING)
    ] = 1.0,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time each network for at least this time in all.", rich_help_panel=_TIMING)
    ] = 3.0,
    runs: Annotated[
        int, typer.Option(min=1, help="Time each network for at least this number of runs.", rich_help_panel=_TIMING)
    ] = 100,
    repeats: Annotated[
        int, typer.Option(min=1, help="Visits to each network, in turn with the others.", rich_help_panel=_TIMING)
    ] = 10,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data as for `evaluate`: also compare accuracy, agreement, size and memory.", rich_help_panel=ACCURACY
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="With --data: the part of the data to evaluate on; val if not given.", rich_help_panel=ACCURACY
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --data: use only this number of images.", rich_help_panel=ACCURACY),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="With --data: a folder of images to calibrate int8 on; the training split if not given.",
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="With --data: processes that load images; 2 if not given.", rich_help_panel=ACCURACY),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="With --data: replace the exported files in the cache.", rich_help_panel=ACCURACY
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="With --data: write the whole comparison to this HTML page.", rich_help_panel=ACCURACY),
    ] = None,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option(help="Write results, settings and machine to this JSON file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency against MACs in this file (.png, .svg, .pdf).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the latency of networks and back ends.

    Networks are timed in turn, so that their ratios hold on a noisy machine. Ratios are to the first network on the
    first back end; the spread is the spread between visits.

    With --data, one table has every network in every precision on every back end: accuracy with its standard error,
    agreement with fp32, latency, size of the file, and the memory that a fresh process needs to open and run it.
    Networks are exported to a cache as needed. If something cannot be exported or run here, its row says why.

    Example: scalenet-zoo benchmark scalenet_s0 efficientnet_b0 --on ort-cpu
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
    """Refuse the first flag that was given."""
    for flag, given in flags.items():
        if given:
            raise UsageError(f"`{flag}`: found it {why}")


def _measure(models: list[str], on: list[str], as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - flags
    """Measure latencies, and print them."""
    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.cli.progress import progress_lines
    from scalenet_zoo.latency.benchmark import Benchmark, benchmark

    measured: Benchmark | None = None

    def keep(so_far: Benchmark) -> None:
        nonlocal measured
        measured = so_far

    try:
        with progress_lines() as advance:
            benchmark(models, on, **asked, on_progress=advance, on_results=keep)
    finally:  # a sweep that fails late still prints what it measured
        if measured and not as_json:
            _print(measured)
    if as_json and measured:
        print_json(measured.to_dict())
        return
    _say_written(asked["output"], asked["plot"])


def _compare(models: list[str], data: str, on: list[str], as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - flags
    """Compare networks, precisions and back ends, and print the table."""
    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.cli.progress import progress_lines
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
    finally:  # print what was measured before an interrupt
        if table and not as_json:
            _print_table(table)
    if as_json and table:
        print_json(table.to_dict())
        return
    _say_written(asked["output"], asked["html"])


def _say_written(*paths: Path | None) -> None:
    from scalenet_zoo.cli.console import say

    for path in filter(None, paths):
        say(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _print_table(table: "ComparisonTable") -> None:
    """Print where and how a table was made, its rows, and the reasons why some rows lack figures."""
    from scalenet_zoo.cli.console import print_table, say
    from scalenet_zoo.latency.comparison.cells import columns, failures, headline

    for line in headline(table):
        say(line)
    shown = columns(table)
    rows = ([column.text(row) for column in shown] for row in table.rows)
    align = "".join("r" if column.is_figure else "l" for column in shown)
    print_table([column.name for column in shown], rows, align, LEAST_COMPARED)
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
        raise typer.BadParameter(
            f"--resolution: found {text!r}, expected a size such as 224 or 512x1024 (height x width)"
        )
    return numbers[0], numbers[-1]


def _print(measured: "Benchmark") -> None:
    """Print the machine, the settings that all results share, and a table of the rest."""
    from scalenet_zoo.cli.console import print_table, say
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
        "ratio spread": [spread(result.ratio.median, result.ratio.low, result.ratio.high) for result in results],
    }
    common = {name: values[0] for name, values in settings.items() if len(set(values)) == 1}
    varying = {name: values for name, values in settings.items() if name not in common}
    gpu = f"; {here['gpu']}, driver {here['driver']}" if here["gpu"] else ""
    say(f"{here['cpu']}, {here['cores']} cores{gpu}")
    say("; ".join(f"{name} {value}" for name, value in common.items()))
    columns = {"model": [result.model for result in results], **varying, **figures}
    align = "l" * (1 + len(varying)) + "r" * len(figures)
    print_table(tuple(columns), zip(*columns.values(), strict=True), align, _LEAST)
