"""`supernet train` and `search`: a family or a front of networks searched on one's own data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scalenet_zoo.cli.completion import complete_backend, complete_configuration, complete_precision
from scalenet_zoo.cli.help import Command, CommandGroup
from scalenet_zoo.cli.options import BUDGET, LATENCY, RUN, Json
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.distributed import is_launched_first, leave
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.core.quoting import printable

ConfigOption = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a configuration of the package: digits, imagenet, cityscapes, coco-pose.",
        autocompletion=complete_configuration,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="imagefolder:PATH, digits, ...; the configuration's data if not given.", rich_help_panel=RUN),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        help="The folder to write to, or to resume in; runs/NAME if not given.",
        rich_help_panel=RUN,
    ),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.", rich_help_panel=RUN)]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Steps between checkpoints of the supernet, in addition to one after each epoch.",
        rich_help_panel=RUN,
    ),
]
LogInterval = Annotated[
    int, typer.Option(min=1, help="Steps between lines of the supernet's log.", rich_help_panel=RUN)
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Run on the CPU, even if there is a GPU.", rich_help_panel=RUN)]
OnOption = Annotated[
    str | None,
    typer.Option(
        help="The back end of --latency: ort-cpu, torch, tensorrt, ...",
        autocompletion=complete_backend,
        rich_help_panel=LATENCY,
    ),
]

supernet = typer.Typer(
    cls=CommandGroup,
    help="Train the supernet of a search, or extract networks.",
    epilog="Example: scalenet-zoo supernet train digits",
    no_args_is_help=True,
)


@supernet.command("train", cls=Command)
def train_supernet_command(
    config: ConfigOption,
    data: Data = None,
    output: OutputOption = None,
    workers: Workers = 2,
    save_every: SaveEvery = None,
    log_interval: LogInterval = 50,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Train the supernet of a search, or resume its training.

    Run the command under torchrun or accelerate launch to train in several processes.

    Example: scalenet-zoo supernet train digits
    """
    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.search.run_search import train_supernet

    first = is_launched_first()
    with progress_bar(first) as on_progress:
        folder, summary = train_supernet(
            config,
            output,
            data=data,
            workers=workers,
            save_every=save_every,
            log_interval=log_interval,
            cpu=cpu,
            on_progress=on_progress,
        )
    leave()
    if not first:
        return
    if as_json:
        print_json({"run": str(folder), **summary.model_dump(mode="json")})
        return
    typer.echo(f"{summary.images:,} images forward and backward in {summary.steps:,} steps, {summary.seconds:.0f} s")
    typer.echo(f"wrote {folder / 'supernet'}")


@supernet.command("extract", cls=Command)
def extract_command(
    run: Annotated[Path, typer.Argument(help="The folder of `search` or `supernet train`.")],
    network: Annotated[
        str | None,
        typer.Argument(
            help="A network that the search found, such as NAME_0, or a spec's file. Without it, give a budget."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The model folder to write; the network's name if not given.", rich_help_panel=RUN),
    ] = None,
    flops: Annotated[
        str | None,
        typer.Option(help="The most MACs, such as 20M: writes the best of some networks.", rich_help_panel=BUDGET),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            help="The longest time of one inference, such as 2ms: writes the largest of some networks; requires --on.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    on: OnOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=THREADS, help="CPU threads of --latency.", rich_help_panel=LATENCY)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="The precision of --latency: fp32, fp16 or int8; fp32 if not given.",
            autocompletion=complete_precision,
            rich_help_panel=LATENCY,
        ),
    ] = None,
    workers: Workers = 2,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Write a network with the supernet's weights as a model folder.

    The network needs no training of its own. The command estimates its batch-norm statistics and scores it.

    Example: scalenet-zoo supernet extract runs/digits --flops 2M
    """
    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.search.run_search import extract_found

    with progress_bar() as on_progress:
        found = extract_found(
            run,
            network,
            output,
            flops=flops,
            latency=latency,
            on=on,
            threads=threads,
            precision=precision,
            workers=workers,
            cpu=cpu,
            on_progress=on_progress,
        )
    spec, folder = found.spec, output or Path(found.spec.name)
    if as_json:
        cost = spec.cost.model_dump(mode="json")
        print_json({"network": spec.name, "folder": str(folder), "cost": cost, found.metric: found.score})
        return
    typer.echo(f"{spec.name}: {format_count(spec.cost.macs)} MACs, {found.metric} {found.score:.4f}")
    typer.echo(f"wrote {folder}")


def search_command(
    config: ConfigOption,
    data: Data = None,
    output: OutputOption = None,
    macs: Annotated[
        str | None,
        typer.Option(
            "--macs",
            "--flops",
            help="The most MACs: 20G; with the method scalenet, one limit per stage: 3M,6M,12M.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(help="The most parameters: 5M; or a list, as for --macs.", rich_help_panel=BUDGET),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            help="The longest time of one inference: 4ms; or a list, as for --macs; requires --on.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    on: OnOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of --latency.", rich_help_panel=LATENCY)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="The precision of --latency: fp32, fp16 or int8; the configuration's if not given.",
            autocompletion=complete_precision,
            rich_help_panel=LATENCY,
        ),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="Use the trained supernet of this run instead of training one.", rich_help_panel=RUN),
    ] = None,
    workers: Workers = 2,
    save_every: SaveEvery = None,
    log_interval: LogInterval = 50,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Search for networks on your own data, and write a report.

    A search trains a supernet, scores its subnetworks, and writes the specs of the best. The configuration's `method`
    selects the search: scalenet finds a family of classifiers, its base model and its scaling strategies together;
    scalenas finds multipath networks for segmentation or pose on the Pareto front of score and MACs. A search that was
    stopped resumes in its folder.

    Example: scalenet-zoo search digits --output runs/digits
    """
    import sys

    from scalenet_zoo.arch.provenance import public_command
    from scalenet_zoo.cli.console import print_json, print_table, say
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.search.run_search import run_search

    amounts = {"macs": macs, "params": params, "latency": latency}
    limits: dict[str, Any] = {
        name: [part.strip() or None for part in text.split(",")] for name, text in amounts.items() if text is not None
    }
    limits |= {name: value for name, value in (("backend", on), ("threads", threads)) if value is not None}
    first = is_launched_first()
    with progress_bar(first) as on_progress:
        found = run_search(
            config,
            output,
            data=data,
            limits=limits,
            precision=precision,
            supernet=supernet,
            workers=workers,
            save_every=save_every,
            log_interval=log_interval,
            cpu=cpu,
            about={"command": public_command(["scalenet-zoo", *sys.argv[1:]])},
            on_progress=on_progress,
        )
    leave()
    if not first:
        return
    written = found.written
    if as_json:
        print_json({"run": str(found.folder), "report": str(found.report), **written.values})
        return
    print_table(
        written.columns,
        written.rows,
        "l" + "r" * (len(written.columns) - 1),
        least=("pixels", "width", "depth", "params"),
    )
    if "score" in written.columns:
        typer.echo("score: with the supernet's weights; - where a network is extrapolated, not scored")
    typer.echo("")
    for path in (*written.paths, found.report):
        say(f"wrote {path}")
    if found.commands:
        typer.echo("\nnext:")
    for command in found.commands:
        say(f"  {command.purpose}:", indent=2)
        typer.echo(printable(f"    {command.command}"))  # not wrapped, so that it can be copied
