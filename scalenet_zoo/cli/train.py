"""`train`: a network trained on images; every value of a recipe is a flag."""

import inspect
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from scalenet_zoo.cli.models import check_model, has_weights, is_exported
from scalenet_zoo.cli.options import IgnoreIndex, JointsOption, Json, Pretrained, WeightsOption, parse_size
from scalenet_zoo.training.recipe import FIELDS, HINTS


def with_recipe_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each field of `Recipe`, in the place of its `**values`; those not given are None."""
    own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name))
        for name in FIELDS
    ]
    command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
    return command


def _annotation(name: str) -> Any:  # noqa: ANN401 - a type
    kind = HINTS[name]
    dashed, about = name.replace("_", "-"), FIELDS[name].metadata["about"]
    tasks = FIELDS[name].metadata["tasks"]
    about += f" For {' and '.join(tasks)}." if tasks else ""
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"--{dashed}/--no-{dashed}", help=about)]
    if get_origin(kind) is types.UnionType:  # a value or none
        return Annotated[str | None, typer.Option(f"--{dashed}", metavar="VALUE|none", help=about)]
    if get_origin(kind) is tuple:
        return Annotated[kind | None, typer.Option(f"--{dashed}", help=about)]
    if get_args(kind):
        return Annotated[str | None, typer.Option(f"--{dashed}", metavar="|".join(get_args(kind)), help=about)]
    return Annotated[kind | None, typer.Option(f"--{dashed}", help=about)]


@with_recipe_flags
def train(
    spec: Annotated[
        str, typer.Argument(help="A name of the zoo, a spec's JSON file, hf-hub:org/name, or a folder with a network.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="digits, imagefolder:PATH, masks:PATH, coco:PATH, cityscapes:PATH, wds:..., hfds:org/name, ..."
        ),
    ],
    train_split: Annotated[str, typer.Option(help="The part of the data to learn from.")] = "train",
    val_split: Annotated[str, typer.Option(help="The part to choose the best epoch by.")] = "val",
    recipe: Annotated[
        str, typer.Option(help="imagenet, finetune, cityscapes, tiles, coco-pose, quick, or a YAML file.")
    ] = "quick",
    size: Annotated[
        str | None, typer.Option(help="The network's input: 96, or height x width as 192x256; the spec's if not given.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Classes, where the data do not tell how many there are.")
    ] = None,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    teacher: Annotated[
        str | None, typer.Option(help="A network to learn from, too: hf-hub:org/name, or a folder of `train`.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The folder to write to; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in that folder.")] = False,
    ignore_index: IgnoreIndex = None,
    joints: JointsOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many images of each part.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints to keep.")] = 2,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints, besides those after each epoch.")
    ] = None,
    log_interval: Annotated[int, typer.Option(min=1, help="Steps between lines of the log.")] = 50,
    val_interval: Annotated[int, typer.Option(min=1, help="Epochs between evaluations.")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU, GPU or not.")] = False,
    as_json: Json = False,
    **values: Any,  # noqa: ANN401 - the recipe's
) -> None:
    """Train a network; on several processes with torchrun or accelerate launch.

    Example: scalenet-zoo train scalenet_s0 --data digits --size 32
    """
    import sys
    from dataclasses import asdict

    from scalenet_zoo.arch.provenance import public_command
    from scalenet_zoo.cli.console import print_json, progress_lines, say
    from scalenet_zoo.core.outputs import check_writable
    from scalenet_zoo.data.forms import check_source
    from scalenet_zoo.training.log import RUN_FILE, holds_run
    from scalenet_zoo.training.recipe import load_recipe
    from scalenet_zoo.zoo.sources import load_spec

    is_first = os.environ.get("RANK", "0") == "0"
    # What takes no time is looked at first, in this order: quantities, names, paths, where the files go.
    chosen = load_recipe(recipe)
    given = {name: _parsed(name, value) for name, value in values.items() if value is not None}
    chosen = chosen.replace(given, "flags")
    image = parse_size(size) if size else None
    if teacher and (is_exported(teacher) or not has_weights(teacher)):
        raise typer.BadParameter(
            f"--teacher: found {teacher}, expected hf-hub:org/name or a folder, which have weights"
        )
    check_source(data)
    check_model(spec, weights=weights)
    if teacher:
        check_model(teacher)
    folder = output or Path("runs") / Path(spec).stem
    holds_run(folder, resume)
    if is_first:
        check_writable(folder / RUN_FILE)
    task = load_spec(spec).task
    check_source(data, task)
    chosen.check_task(task, given, "flags")

    import torch

    from scalenet_zoo.data.sources import open_data
    from scalenet_zoo.training.trainer import Options
    from scalenet_zoo.training.trainer import train_network as run_training
    from scalenet_zoo.zoo.create import create_model

    training, validation = (
        open_data(data, task, split, ignore_index=ignore_index, joints=joints, limit=limit)
        for split in (train_split, val_split)
    )
    found = len(training.labels.names)
    if classes and found not in (0, classes):
        raise typer.BadParameter(f"found --classes {classes}, expected {found}, as {data} has")
    torch.manual_seed(chosen.seed)
    network: Any = create_model(
        spec,
        pretrained,
        num_classes=found or classes,
        img_size=image,
        weights=weights,
        drop_rate=chosen.drop,
        drop_path_rate=chosen.drop_path,
    )
    about = {"command": public_command(["scalenet-zoo", *sys.argv[1:]])}
    options = Options(workers, keep, save_every, log_interval, val_interval, cpu, about)
    with progress_lines(is_first) as on_step:
        trained = run_training(
            network,
            chosen,
            training,
            validation,
            folder,
            options,
            create_model(teacher) if teacher else None,
            resume,
            on_step,
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if not is_first:
        return
    if as_json:
        print_json({**asdict(trained), "run": str(trained.run)})
        return
    typer.echo(f"best {trained.metric} {trained.best:.4g} after epoch {trained.epoch}, {trained.seconds:.0f} s")
    if trained.broken:
        say(f"{len(trained.broken)} images could not be read: {', '.join(trained.broken[:3])}", err=True)
    for name in ("best", "curves.png", "log.jsonl"):
        say(f"wrote {trained.run / name}")


def _parsed(name: str, value: Any) -> Any:  # noqa: ANN401 - a field's value
    """The text of a value that may be none."""
    if not isinstance(value, str) or get_origin(HINTS[name]) is not types.UnionType:
        return value
    if value == "none":
        return None
    kind = next(kind for kind in get_args(HINTS[name]) if kind is not types.NoneType)
    if get_origin(kind) is tuple:  # the one such field is a size
        return parse_size(value)
    try:
        return kind(value)
    except ValueError:
        return value  # the recipe says what it expects
