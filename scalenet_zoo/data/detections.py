"""Persons that a detector found: COCO's results format, or an annotations file with their boxes."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from scalenet_zoo.data.crops import Box
from scalenet_zoo.errors import InputError
from scalenet_zoo.spec import first_complaint

PERSON = 1
"""COCO's category."""

Length = Annotated[float, Field(gt=0)]


class _Lenient(BaseModel):
    """Other fields than ours do not matter: detectors write many."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Detection(_Lenient):
    """A box of somebody or something.

    Attributes:
        image_id: the image's number, or its file's name.
        category_id: what is in the box.
        bbox: x, y, width and height in pixels, as `Person.box` has them.
        score: how sure the detector is; 1 for boxes that people drew.
        iscrowd: whether it is of many; those are left out.
    """

    image_id: int | str
    category_id: int
    bbox: tuple[float, float, Length, Length]
    score: float = 1.0
    iscrowd: int = 0


class _Image(_Lenient):
    id: int | str
    file_name: str


class _Category(_Lenient):
    id: int
    name: str = ""
    keypoints: tuple[str, ...] = ()


class _Annotations(_Lenient):
    images: tuple[_Image, ...]
    annotations: tuple[Detection, ...]
    categories: tuple[_Category, ...] = ()


_RESULTS = TypeAdapter(tuple[Detection, ...])


def read_detections(path: Path, min_score: float = 0.0, category: int | None = None) -> list[Detection]:
    """Read persons' boxes.

    Args:
        path: a JSON file: a list of {"image_id", "category_id", "bbox", "score"}, as COCO's detectors write them; or an
            annotations file, {"images": [{"id", "file_name"}], "annotations": [...]}, whose image numbers become the
            files' names.
        min_score: boxes of lower scores are left out.
        category: of persons; None: the one with keypoints in an annotations file, else COCO's, 1.

    Raises:
        InputError: the file cannot be read, or has no persons with such scores.
    """
    categories: tuple[_Category, ...] = ()
    try:
        content = path.read_bytes()
        if content.lstrip().startswith(b"["):
            found = _RESULTS.validate_json(content)
        else:
            document = _Annotations.model_validate_json(content)
            names = {image.id: image.file_name for image in document.images}
            found = tuple(
                box.model_copy(update={"image_id": names.get(box.image_id, box.image_id)})
                for box in document.annotations
            )
            categories = document.categories
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(error)}") from None
    if category is None:
        category = next((known.id for known in categories if known.keypoints), PERSON)
    persons = [box for box in found if box.category_id == category and not box.iscrowd]
    if not persons:
        others = sorted({box.category_id for box in found})[:5]
        raise InputError(
            f"{path}: found {len(found)} boxes{f' of the categories {others}' if others else ''}, expected some of"
            f" category {category}, persons"
        )
    if not (sure := [box for box in persons if box.score >= min_score]):
        raise InputError(
            f"{path}: found scores of {max(box.score for box in persons):.6g} at most, expected some of at least"
            f" {min_score:g}"
        )
    return sure


def check_box(box: Box, size: tuple[int, int], where: str) -> None:
    """Refuse a box that is not of a picture.

    Args:
        box: x, y, width and height in pixels.
        size: the picture's width and height.
        where: the box is from, and of which picture.

    Raises:
        InputError: more than half of the box is outside of the picture.
    """
    inside = 1.0
    for start, length, most in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        inside *= max(0.0, min(start + length, most) - max(start, 0.0)) / length
    if inside < 0.5:
        found = ", ".join(f"{value:g}" for value in box)
        raise InputError(
            f"{where}: bbox: found [{found}], outside of {size[0]} x {size[1]} pixels by more than half, expected x, y,"
            " width and height within the picture"
        )


def boxes_of_files(detections: Sequence[Detection], files: Sequence[Path], source: Path) -> dict[Path, list[Box]]:
    """The boxes in image files, those of the highest score first.

    A box belongs to a file if its image's number is the file's name (139 to 000000000139.jpg), or its image's name the
    file's, with or without suffix and folders (b, b.jpg and far/b.jpg to far/b.jpg).

    Args:
        detections: of `read_detections`.
        files: of the images; one without boxes has none.
        source: where the boxes are from, for messages.

    Raises:
        InputError: there are boxes for none of the files.
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
            f"{source}: found boxes for the images {names}, expected some for {files[0]}: image_id is a file's name"
        )
    return found
