"""Prediction: what a model finds in images, as rows for people and programs, and as drawings over the images."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from scalenet_zoo.core.bounds import PICTURE_PIXELS, TILED_PICTURE_PIXELS
from scalenet_zoo.core.errors import InputError, UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import regular_file, replacing
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.image_files import image_files, sample_photographs
from scalenet_zoo.models.opening import open_model
from scalenet_zoo.models.options import tile_overlap
from scalenet_zoo.zoo.sources import UNTRAINED, NetworkSource, check_model, has_weights

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.data.crops import Box
    from scalenet_zoo.inference.predict import Row
    from scalenet_zoo.inference.prepare import ExportedFile, Inference

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What a model finds in an image.

    Attributes:
        image: the path of the file, as given or found; for a picture without a file, its argument, such as `images[0]`.
        rows: rows from `describe_output`, one per class, area or joint; None: the image cannot be read.
        drawn: the PNG of the image with the label, areas or joints drawn on it; None: nothing is drawn.
    """

    image: str
    rows: "list[Row] | None"
    drawn: Path | None = None


@dataclass(frozen=True)
class _Item:
    """An image to run the model on, and the PNG to draw it to."""

    image: Path | Image.Image
    name: str
    target: Path | None = None

    def read(self, most_pixels: int) -> Image.Image:
        from scalenet_zoo.data.image_files import read_image

        if isinstance(self.image, Path):
            return read_image(self.image, most_pixels=most_pixels)
        return ImageOps.exif_transpose(self.image).convert("RGB")


