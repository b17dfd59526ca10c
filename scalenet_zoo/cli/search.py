"""`supernet train` and `search`: a family or a front of networks searched on one's own data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scalenet_zoo.cli.options import Json
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.distributed import is_launched_first, leave
from scalenet_zoo.core.quantities import format_count

ConfigOption = Annotated[
    str, typer.Argument(help="A YAML file, or the name of one of the package: digits, imagenet, cityscapes, coco-pose.")
]
Data = Annotated[str | None, typer.Option(help="The data, if not the configuration's: imagefolder:PATH, digits, ...")]
OutputOption = Annotated[
    Path | None, typer.Option(help="The folder to write to, or to go on in; runs/NAME if not given.")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]
SaveEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints of the supernet, besides those after each epoch.")
]
LogInterval = Annotated[int, typer.Option(min=1, help="Steps between lines of the supernet's log.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Stay on the CPU, GPU or not.")]

supernet = typer.Typer(help="The weight-sharing network of a search.", no_args_is_help=True)


@supernet.command("train")
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
    """Train a supernet, or go on with it; on several processes with torchrun or accelerate launch.

    Example: scalenet-zoo supernet train digits
    """
    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.search.run_search import train_supernet

    first = is_launched_first()
    with progress_lines(first) as on_progress:
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


@supernet.command("extract")
def extract_command(
    run: Annotated[Path, typer.Argument(help="The folder of a search, or of `supernet train`.")],
    network: Annotated[
        str | None, typer.Argument(help="A network that was found, such as NAME_0, or a spec's file; or give a budget.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The model folder to write; the network's name if not given.")
    ] = None,
    flops: Annotated[str | None, typer.Option(help="The best of some networks with at most so many MACs: 20M.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="The largest of some networks with at most this latency: 2ms; needs --on.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The back end of --latency: ort-cpu, torch, ...")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=THREADS, help="CPU threads of --latency.")] = None,
    precision: Annotated[str | None, typer.Option(help="Of --latency: fp32, if not given, fp16 or int8.")] = None,
    workers: Workers = 2,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Write a network with the supernet's weights as a model folder: usable without training it.

    Batch-norm statistics are estimated anew, and the network is scored.

    Example: scalenet-zoo supernet extract runs/digits --flops 2M --output digits_2m
    """
    from scalenet_zoo.cli.console import print_json, progress_lines
    from scalenet_zoo.search.run_search import extract_found

    with progress_lines() as on_progress:
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
            "--macs", "--flops", help="At most so many MACs: 20G; of ScaleNet, of stages 0, 1, ...: 3M,6M,12M."
        ),
    ] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters: 5M; or a list as for --macs.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="At most so long, with --on: 4ms; or a list as for --macs.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The back end of --latency: ort-cpu, tensorrt, ...")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of --latency.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of --latency: fp32, fp16 or int8; the configuration's if not given.")
    ] = None,
    supernet: Annotated[
        Path | None, typer.Option(help="Another run: its supernet is taken, instead of training one.")
    ] = None,
    workers: Workers = 2,
    save_every: SaveEvery = None,
    log_interval: LogInterval = 50,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Train the supernet, search it, write specs and a report.

    The configuration's `method` says which search: scalenet finds a family of classifiers, base model and scaling
    strategies together; scalenas finds multipath networks for segmentation or pose along the front of score and MACs.
    What is in the folder already is not done again, so a search that was stopped goes on.

    Example: scalenet-zoo search digits --output runs/digits
    """
    import sys

    from scalenet_zoo.arch.provenance import public_command
    from scalenet_zoo.cli.console import print_json, print_table, progress_lines
    from scalenet_zoo.search.run_search import run_search

    amounts = {"macs": macs, "params": params, "latency": latency}
    limits: dict[str, Any] = {
        name: [part.strip() or None for part in text.split(",")] for name, text in amounts.items() if text is not None
    }
    limits |= {name: value for name, value in (("backend", on), ("threads", threads)) if value is not None}
    first = is_launched_first()
    with progress_lines(first) as on_progress:
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
    print_table(written.columns, written.rows, align="l" + "r" * (len(written.columns) - 1))
    typer.echo("")
    for path in (*written.paths, found.report):
        typer.echo(f"wrote {path}")
