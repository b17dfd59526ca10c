"""`predict`: what a network says about images."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.models import MODEL, check_model, has_weights, open_model
from scalenet_zoo.cli.options import (
    UNTRAINED,
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
    parse_overlap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.inference.predict import Row


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[str, typer.Option(help=MODEL)],
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="A folder for PNGs: segmentations or joints, drawn over the images.")
    ] = None,
    flip: Flip = False,
    tile: Tile = False,
    overlap: Overlap = None,
    boxes: Boxes = None,
    box_score: BoxScore = 0.3,
    broken_limit: BrokenLimit = 100,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict classes, the classes' areas, or joints, for images; draw areas and joints.

    A pose network takes the whole image for one person's, or finds the person in each of the boxes given.

    Example: scalenet-zoo predict cat.jpg --model efficientnet_b0 --pretrained
    """
    share = parse_overlap(tile, overlap)

    files = _files(images, output)
    check_model(model, pretrained, weights)
    if boxes:
        _check_boxes(boxes)

    import torch
    from PIL import Image

    from scalenet_zoo.cli.console import print_json, progress_bar, say
    from scalenet_zoo.core.bounds import PICTURE_PIXELS, TILED_PICTURE_PIXELS
    from scalenet_zoo.core.errors import InputError
    from scalenet_zoo.core.files import replacing
    from scalenet_zoo.data.broken import BrokenImages
    from scalenet_zoo.data.detections import boxes_of_files, check_box, read_detections
    from scalenet_zoo.data.image_files import read_image
    from scalenet_zoo.inference.draw import draw
    from scalenet_zoo.inference.predict import DECISIONS, describe_output
    from scalenet_zoo.inference.predict import predict as run_prediction
    from scalenet_zoo.inference.prepare import prepare_inference
    from scalenet_zoo.inference.tiling import doubt_resolution, learnt_own_resolution, segment

    paths = list(files)
    persons = boxes_of_files(read_detections(boxes, box_score), paths, boxes) if boxes else None
    gpu = "cuda" if torch.cuda.is_available() else None
    inference = prepare_inference(open_model(model, pretrained, weights, seed), gpu)
    spec = inference.spec
    if output and spec.task == "classification":
        raise typer.BadParameter(f"--output: found it for the classifier {spec.name}, which has nothing to draw")
    for option, given, task in (("--tile", tile, "segmentation"), ("--boxes", boxes, "pose")):
        if given and spec.task != task:
            raise typer.BadParameter(f"{option}: found it for {spec.name} ({spec.task}), expected it for {task}")
    if tile and (doubt := doubt_resolution(spec, tiles=True)):
        say(doubt, err=True)
    if flip:
        inference = inference.mirrored(inference.labels)
    results: dict[str, list[Row] | None] = {str(path): None for path in files}
    broken, drawn = BrokenImages(broken_limit), []
    large = 0
    with progress_bar() as advance:
        for start in range(0, len(paths), inference.smallest):  # as many at once as the network takes at least
            pictures: dict[Path, Image.Image] = {}
            for path in paths[start : start + inference.smallest]:
                try:
                    pictures[path] = read_image(
                        path, most_pixels=PICTURE_PIXELS if share is None else TILED_PICTURE_PIXELS
                    )
                except InputError as error:
                    broken.add([str(error)])
            if share is not None:
                found = [
                    segment(inference, picture, share, on_rows=partial(_tell_rows, advance, path, picture.height))
                    for path, picture in pictures.items()
                ]
            else:
                large += sum(_squeezed(spec, picture) for picture in pictures.values())
                given_boxes = [persons[path] for path in pictures] if persons else None
                for path, picture in pictures.items():
                    for box in persons[path] if persons else ():
                        check_box(box, picture.size, f"{boxes}: {path}")
                found = run_prediction(inference, list(pictures.values()), given_boxes) if pictures else []
            for (path, picture), decision in zip(pictures.items(), found, strict=True):
                results[str(path)] = describe_output(spec, decision, top, DECISIONS[spec.task], inference.names)
                if target := files[path]:
                    with replacing(target) as temporary:
                        draw(inference, picture, decision).save(temporary)
                    drawn.append(target)
            advance("predicting", min(start + inference.smallest, len(paths)), len(paths))
    if len(broken) == len(paths):
        raise InputError(broken.names[0])
    for complaint in broken.names:
        say(f"left out: {complaint}", err=True)
    if large:
        size = f"{spec.input.width} x {spec.input.height} pixels"
        whole = learnt_own_resolution(spec) is False
        say(
            f"{'1 image was' if large == 1 else f'{large} images were'} squeezed to less than half, to {size}"
            + (", as in training" if whole else f": --tile shows {spec.name} the image's own resolution"),
            err=True,
        )
    if not (pretrained or weights or has_weights(model)):
        typer.echo(f"{UNTRAINED} (--pretrained, --weights)", err=True)
    if as_json:
        print_json(results)
        return
    for name, rows in results.items():
        if rows is not None:
            _print(name, rows)
    for target in drawn:
        say(f"wrote {target}")


def _files(images: list[Path], output: Path | None) -> dict[Path, Path | None]:
    """Every image, and the PNG to draw it to: in `output` an image of a folder has the place that it has there."""
    from scalenet_zoo.core.errors import InputError
    from scalenet_zoo.data.image_files import image_files

    files: dict[Path, Path | None] = {}
    sources: dict[Path, Path] = {}
    for given in images:
        if not os.path.exists(given):  # noqa: PTH110 - Path's own raises OSError for a name that is too long
            raise InputError(f"{given}: found no such file, expected an image")
        folder = given if given.is_dir() else given.parent
        found = image_files(given) if given.is_dir() else [given]
        for path in found:
            if output and given.is_dir() and path.is_relative_to(output):  # drawn before
                continue
            target = output / path.relative_to(folder).with_suffix(".png") if output else None
            if target and sources.setdefault(target, path) != path:
                raise InputError(
                    f"{path}: would be drawn to {target} as {sources[target]} is, expected images of other names"
                )
            files.setdefault(path, target)
    if not files:
        raise InputError(f"{output}: found the images in the folder to draw to, expected another folder")
    inputs = {path.resolve() for path in files}
    for path, target in files.items():
        if target and target.resolve() in inputs:
            raise InputError(f"{path}: would be drawn to {target}, which is an image itself, expected another folder")
    return files


def _check_boxes(path: Path) -> None:
    from scalenet_zoo.core.errors import InputError
    from scalenet_zoo.core.files import regular_file

    try:
        regular_file(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _tell_rows(advance: "Callable[[str, int, int], None]", path: Path, height: int, rows: int) -> None:
    advance(f"rows of {path.name}", rows, height)


def _squeezed(spec: "ArchSpec", picture: "Image.Image") -> bool:
    """Whether a segmentation network sees less than half of a picture's height or width."""
    small = picture.width <= 2 * spec.input.width and picture.height <= 2 * spec.input.height
    return spec.task == "segmentation" and not small


def _print(path: str, rows: "list[Row]") -> None:
    from scalenet_zoo.cli.console import print_table, say

    say(path)
    if not rows:
        typer.echo("no persons")
        return
    cells = [[f"{value:.6g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    align = "".join("l" if isinstance(value, str) else "r" for value in rows[0].values())
    print_table(tuple(rows[0]), cells, align)
