"""`explore`: accuracy and latency of the zoo's entries on this machine, as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.completion import complete_backends, complete_model, complete_precisions
from scalenet_zoo.cli.options import Json, parse_words
from scalenet_zoo.core.bounds import THREADS

if TYPE_CHECKING:
    from scalenet_zoo.explore.exploration import Exploration


def explore_command(
    models: Annotated[
        str, typer.Argument(help="A shell pattern for the entries' names.", autocompletion=complete_model)
    ] = "*",
    on: Annotated[
        str,
        typer.Option(
            help="Back ends, separated by commas: ort-cpu, openvino, ...; `scalenet-zoo doctor` lists them.",
            autocompletion=complete_backends,
        ),
    ] = "ort-cpu",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, fp16, int8 or several, separated by commas; `any` takes those that are fast on the back end.",
            autocompletion=complete_precisions,
        ),
    ] = "any",
    task: Annotated[
        str, typer.Option(help="classification, segmentation, pose or several, separated by commas.")
    ] = "classification",
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=THREADS, help="CPU threads; as many as there are cores if not given."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per inference.")] = 1,
    measure_all: Annotated[
        bool,
        typer.Option(
            "--all", help="Also measure entries that are far from the front according to `profile`'s latency model."
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Visit each entry once instead of three times.")] = False,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("explore.html"),
    as_json: Json = False,
) -> None:
    """Measure the zoo on this machine, and draw the Pareto front.

    The page shows accuracy against latency or MACs. Figures are kept: an interrupted run resumes where it stopped, and
    `build --latency --pretrained` reuses them. The 48 classifiers in fp32 and int8 take some 15 minutes on two cores.

    Example: scalenet-zoo explore --on ort-cpu --threads 1
    """
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.progress import progress_lines
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
    """Print one table per front: the Pareto front of a task and metric."""
    from scalenet_zoo.cli.console import print_table, say
    from scalenet_zoo.core.quantities import format_count, format_ms

    kept = sum(point.measured for point in found.points) - found.measured
    predicted = sum(not point.measured for point in found.points)
    say(
        f"{found.machine['cpu']}, {found.threads} CPU thread{'s' if found.threads > 1 else ''}, batch of {found.batch}:"
        f" {found.measured} measured now, {kept} before, {predicted} predicted"
    )
    for figure in dict.fromkeys(point.figure for point in found.points if point.front):
        task, metric, data = figure
        typer.echo()
        say(f"Pareto front for {task}: {metric}, {data}; accuracies are quoted, and are those of fp32")
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
            least=("weights", "MACs"),
        )
