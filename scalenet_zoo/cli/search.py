"""`supernet train` and `search`: a family or a front of networks searched on one's own data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalenet_zoo.cli.options import Json

if TYPE_CHECKING:
    from scalenet_zoo.search.config import MultipathConfig, SearchConfig
    from scalenet_zoo.search.run import RunOptions
    from scalenet_zoo.search.scalenas.run import MultipathRun
    from scalenet_zoo.search.scalenet.run import SearchRun

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
def train_supernet(
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

    chosen = _load(config, {"data": data})
    from scalenet_zoo.search.run import RunOptions

    first = _is_first()
    with progress_lines(first) as on_step:
        run = _open(chosen, output, RunOptions(workers, save_every, log_interval, cpu, on_step))
        summary = run.train()
    _leave()
    if not first:
        return
    if as_json:
        print_json({"run": str(run.folder), **summary.model_dump(mode="json")})
        return
    typer.echo(f"{summary.images:,} images forward and backward in {summary.steps:,} steps, {summary.seconds:.0f} s")
    typer.echo(f"wrote {run.folder / 'supernet'}")


@supernet.command("extract")
def extract_network(
    run: Annotated[Path, typer.Argument(help="The folder of a search of multipath networks (method: scalenas).")],
    network: Annotated[str, typer.Argument(help="A network that was found, such as NAME_0, or a spec's file.")],
    output: Annotated[Path, typer.Option(help="The model folder to write.")],
    workers: Workers = 2,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Write a network with the supernet's weights as a model folder: usable without training it.

    Batch-norm statistics are estimated anew, as when it was scored.

    Example: scalenet-zoo supernet extract runs/streets streets_3 --output streets_3
    """
    from scalenet_zoo.cli.console import print_json, progress
    from scalenet_zoo.core.errors import InputError
    from scalenet_zoo.search.config import MultipathConfig
    from scalenet_zoo.search.scalenas.state import find_spec
    from scalenet_zoo.supernet.summary import trained_supernet

    config = _load(str(run / "config.yaml"), {})
    if not isinstance(config, MultipathConfig):
        raise InputError(f"{run}: found a search of scalenet, expected one of scalenas")
    trained_supernet(run)
    spec = find_spec(run, network)
    from scalenet_zoo.search.run import RunOptions
    from scalenet_zoo.search.scalenas.run import MultipathRun

    with progress("extracting"):
        MultipathRun(config, run, RunOptions(workers=workers, cpu=cpu)).extract(spec, output)
    if as_json:
        print_json({"network": spec.name, "folder": str(output)})
        return
    typer.echo(f"wrote {output}")


def search(
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
    from scalenet_zoo.supernet.summary import trained_supernet

    amounts = {"macs": macs, "params": params, "latency": latency}
    limits: dict[str, Any] = {
        name: [part.strip() or None for part in text.split(",")] for name, text in amounts.items() if text is not None
    }
    limits |= {name: value for name, value in (("backend", on), ("threads", threads)) if value is not None}
    chosen = _load(config, {"data": data, "limits": limits})
    if supernet is not None:
        trained_supernet(supernet)
    from scalenet_zoo.search.run import RunOptions

    about = {"command": public_command(["scalenet-zoo", *sys.argv[1:]])}
    first = _is_first()
    with progress_lines(first) as on_step:
        options = RunOptions(workers, save_every, log_interval, cpu, on_step, about, supernet)
        run = _open(chosen, output, options)
        found = run.search()
    _leave()
    if not first:
        return

    from scalenet_zoo.search.report.page import write_report
    from scalenet_zoo.search.scalenas.run import describe_front
    from scalenet_zoo.search.scalenas.state import TopologyState
    from scalenet_zoo.search.scalenet.run import describe

    page = write_report(run.folder)
    written = [run.folder / "specs", page]
    if isinstance(found, TopologyState):
        networks = [
            {"name": name, **network.model_dump(mode="json")}
            for (name, *_), network in zip(describe_front(found), found.found, strict=True)
        ]
        result: dict[str, Any] = {"networks": networks}
    else:
        written.insert(0, run.folder / "family.json")
        result = {"family": found.model_dump(mode="json")}
    if as_json:
        print_json({"run": str(run.folder), "report": str(page), **result})
        return
    if isinstance(found, TopologyState):
        print_table(("network", "MACs", "params", "latency (ms)", "score"), describe_front(found), align="lrrrr")
    else:
        print_table(("network", "depth", "width", "pixels", "MACs", "params"), describe(found), align="lrrrrr")
    typer.echo("")
    for path in written:
        typer.echo(f"wrote {path}")


def _load(config: str, changes: dict[str, Any]) -> "SearchConfig | MultipathConfig":
    """A configuration with changes; what can be seen to be wrong is told before torch is imported."""
    from scalenet_zoo.search.config import load_config

    chosen = load_config(config, {name: value for name, value in changes.items() if value})
    chosen.check()
    return chosen


def _open(
    config: "SearchConfig | MultipathConfig", output: Path | None, options: "RunOptions"
) -> "SearchRun | MultipathRun":
    from scalenet_zoo.search.config import SearchConfig
    from scalenet_zoo.search.scalenas.run import MultipathRun
    from scalenet_zoo.search.scalenet.run import SearchRun

    folder = output or Path("runs") / config.name
    if isinstance(config, SearchConfig):
        return SearchRun(config, folder, options)
    return MultipathRun(config, folder, options)


def _is_first() -> bool:
    """Whether this process is the one that tells people."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _leave() -> None:
    """Leave the other processes, if there are some."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
