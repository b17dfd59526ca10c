"""Boxes of persons that a detector found, in COCO's format for results or in a file of annotations."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import FailFast, TypeAdapter

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.coco import (
    Amiss,
    Category,
    CocoNumber,
    Flag,
    Id,
    ImageId,
    Lenient,
    Places,
    box_complaint,
    parse_document,
    read_value,
    sliver_complaint,
    validated,
)
from scalenet_zoo.data.crops import Box

PERSON = 1
"""The number of COCO's category person."""


class Detection(Lenient):
    """A box around a person or an object.

    Attributes:
        image_id: the number of the image, or the name of its file.
        category_id: the category of the content.
        bbox: x, y, width and height in pixels, as in `Person.box`.
        score: the detector's confidence; 1 for boxes that people drew.
        iscrowd: 1 for a box around a crowd; such boxes are left out.
    """

    image_id: ImageId
    category_id: Id
    bbox: Places
    score: CocoNumber = 1.0
    iscrowd: Flag = 0


_RESULTS = TypeAdapter(Annotated[tuple[Detection, ...], FailFast()])
_SLIVERS = "boxes less than a pixel wide or high, left out"


def read_detections(path: Path, min_score: float = 0.0, categories: Mapping[int, str] | None = None) -> list[Detection]:
    """Read boxes of persons.

    Args:
        path: a JSON file: a list of {"image_id", "category_id", "bbox", "score"}, as detectors for COCO write it; or a
            file of annotations, {"images": [{"id", "file_name"}], "annotations": [...]}, in whose boxes the numbers of
            images are replaced by the names of the files.
        min_score: boxes with lower scores are left out.
        categories: the numbers of the categories of persons, with their names, by which they are found in a file of
            annotations; None: in a file of annotations the categories with keypoints, or named person; otherwise
            COCO's, 1. If a file of annotations has only one category, that one is used.

    Raises:
        InputError: the file cannot be read, has no persons with such scores, or more than a tenth of the boxes are less
            than a pixel wide or high. Fewer such boxes are left out with a warning.
    """
    value = read_value(path)
    numbers: Collection[int] = categories or (PERSON,)
    if isinstance(value, list):
        found = validated(path, _RESULTS, value)
    else:
        document = parse_document(path, value)
        if document.categories:
            numbers = _persons(path, document.categories, categories)
        names = {image.id: image.file_name for image in document.images}
        whole = [one for one in document.annotations if one.category_id in numbers and not one.iscrowd]
        if lacking := next((one for one in whole if one.bbox is None), None):
            raise InputError(f"{path}: {lacking.where}: bbox is missing, expected it")
        found = tuple(
            Detection(image_id=names[one.image_id], category_id=one.category_id, bbox=one.bbox, score=one.score)
            for one in document.annotations
            if one.bbox is not None and not one.iscrowd
        )
    persons = [box for box in found if box.category_id in numbers and not box.iscrowd]
    if not persons:
        others = sorted({box.category_id for box in found})[:5]
        raise InputError(
            f"{path}: found {len(found)} boxes{f' of the categories {others}' if others else ''}, expected some of"
            f" category {' or '.join(map(str, sorted(numbers)[:5]))}, persons"
        )
    if not (sure := [box for box in persons if box.score >= min_score]):
        raise InputError(
            f"{path}: found scores of {max(box.score for box in persons):.6g} at most, expected some of at least"
            f" {min_score:g}"
        )
    return _without_slivers(path, sure)


def _persons(path: Path, listed: Sequence[Category], known: Mapping[int, str] | None) -> Collection[int]:
    """Return the categories of persons in a file of annotations, by name; if names are unknown, by their joints."""
    names = {name.casefold() for name in (known or {}).values() if name} or {"person"}
    found = {one.id for one in listed if one.name.casefold() in names}
    found = (found if known else {one.id for one in listed if one.keypoints}) or found
    if not found and len(listed) == 1:
        return {listed[0].id}
    if not found and any(one.name for one in listed):
        raise InputError(
            f"{path}: categories: found {quoted([one.name for one in listed])}, expected {' or '.join(sorted(names))}"
        )
    return found or known or (PERSON,)


def _without_slivers(path: Path, boxes: Sequence[Detection]) -> list[Detection]:
    amiss, whole = Amiss(path), []
    for place, one in enumerate(boxes):
        if complaint := sliver_complaint(one.bbox):
            amiss.add(_SLIVERS, f"box {place} in image {quoted(one.image_id)}: {complaint}")
        else:
            whole.append(one)
    amiss.check(_SLIVERS, len(boxes))
    amiss.tell()
    return whole


def check_box(box: Box, size: tuple[int, int], where: str) -> None:
    """Refuse a box that does not fit its picture.

    Args:
        box: x, y, width and height in pixels.
        size: width and height of the picture in pixels.
        where: the source of the box and its picture, for the message.

    Raises:
        InputError: the box is less than a pixel wide or high, or more than half of it is outside of the picture.
    """
    if complaint := box_complaint(box, size):
        raise InputError(f"{where}: {complaint}")


def boxes_of_files(detections: Sequence[Detection], files: Sequence[Path], source: Path) -> dict[Path, list[Box]]:
    """Assign boxes to image files.

    A box belongs to a file if the number of its image is the name of the file (139 for 000000000139.jpg), or if the
    name of its image is that of the file, with or without suffix and folders (b, b.jpg or far/b.jpg for far/b.jpg).

    Args:
        detections: boxes from `read_detections`.
        files: the image files.
        source: the file of the boxes, for messages.

    Returns:
        The boxes of each file, by falling score; an empty list for a file without boxes.

    Raises:
        InputError: no box belongs to any of the files.
    """
    boxes: dict[int | str, list[Detection]] = defaultdict(list)
    for one in detections:
        boxes[one.image_id if isinstance(one.image_id, int) else str(PurePosixPath(one.image_id))].append(one)
    found = {}
    for file in files:
        keys: list[int | str] = [int(file.stem)] if file.stem.isdecimal() else []
        for path in (file, file.with_suffix("")):
            keys += ["/".join(path.parts[place:]) for place in range(len(path.parts))]
        own = [one for key in dict.fromkeys(keys) for one in boxes.get(key, ())]
        found[file] = [one.bbox for one in sorted(own, key=lambda one: -one.score)]
    if not any(found.values()):
        names = ", ".join(map(str, list(boxes)[:3]))
        raise InputError(
            f"{source}: found boxes for the images {names}, expected some for {files[0]}: image_id must be the name of"
            " a file"
        )
    return found
