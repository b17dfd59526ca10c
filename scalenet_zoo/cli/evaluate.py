"""`evaluate`: the accuracy of a network or of its exported file."""

from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.completion import complete_model
from scalenet_zoo.cli.options import (
    DATA,
    MODEL,
    RUN,
    Boxes,
    BoxScore,
    BrokenLimit,
    Flip,
    IgnoreIndex,
    JointsOption,
    Json,
    Overlap,
    Pretrained,
    Seed,
    Tile,
    WeightsOption,
)

if TYPE_CHECKING:
    from scalenet_zoo.inference.evaluate import Evaluation

FIGURES = {
    "top1": "top-1 accuracy",
    "top1_of_these": "top-1 accuracy among the data's classes",
    "top5": "top-5 accuracy",
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "ece": "calibration error",
    "ap": "AP",
    "ap50": "AP at OKS 0.50",
    "ap75": "AP at OKS 0.75",
    "ap_medium": "AP of medium persons",
    "ap_large": "AP of large persons",
    "ar": "AR",
    "ar50": "AR at OKS 0.50",
    "ar75": "AR at OKS 0.75",
    "ar_medium": "AR of medium persons",
    "ar_large": "AR of large persons",
    "pck_torso": "PCK@0.2 of the torso",
    "pck_box": "PCK@0.2 of the box",
}
"""The name that the table shows for each metric."""


def evaluate_command(
    model: Annotated[str, typer.Argument(help=MODEL, autocompletion=complete_model)],
    data: Annotated[
        str, typer.Option(help="As for `train`: digits, imagefolder:PATH, coco:PATH, ...", rich_help_panel=DATA)
    ],
    split: Annotated[str, typer.Option(help="The part of the data to evaluate on.", rich_help_panel=DATA)] = "val",
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    seed: Seed = 0,
    flip: Flip = False,
    tile: Tile = False,
    overlap: Overlap = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only this number of images.", rich_help_panel=DATA)
    ] = None,
    ignore_index: IgnoreIndex = None,
    joints: JointsOption = None,
    boxes: Boxes = None,
    box_score: BoxScore = 0.0,
    broken_limit: BrokenLimit = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.", rich_help_panel=RUN)] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.", rich_help_panel=RUN)] = 2,
    device: Annotated[
        str | None,
        typer.Option(help="The device, such as cuda:1; a GPU if there is one, else the CPU.", rich_help_panel=RUN),
    ] = None,
    amp: Annotated[
        bool, typer.Option("--amp", help="Compute in bfloat16 where that is safe.", rich_help_panel=RUN)
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy, IoU or AP on a data set.

    The model is a network or an exported file, whose figures include all that the export lost.

    Example: scalenet-zoo evaluate runs/scalenet_s0 --data digits
    """
    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.models.evaluation import evaluate

    with progress_bar() as advance:
        found = evaluate(
            model,
            data,
            split=split,
            pretrained=pretrained,
            weights=weights,
            batch_size=batch_size,
            workers=workers,
            flip=flip,
            tile=tile,
            overlap=overlap,
            limit=limit,
            ignore_index=ignore_index,
            joints=joints,
            boxes=boxes,
            box_score=box_score,
            broken_limit=broken_limit,
            device=device,
            amp=amp,
            seed=seed,
            on_progress=advance,
        )
    if as_json:
        print_json({"source": model, **found.to_dict()})
        return
    _print(found)


def _print(found: "Evaluation") -> None:
    from scalenet_zoo.cli.console import print_table, say

    speed = f"{found.images / found.seconds:.1f} {found.noun}/s"
    say(f"{found.model} on {found.data} {found.split}: {found.images} {found.noun}, {speed}")
    typer.echo()
    print_table(
        ("metric", "value"),
        [(FIGURES[name], f"{value:.2%}") for name, value in found.metrics.items() if not isinstance(value, dict)],
        align="lr",
    )
    for of_class in found.metrics.values():
        if isinstance(of_class, dict):
            typer.echo()
            rows = ((name, "-" if value is None else f"{value:.2%}") for name, value in of_class.items())
            print_table(("class", "IoU"), rows, align="lr")
    if found.broken:
        count = len(found.broken)
        typer.echo(f"\n{count} images were left out:" if count > 1 else "\n1 image was left out:")
        for name in found.broken:
            say(name)
