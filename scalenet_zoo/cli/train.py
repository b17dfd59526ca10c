"""`train`: a network trained on images; every value of a recipe is a flag."""

import inspect
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
import typer.core

from scalenet_zoo.cli.options import (
    IgnoreIndex,
    InheritOption,
    JointsOption,
    Json,
    Pretrained,
    WeightsOption,
    parse_size,
)


class TrainCommand(typer.core.TyperCommand):
    """`train`, with a flag for each field of `Recipe`.

    The flags are made when they are looked at: a recipe needs pydantic, for which `scalenet-zoo --help` does not wait.
    """

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401, D102 - typer's
        return _with_recipe_flags().get_params(ctx)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401, D102
        return _with_recipe_flags().invoke(ctx)


def _without_values(command: Callable[..., None]) -> Callable[..., None]:
    """Hide the `**values` of a command from typer."""
    _sign(command, [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD])
    return command


def _sign(command: Callable[..., None], parameters: list[inspect.Parameter]) -> None:
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


@cache
def _with_recipe_flags() -> Any:  # noqa: ANN401 - a command of typer's
    """The command `train` with a flag for each field of `Recipe` as its `**values`; those not given are None."""
    from scalenet_zoo.training.recipe import Recipe

    def whole(**arguments: Any) -> None:  # noqa: ANN401
        train_command(**arguments)

    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name))
        for name in Recipe.model_fields
    ]
    _sign(whole, [*inspect.signature(train_command).parameters.values(), *flags])
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("train")(whole)
    return typer.main.get_command(app)


@cache
def _kinds() -> dict[str, Any]:
    """The types of a recipe's values."""
    from scalenet_zoo.training.recipe import Recipe

    return get_type_hints(Recipe)


def _annotation(name: str) -> Any:  # noqa: ANN401 - a type
    from scalenet_zoo.training.recipe import Recipe, tasks_of

    kind, tasks = _kinds()[name], tasks_of(name)
    dashed, about = name.replace("_", "-"), Recipe.model_fields[name].description or ""
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


@_without_values
def train_command(
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
    inherit: InheritOption = None,
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
    from scalenet_zoo.core.distributed import is_launched_first, leave
    from scalenet_zoo.training.fit import fit

    with progress_lines(is_launched_first()) as advance:
        trained = fit(
            spec,
            data,
            output=output,
            recipe=recipe,
            train_split=train_split,
            val_split=val_split,
            img_size=parse_size(size),
            num_classes=classes,
            pretrained=pretrained,
            weights=weights,
            inherit=inherit,
            teacher=teacher,
            resume=resume,
            ignore_index=ignore_index,
            joints=joints,
            limit=limit,
            workers=workers,
            keep=keep,
            save_every=save_every,
            log_interval=log_interval,
            val_interval=val_interval,
            cpu=cpu,
            about={"command": public_command(["scalenet-zoo", *sys.argv[1:]])},
            on_progress=advance,
            **{name: _parsed(name, value) for name, value in values.items() if value is not None},
        )
    leave()
    if not is_launched_first():
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
    if not isinstance(value, str) or get_origin(_kinds()[name]) is not types.UnionType:
        return value
    if value == "none":
        return None
    kind = next(kind for kind in get_args(_kinds()[name]) if kind is not types.NoneType)
    if get_origin(kind) is tuple:  # the one such field is a size
        return parse_size(value)
    try:
        return kind(value)
    except ValueError:
        return value  # the recipe says what it expects
