"""`supernet train` and `search`: a family of networks searched on one's own data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalenet_zoo.cli.options import Json

if TYPE_CHECKING:
    from scalenet_zoo.search.run import SearchRun
    from scalenet_zoo.train import OnStep

Config = Annotated[str, typer.Argument(help="A YAML file, or the name of one of the package: digits, imagenet.")]
Data = Annotated[str | None, typer.Option(help="The data, if not the configuration's: imagefolder:PATH, digits, ...")]
Output = Annotated[Path | None, typer.Option(help="The folder to write to, or to go on in; runs/NAME if not given.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]
SaveEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints of the supernet, besides those after each epoch.")
]
LogInterval = Annotated[int, typer.Option(min=1, help="Steps between lines of the supernet's log.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Stay on the CPU, GPU or not.")]

supernet = typer.Typer(help="The weight-sharing network of a search.", no_args_is_help=True)


@supernet.command("train")
def train_supernet(
    config: Config,
    data: Data = None,
    output: Output = None,
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

    first = _is_first()
    with progress_lines(first) as on_step:
        run = _open(config, {"data": data}, output, workers, save_every, log_interval, cpu, on_step)
        summary = run.train()
    _leave()
    if not first:
        return
    if as_json:
        print_json({"run": str(run.folder), **summary.model_dump(mode="json")})
        return
    typer.echo(f"{summary.images:,} images forward and backward in {summary.steps:,} steps, {summary.seconds:.0f} s")
    typer.echo(f"wrote {run.folder / 'supernet'}")


def search(
    config: Config,
    data: Data = None,
    output: Output = None,
    macs: Annotated[
        str | None,
        typer.Option("--macs", "--flops", help="Of the base model: 306M; or of stages 0, 1, ...: 3M,6M,12M."),
    ] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters: 5M; or a list as for --macs.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="At most so long, with --on: 4ms; or a list as for --macs.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The back end of --latency: ort-cpu, tensorrt, ...")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of --latency.")] = None,
    workers: Workers = 2,
    save_every: SaveEvery = None,
    log_interval: LogInterval = 50,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Search a family: train the supernet, search base model and scaling strategies, write specs and a report.

    What is in the folder already is not done again, so a search that was stopped goes on.

    Example: scalenet-zoo search digits --output runs/digits
    """
    import shlex
    import sys

    from scalenet_zoo.cli.console import print_json, print_table, progress_lines

    amounts = {"macs": macs, "params": params, "latency": latency}
    limits: dict[str, Any] = {
        name: [part.strip() or None for part in text.split(",")] for name, text in amounts.items() if text is not None
    }
    limits |= {name: value for name, value in (("backend", on), ("threads", threads)) if value is not None}
    about = {"command": shlex.join(["scalenet-zoo", *sys.argv[1:]])}
    first = _is_first()
    with progress_lines(first) as on_step:
        run = _open(
            config, {"data": data, "limits": limits}, output, workers, save_every, log_interval, cpu, on_step, about
        )
        family = run.search()
    _leave()
    if not first:
        return

    from scalenet_zoo.search.report import write_report
    from scalenet_zoo.search.run import describe

    page = write_report(run.folder)
    if as_json:
        print_json({"run": str(run.folder), "report": str(page), "family": family.model_dump(mode="json")})
        return
    columns = ("network", "depth", "width", "pixels", "MACs", "params")
    print_table(columns, describe(family), align="lrrrrr")
    typer.echo("")
    for path in (run.folder / "family.json", run.folder / "specs", page):
        typer.echo(f"wrote {path}")


def _open(
    config: str,
    changes: dict[str, Any],
    output: Path | None,
    workers: int,
    save_every: int | None,
    log_interval: int,
    cpu: bool,
    on_step: "OnStep",
    about: dict[str, Any] | None = None,
) -> "SearchRun":
    from scalenet_zoo.search.config import SearchConfig
    from scalenet_zoo.search.run import RunOptions, SearchRun

    chosen = SearchConfig.load(config, {name: value for name, value in changes.items() if value})
    options = RunOptions(workers, save_every, log_interval, cpu, on_step, about or {})
    return SearchRun(chosen, output or Path("runs") / chosen.name, options)


def _is_first() -> bool:
    """Whether this process is the one that tells people."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _leave() -> None:
    """Leave the other processes, if there are some."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
