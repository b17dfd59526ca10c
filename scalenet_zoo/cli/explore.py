"""`explore`: what the zoo does on this machine, as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.options import Json, parse_words
from scalenet_zoo.core.bounds import THREADS

if TYPE_CHECKING:
    from scalenet_zoo.explore.exploration import Exploration


def explore_command(
    models: Annotated[str, typer.Argument(help="A shell pattern for the entries' names.")] = "*",
    on: Annotated[
        str, typer.Option(help="Back ends, separated by commas: ort-cpu, openvino, ...; `doctor` lists them.")
    ] = "ort-cpu",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, int8, several separated by commas, or any: those fast on the back end.")
    ] = "any",
    task: Annotated[
        str, typer.Option(help="classification, segmentation, pose, or several separated by commas.")
    ] = "classification",
    threads: Annotated[
        int | None, typer.Option(min=1, max=THREADS, help="CPU threads; all cores if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    measure_all: Annotated[
        bool,
        typer.Option(
            "--all", help="Measure also entries that `profile`'s latency model says to be far from the front."
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One visit to each entry instead of three.")] = False,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("explore.html"),
    as_json: Json = False,
) -> None:
    """Measure the zoo's entries on this machine, and write a page: accuracy against latency or MACs, and the front.

    Figures are kept, so that an interrupted run goes on where it stopped, and `build --latency --pretrained` need not
    measure again. The 48 classifiers in fp32 and int8 take some 15 minutes on two cores.

    Example: scalenet-zoo explore --on ort-cpu --threads 1
    """
    from scalenet_zoo.cli.console import print_json, progress_lines, say
    from scalenet_zoo.explore.exploration import explore_zoo

    with progress_lines() as advance:
        found = explore_zoo(
            parse_words(on),
            parse_words(precision),
            parse_words(task),
            threads=threads,
            batch=batch,
            models=models,
            measure_all=measure_all,
            quick=quick,
            output=output,
            on_progress=advance,
        )
    if as_json:
        print_json(found.to_dict())
        return
    _print_fronts(found)
    for text in found.left_out:
        say(f"left out: {text}")
    say(f"wrote {found.page} ({found.page.stat().st_size:,} bytes)")


def _print_fronts(found: "Exploration") -> None:
    """A table of the front of each task and metric."""
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.core.quantities import format_count, format_ms

    kept = sum(point.measured for point in found.points) - found.measured
    predicted = sum(not point.measured for point in found.points)
    typer.echo(
        f"{found.machine['cpu']}, {found.threads} CPU thread{'s' if found.threads > 1 else ''}, batch of {found.batch}:"
        f" {found.measured} measured now, {kept} before, {predicted} predicted"
    )
    for figure in dict.fromkeys(point.figure for point in found.points if point.front):
        task, metric, data = figure
        typer.echo(f"\nthe front: {task}, {metric}, {data}; accuracies are quoted, those of fp32")
        front = sorted((point for point in found.points if point.front and point.figure == figure), key=lambda p: p.ms)
        print_table(
            ("network", "on", "precision", "accuracy", "latency", "MACs", "weights"),
            (
                (
                    point.name,
                    point.backend,
                    point.precision,
                    f"{point.value:.2f}",
                    f"{format_ms(point.ms)}{'' if point.measured else ' (predicted)'}",
                    format_count(point.macs),
                    point.weights or "-",
                )
                for point in front
            ),
            align="lllrrrl",
        )
