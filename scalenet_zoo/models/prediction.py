"""What a model says about images: rows for people and programs, and drawings over the images."""

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
    """What a model says about an image.

    Attributes:
        image: the file's path, as it was given or found; of a picture without a file its place: `images[0]`.
        rows: as `describe_output` makes them: a class, a class's area or a joint each; None: it cannot be read.
        drawn: the PNG with areas or joints drawn over the image; None: there is none.
    """

    image: str
    rows: "list[Row] | None"
    drawn: Path | None = None


@dataclass(frozen=True)
class _Item:
    """An image to be looked at, and the PNG to draw it to."""

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
    broken_limit: int = 100,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[Prediction]:
    """Predict classes, the classes' areas, or joints, for images; draw areas and joints.

    A pose network takes the whole image for one person's, or finds the person in each of the boxes given. Images that
    cannot be read, and what speaks against the figures, are logged as warnings.

    Args:
        model: what `create_model` takes, a file of `export` (ONNX, OpenVINO's IR, engine), or a network.
        images: files, folders of them, or pictures of PIL; None: two photographs that come with scikit-learn, of a
            Chinese palace and of a daisy.
        pretrained: load published weights.
        weights: a file of weights to load.
        top: rows for a classifier (the likeliest classes) or a segmentation network (the largest areas).
        output: a folder for PNGs, drawn over the images; one of a folder has the place that it has there.
        flip: take the mean of the outputs for each image and its mirror image.
        tile: show a segmentation network images at their own resolution, in overlapping tiles of its input.
        overlap: of tiles, as a share of a tile; None: 0.25.
        boxes: a file with a detector's boxes of persons, or annotations, for a pose network.
        box_score: boxes of lower scores are left out.
        broken_limit: images that may be unreadable.
        seed: of weights that are not loaded.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Returns:
        One for each image, in their order; a file that is named twice is looked at once.

    Raises:
        UsageError: arguments do not go together, or not with the model.
        ModelNotFoundError, SpecError, WeightsError, BackendError, EngineError: the model cannot be opened.
        InputError: no image can be read or too many cannot, boxes do not fit them, or two would be drawn to one file.
    """
    share = tile_overlap(tile, overlap)
    items = _items(sample_photographs() if images is None else images, user_path(output) if output else None)
    opened = check_model(model, pretrained, weights)
    boxes = user_path(boxes) if boxes else None
    if boxes:
        _check_boxes(boxes, items)

    import torch
    from torch import nn

    from scalenet_zoo.inference.draw import draw
    from scalenet_zoo.inference.predict import DECISIONS, describe_output
    from scalenet_zoo.inference.prepare import prepare_inference
    from scalenet_zoo.inference.tiling import doubt_resolution

    persons = _persons(boxes, box_score, items) if boxes else None
    network = open_model(opened, pretrained, weights, seed)
    gpu = "cuda" if torch.cuda.is_available() and network is not model else None
    inference = prepare_inference(network, gpu)
    spec = inference.spec
    if output and spec.task == "classification":
        raise UsageError(f"`output`: found it for the classifier {spec.name}, which has nothing to draw")
    for argument, given, task in (("tile", tile, "segmentation"), ("boxes", boxes, "pose")):
        if given and spec.task != task:
            raise UsageError(f"`{argument}`: found it for {spec.name} ({spec.task}), expected it for {task}")
    if tile and (doubt := doubt_resolution(spec, tiles=True)):
        _log.warning("%s", doubt)
    if flip:
        inference = inference.mirrored(inference.labels)

    predictions: list[Prediction] = []
    broken, large = BrokenImages(broken_limit), 0
    training = isinstance(network, nn.Module) and network.training
    try:
        if isinstance(network, nn.Module):
            network.eval()
        for start in range(0, len(items), inference.smallest):  # as many at once as the network takes at least
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
                if item.target:
                    with replacing(item.target) as temporary:
                        draw(inference, picture, decision).save(temporary)
                predictions.append(Prediction(item.name, rows, item.target))
            on_progress("predicting", min(start + inference.smallest, len(items)), len(items))
    finally:
        if isinstance(network, nn.Module):
            network.train(training)
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
    """The pictures of those images that can be read, by name."""
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
    """What the network makes of each picture: in tiles, from boxes, or whole."""
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
    """Every image once, with the PNG to draw it to: in `output`, one of a folder has the place that it has there."""
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
            if output and given.is_dir() and path.is_relative_to(output):  # drawn before
                continue
            target = output / path.relative_to(folder).with_suffix(".png") if output else None
            if target and sources.setdefault(target, path) != path:
                raise InputError(
                    f"{path}: would be drawn to {target} as {sources[target]} is, expected images of other names"
                )
            found.setdefault(path, _Item(path, str(path), target))
    if not found and output:
        raise InputError(f"{output}: found the images in the folder to draw to, expected another folder")
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
    """See that there is the file of boxes, and that images have names to find theirs by."""
    try:
        regular_file(boxes)
    except ValueError as error:
        raise InputError(f"{boxes}: {error}") from None
    for item in items:
        if not isinstance(item.image, Path):
            raise UsageError(f"`boxes`: found {boxes} with {item.name}, expected image files, whose names boxes have")


def _persons(boxes: Path, box_score: float, items: Sequence[_Item]) -> "dict[str, list[Box]]":
    """The boxes of the persons in each image file."""
    from scalenet_zoo.data.detections import boxes_of_files, read_detections

    paths = [item.image for item in items if isinstance(item.image, Path)]
    return {str(path): some for path, some in boxes_of_files(read_detections(boxes, box_score), paths, boxes).items()}


def _tell_rows(on_progress: OnProgress, name: str, height: int, rows: int) -> None:
    on_progress(f"rows of {Path(name).name}", rows, height)


def _is_squeezed(spec: "ArchSpec", picture: Image.Image) -> bool:
    """Whether a segmentation network sees less than half of a picture's height or width."""
    small = picture.width <= 2 * spec.input.width and picture.height <= 2 * spec.input.height
    return spec.task == "segmentation" and not small


def _tell_squeezed(spec: "ArchSpec", count: int) -> None:
    from scalenet_zoo.inference.tiling import learnt_own_resolution

    size = f"{spec.input.width} x {spec.input.height} pixels"
    whole = learnt_own_resolution(spec) is False
    _log.warning(
        "%s squeezed to less than half, to %s%s",
        "1 image was" if count == 1 else f"{count} images were",
        size,
        ", as in training" if whole else f": `tile` shows {spec.name} the image's own resolution",
    )