def predict(
    model: "NetworkSource | nn.Module | ExportedFile",
    images: str | Path | Image.Image | Sequence[str | Path | Image.Image] | None = None,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    top: int = 5,
    output: str | Path | None = None,
    flip: bool = False,
    tile: bool = False,
    overlap: float | None = None,
    boxes: str | Path | None = None,
    box_score: float = 0.3,
    threshold: float | None = None,
    broken_limit: int = 100,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[Prediction]:
    """Predict classes, areas of classes, or joints in images, and draw them.

    A pose network takes the whole image as one person, or finds a person in each of the given boxes. Images that cannot
    be read, and doubts about the results, are logged as warnings.

    Args:
        model: what `create_model` takes, a file that `export` wrote (ONNX, OpenVINO's IR, engine), or a network.
        images: files, folders of files, or PIL pictures; None: two photographs that come with scikit-learn, of a
            Chinese palace and of a daisy.
        pretrained: load published weights.
        weights: a file of weights to load.
        top: the number of rows for a classifier (the likeliest classes) or a segmentation network (the largest areas).
        output: a folder for PNGs of the images with the label, areas or joints drawn on them; images from a folder keep
            their paths within that folder.
        flip: take the mean of the outputs for each image and its mirror image.
        tile: show a segmentation network images at their own resolution, in overlapping tiles of its input.
        overlap: the overlap of tiles, as a share of a tile; None: 0.25.
        boxes: a file with a detector's boxes of persons, or with annotations, for a pose network.
        box_score: ignore boxes with lower scores.
        threshold: the least score of joints that are drawn and returned, for a pose network; None: all joints are
            returned, and those with a score of 0.2 or more are drawn.
        broken_limit: the most images that may be unreadable.
        seed: the seed of the initial weights, if none are loaded.
        on_progress: called with what is being done, how much of it is done, and the total.

    Returns:
        One prediction for each image, in order; a file that is named twice appears once.

    Raises:
        UsageError: arguments do not fit together, or do not fit the model.
        ModelNotFoundError, SpecError, WeightsError, BackendError, EngineError: the model cannot be opened.
        InputError: no image can be read or too many cannot, boxes do not fit the images, or two images would be drawn
            to the same file.
    """
    share = tile_overlap(tile, overlap)
    items = _items(sample_photographs() if images is None else images, user_path(output) if output else None)
    opened = check_model(model, pretrained, weights)
    boxes = user_path(boxes) if boxes else None
    if boxes:
        _check_boxes(boxes, items)

    import torch

    from scalenet_zoo.inference.draw import draw
    from scalenet_zoo.inference.predict import DECISIONS, describe_output
    from scalenet_zoo.inference.prepare import prepare_inference
    from scalenet_zoo.inference.tiling import doubt_resolution
    from scalenet_zoo.networks.modes import evaluation_mode

    persons = _persons(boxes, box_score, items) if boxes else None
    network = open_model(opened, pretrained, weights, seed)
    gpu = "cuda" if torch.cuda.is_available() and network is not model else None
    inference = prepare_inference(network, gpu)
    spec = inference.spec
    if output and not spec.classes:
        raise UsageError(f"`output`: found it for {spec.name} without classes, expected classes or joints to draw")
    for argument, given, task in (
        ("tile", tile, "segmentation"),
        ("boxes", boxes, "pose"),
        ("threshold", threshold is not None, "pose"),
    ):
        if given and spec.task != task:
            raise UsageError(f"`{argument}`: found it for {spec.name} ({spec.task}), expected it for {task}")
    if tile and (doubt := doubt_resolution(spec, tiles=True)):
        _log.warning("%s", doubt)
    if flip:
        inference = inference.mirrored(inference.labels)

    predictions: list[Prediction] = []
    broken, large = BrokenImages(broken_limit), 0
    with evaluation_mode(network):
        for start in range(0, len(items), inference.smallest):  # the smallest batch that the network takes
            batch = items[start : start + inference.smallest]
            pictures = _read(batch, broken, PICTURE_PIXELS if share is None else TILED_PICTURE_PIXELS)
            decisions = dict(
                zip(pictures, _decide(inference, pictures, share, persons, boxes, on_progress), strict=True)
            )
            for item in batch:
                if item.name not in pictures:
                    predictions.append(Prediction(item.name, None))
                    continue
                picture, decision = pictures[item.name], decisions[item.name]
                large += share is None and _is_squeezed(spec, picture)
                rows = describe_output(spec, decision, top, DECISIONS[spec.task], inference.names)
                if threshold is not None:
                    rows = [row for row in rows if float(row["score"]) >= threshold]
                if item.target:
                    with replacing(item.target) as temporary:
                        draw(inference, picture, decision, threshold).save(temporary)
                predictions.append(Prediction(item.name, rows, item.target))
            on_progress("predicting", min(start + inference.smallest, len(items)), len(items))
    if len(broken) == len(items):
        raise InputError(broken.names[0])
    for complaint in broken.names:
        _log.warning("left out: %s", complaint)
    if large:
        _tell_squeezed(spec, large)
    if not (pretrained or weights or has_weights(model)):
        _log.warning("%s (`pretrained`, `weights`)", UNTRAINED)
    return predictions


def _read(batch: Sequence[_Item], broken: BrokenImages, most_pixels: int) -> dict[str, Image.Image]:
    """Read the images that can be read; return their pictures by name."""
    pictures = {}
    for item in batch:
        try:
            pictures[item.name] = item.read(most_pixels)
        except InputError as error:
            broken.add([str(error)])
    return pictures


def _decide(
    inference: "Inference",
    pictures: dict[str, Image.Image],
    overlap: float | None,
    persons: "dict[str, list[Box]] | None",
    boxes: Path | None,
    on_progress: OnProgress,
) -> "Iterator[np.ndarray]":
    """Yield the network's decision for each picture: in tiles, from boxes, or on the whole picture."""
    from scalenet_zoo.data.detections import check_box
    from scalenet_zoo.inference.predict import predict_pictures
    from scalenet_zoo.inference.tiling import segment

    if overlap is not None:
        for name, picture in pictures.items():
            yield segment(inference, picture, overlap, on_rows=partial(_tell_rows, on_progress, name, picture.height))
        return
    for name, picture in pictures.items():
        for box in persons[name] if persons else ():
            check_box(box, picture.size, f"{boxes}: {name}")
    if pictures:
        given = [persons[name] for name in pictures] if persons else None
        yield from predict_pictures(inference, list(pictures.values()), given)


def _items(images: str | Path | Image.Image | Sequence[str | Path | Image.Image], output: Path | None) -> list[_Item]:
    """List every image once, with the PNG in `output` to draw it to; images from a folder keep their paths there."""
    found: dict[Path | int, _Item] = {}
    sources: dict[Path, Path] = {}
    for number, given in enumerate([images] if isinstance(images, str | Path | Image.Image) else images):
        if isinstance(given, Image.Image):
            target = output / f"image_{number}.png" if output else None
            found[number] = _Item(given, f"images[{number}]", target)
            continue
        given = user_path(given)
        if not os.path.exists(given):  # noqa: PTH110 - Path's own raises OSError for a name that is too long
            raise InputError(f"{given}: found no such file, expected an image")
        folder = given if given.is_dir() else given.parent
        for path in image_files(given) if given.is_dir() else [given]:
            if output and given.is_dir() and path.is_relative_to(output):  # an earlier drawing
                continue
            target = output / path.relative_to(folder).with_suffix(".png") if output else None
            if target and sources.setdefault(target, path) != path:
                raise InputError(
                    f"{path}: would be drawn to {target}, as would {sources[target]}, expected images with"
                    " different names"
                )
            found.setdefault(path, _Item(path, str(path), target))
    if not found and output:
        raise InputError(f"{output}: found the images in this folder, expected another folder to draw to")
    if not found:
        raise InputError("images: found none, expected some")
    inputs = {path.resolve() for path in found if isinstance(path, Path)}
    for item in found.values():
        if item.target and item.target.resolve() in inputs:
            raise InputError(
                f"{item.name}: would be drawn to {item.target}, which is an image itself, expected another folder"
            )
    return list(found.values())


def _check_boxes(boxes: Path, items: Sequence[_Item]) -> None:
    """Check that the file of boxes exists, and that images have file names, which identify their boxes."""
    try:
        regular_file(boxes)
    except ValueError as error:
        raise InputError(f"{boxes}: {error}") from None
    for item in items:
        if not isinstance(item.image, Path):
            raise UsageError(
                f"`boxes`: found {boxes} with {item.name}, expected image files: file names identify boxes"
            )


def _persons(boxes: Path, box_score: float, items: Sequence[_Item]) -> "dict[str, list[Box]]":
    """Read the boxes of the persons in each image file."""
    from scalenet_zoo.data.detections import boxes_of_files, read_detections

    paths = [item.image for item in items if isinstance(item.image, Path)]
    return {str(path): some for path, some in boxes_of_files(read_detections(boxes, box_score), paths, boxes).items()}


def _tell_rows(on_progress: OnProgress, name: str, height: int, rows: int) -> None:
    on_progress(f"rows of {Path(name).name}", rows, height)


def _is_squeezed(spec: "ArchSpec", picture: Image.Image) -> bool:
    """Tell whether a segmentation network sees a picture at less than half its height or width."""
    small = picture.width <= 2 * spec.input.width and picture.height <= 2 * spec.input.height
    return spec.task == "segmentation" and not small


def _tell_squeezed(spec: "ArchSpec", count: int) -> None:
    from scalenet_zoo.inference.tiling import learnt_own_resolution

    size = f"{spec.input.width} x {spec.input.height} pixels"
    whole = learnt_own_resolution(spec) is False
    _log.warning(
        "%s squeezed to less than half the width or height, to %s%s",
        "1 image was" if count == 1 else f"{count} images were",
        size,
        ", as in training" if whole else f": `tile` shows {spec.name} images at their own resolution",
    )
