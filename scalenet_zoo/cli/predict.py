"""`predict`: what a network finds in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.completion import complete_model
from scalenet_zoo.cli.options import (
    MODEL,
    Boxes,
    BoxScore,
    BrokenLimit,
    Flip,
    Json,
    Overlap,
    Pretrained,
    Seed,
    Tile,
    WeightsOption,
)

if TYPE_CHECKING:
    from scalenet_zoo.inference.predict import Row


def predict_command(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, or folders of them; two sample photographs if none are given."),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help=MODEL, autocompletion=complete_model)],
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="A folder for PNGs: the images with the label, areas or joints drawn on them.")
    ] = None,
    flip: Flip = False,
    tile: Tile = False,
    overlap: Overlap = None,
    boxes: Boxes = None,
    box_score: BoxScore = 0.3,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Pose: draw and list only joints with this score or more. If not given: list all, draw from 0.2.",
        ),
    ] = None,
    broken_limit: BrokenLimit = 100,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict classes, areas or joints in images, and draw them.

    A pose network takes the whole image as one person, or finds a person in each of the given boxes. A classifier of
    handwritten digits (`--data digits`) finds the digit in a drawing of any size, dark on light or light on dark.

    Example: scalenet-zoo predict cat.jpg --model efficientnet_b0 --pretrained
    """
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.progress import progress_bar
    from scalenet_zoo.models.prediction import predict

    with progress_bar() as advance:
        predictions = predict(
            model,
            images,
            pretrained=pretrained,
            weights=weights,
            top=top,
            output=output,
            flip=flip,
            tile=tile,
            overlap=overlap,
            boxes=boxes,
            box_score=box_score,
            threshold=threshold,
            broken_limit=broken_limit,
            seed=seed,
            on_progress=advance,
        )
    if as_json:
        print_json({one.image: one.rows for one in predictions})
        return
    for one in predictions:
        if one.rows is not None:
            _print(one.image, one.rows)
    for one in predictions:
        if one.drawn:
            say(f"wrote {one.drawn}")


def _print(path: str, rows: "list[Row]") -> None:
    from scalenet_zoo.cli.console import print_table, say

    say(path)
    if not rows:
        typer.echo("no persons")
        return
    cells = [[f"{value:.6g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    align = "".join("l" if isinstance(value, str) else "r" for value in rows[0].values())
    print_table(tuple(rows[0]), cells, align)
