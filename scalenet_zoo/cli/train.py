"""`train`: a network trained on images; every value of a recipe is a flag."""

import inspect
import shlex
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from scalenet_zoo.cli.completion import complete_model, complete_recipe
from scalenet_zoo.cli.help import Command
from scalenet_zoo.cli.options import (
    DATA,
    RUN,
    WEIGHTS_PANEL,
    IgnoreIndex,
    InheritOption,
    JointsOption,
    Json,
    Pretrained,
    WeightsOption,
    parse_size,
)
from scalenet_zoo.cli.recipe import DEFAULT, default_of, panel_of, recipe_text, recipe_values
from scalenet_zoo.core.quoting import printable

RECIPE = "Recipe"

if TYPE_CHECKING:
    from scalenet_zoo.training.trainer import EpochReport


class TrainCommand(Command):
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
    flag, about = f"--{name.replace('_', '-')}", Recipe.model_fields[name].description or ""
    about += f" For {' and '.join(tasks)}." if tasks else ""
    about += f"  [{DEFAULT}: {default_of(name)}]"
    shown: dict[str, Any] = {"help": about, "rich_help_panel": panel_of(name)}
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{name.replace('_', '-')}", **shown)]
    if get_origin(kind) is types.UnionType:  # a value or none
        return Annotated[str | None, typer.Option(flag, metavar="VALUE|none", **shown)]
    if get_origin(kind) is tuple:
        return Annotated[kind | None, typer.Option(flag, **shown)]
    if get_args(kind):
        return Annotated[str | None, typer.Option(flag, metavar="|".join(get_args(kind)), **shown)]
    return Annotated[kind | None, typer.Option(flag, **shown)]


@_without_values
def train_command(
    spec: Annotated[
        str,
        typer.Argument(
            help="An entry, a spec's JSON file, hf-hub:org/name, or a folder with a network.",
            autocompletion=complete_model,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="digits, imagefolder:PATH, masks:PATH, coco:PATH, cityscapes:PATH, wds:..., hfds:org/name, ...",
            rich_help_panel=DATA,
        ),
    ],
    train_split: Annotated[
        str, typer.Option(help="The part of the data to learn from.", rich_help_panel=DATA)
    ] = "train",
    val_split: Annotated[
        str, typer.Option(help="The part of the data that chooses the best epoch.", rich_help_panel=DATA)
    ] = "val",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only this number of images of each part.", rich_help_panel=DATA)
    ] = None,
    ignore_index: IgnoreIndex = None,
    joints: JointsOption = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The network's input: 96, or height x width as 192x256; the spec's if not given.",
            rich_help_panel=DATA,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="The number of classes, if the data do not state it.", rich_help_panel=DATA),
    ] = None,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    inherit: InheritOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Also learn from the outputs of this network: hf-hub:org/name, or a folder of `train`.",
            rich_help_panel=WEIGHTS_PANEL,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write to; runs/NAME if not given.", rich_help_panel=RUN)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the newest checkpoint in that folder.", rich_help_panel=RUN)
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.", rich_help_panel=RUN)] = 2,
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints to keep.", rich_help_panel=RUN)] = 2,
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps between checkpoints, in addition to one after each epoch.", rich_help_panel=RUN
        ),
    ] = None,
    log_interval: Annotated[int, typer.Option(min=1, help="Steps between lines of the log.", rich_help_panel=RUN)] = 50,
    val_interval: Annotated[int, typer.Option(min=1, help="Epochs between evaluations.", rich_help_panel=RUN)] = 1,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Train on the CPU, even if there is a GPU.", rich_help_panel=RUN)
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            help="imagenet, finetune, cityscapes, tiles, coco-pose, quick, or a YAML file. The flags below override its"
            " values; help shows those of `quick`.",
            autocompletion=complete_recipe,
            rich_help_panel=RECIPE,
        ),
    ] = DEFAULT,
    show_recipe: Annotated[
        bool,
        typer.Option(
            "--show-recipe",
            help="Print the recipe as YAML, with the origin of each value, and do not train.",
            rich_help_panel=RECIPE,
        ),
    ] = False,
    as_json: Json = False,
    **values: Any,  # noqa: ANN401 - the recipe's
) -> None:
    """Train a network on images.

    Each value of the recipe is a flag. Run the command under torchrun or accelerate launch to train in several
    processes.

    Example: scalenet-zoo train scalenet_s0 --data digits --size 32
    """
    import sys
    from dataclasses import asdict

    from scalenet_zoo.arch.provenance import public_command
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.core.distributed import is_launched_first, leave
    from scalenet_zoo.training.fit import fit

    flags = {name: _parsed(name, value) for name, value in values.items() if value is not None}
    if show_recipe:
        from scalenet_zoo.zoo.sources import load_spec

        shown = recipe_values(recipe, flags, load_spec(spec).task)
        if as_json:
            print_json({each.field: {"value": each.value, "origin": each.origin} for each in shown})
        else:
            typer.echo(recipe_text(shown))
        return
    with progress_bar(is_launched_first()) as advance:
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
            on_epoch=_print_epoch if is_launched_first() else lambda report: None,
            **flags,
        )
    leave()
    if not is_launched_first():
        return
    if as_json:
        print_json({**asdict(trained), "run": str(trained.run)})
        return
    typer.echo(
        f"best {trained.metric} {trained.best:.4g} after epoch {trained.epoch} of {trained.last['epoch']},"
        f" {trained.seconds:.0f} s"
    )
    if trained.broken:
        say(f"{len(trained.broken)} images could not be read: {', '.join(trained.broken[:3])}", err=True)
    say(f"weights   {trained.run / 'best' / 'model.safetensors'}")
    say(f"curves    {trained.run / 'curves.png'}")
    say(f"figures   {trained.run / 'log.jsonl'}")
    typer.echo("\nnext:")
    for words in _next_commands(str(trained.run), data, val_split, ignore_index, joints):
        typer.echo(printable(f"  {shlex.join(['scalenet-zoo', *words])}"))  # not wrapped, so that it can be copied


def _print_epoch(report: "EpochReport") -> None:
    """Print the line of an epoch, which stays above the progress line."""
    from scalenet_zoo.cli.console import say

    figures = [("loss", report.loss, ".3g"), (report.metric, report.value, ".4f"), ("best", report.best, ".4f")]
    parts = [f"{name} {value:{form}}" for name, value, form in figures if value is not None]
    parts.append(f"lr {report.lr:.2g}")
    if report.images_per_second is not None:
        parts.append(f"{report.images_per_second:,.0f} images/s")
    number = f"{report.epoch:{len(str(report.epochs))}}/{report.epochs}"
    say(f"epoch {number}  {'  '.join(parts)}", err=True)


def _next_commands(
    run: str, data: str, split: str, ignore_index: int | None, joints: Path | None
) -> Iterator[list[str]]:
    """Yield the words of the commands that use the trained network."""
    also = {"--split": None if split == "val" else split, "--ignore-index": ignore_index, "--joints": joints}
    flags = [str(word) for flag, value in also.items() if value is not None for word in (flag, value)]
    yield ["evaluate", run, "--data", data, *flags]
    yield ["export", run, "--output", f"{Path(run).name}.onnx"]
    yield ["predict", "IMAGE", "--model", run, "--output", "drawn"]


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
