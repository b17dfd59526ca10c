"""COCO's annotation files: read and check them, count faulty annotations, and convert the outlines of people.

All data are checked here before they reach pycocotools, whose C code trusts its input.
"""

import logging
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, Strict, TypeAdapter, ValidationError

from scalenet_zoo.core.bounds import ANNOTATION_BYTES, JOINTS, OUTLINE_PIXELS, PICTURE_PIXELS
from scalenet_zoo.core.documents import first_complaint
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_json
from scalenet_zoo.core.quoting import printable, quoted
from scalenet_zoo.data.crops import Box

AREA = 0.53
"""A person's area as a share of the box: the mean in COCO."""
AREAS = (0.01, 1.05)
"""Smallest and largest valid area of a person, as shares of the box; in COCO they are 0.16 and 0.96."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


def _number(value: object) -> object:
    """Convert whole numbers that a program wrote as 3.0 or "0003"; return anything else unchanged."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number_or_name(value: object) -> int | str:
    value = _number(value)
    if isinstance(value, str):
        return value
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError("expected a whole number or a name")
    return value


def _flag(value: object) -> object:
    return int(bool(value)) if value is None or isinstance(value, bool) else _number(value)


def _nothing(value: object) -> object:
    """Replace null, which some programs write for an empty list."""
    return () if value is None else value


Id = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63), BeforeValidator(_number)]
ImageId = Annotated[int | str, BeforeValidator(_number_or_name)]
Flag = Annotated[int, Strict(), Field(ge=0, le=1), BeforeValidator(_flag)]
CocoNumber = Annotated[float, Strict()]
Places: TypeAlias = tuple[CocoNumber, CocoNumber, CocoNumber, CocoNumber]


class Lenient(BaseModel):
    """Base of the models below: unknown fields are ignored, because programs write many."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class Image(Lenient):
    """An image: its id, the path of its file, and its size in pixels."""

    id: ImageId
    file_name: str
    width: Id | None = None
    height: Id | None = None


class Category(Lenient):
    """A category of objects, with the names of their joints if they have any."""

    id: Id
    name: str = ""
    keypoints: Annotated[tuple[str, ...], BeforeValidator(_nothing)] = ()
    skeleton: Annotated[tuple[tuple[Id, Id], ...], BeforeValidator(_nothing)] = ()
    sigmas: Any = None
    keypoint_sigmas: Any = None


class Annotation(Lenient):
    """A person or an object in an image.

    Attributes:
        id: the id of the annotation; files with boxes only may omit it.
        image_id: the id of its image.
        category_id: the id of its category.
        bbox: x, y, width and height in pixels.
        keypoints: x, y and visibility of each joint, one after the other.
        area: the area in pixels, not checked yet.
        segmentation: the outline, not checked yet; see `outline`.
        iscrowd: 1 for a crowd.
        score: a detector's confidence.
    """

    id: Id | None = None
    image_id: ImageId
    category_id: Id
    bbox: Places | None = None
    keypoints: Annotated[tuple[CocoNumber, ...], FailFast(), BeforeValidator(_nothing)] = ()
    area: Any = None
    segmentation: Any = None
    iscrowd: Flag = 0
    score: CocoNumber = 1.0

    @property
    def where(self) -> str:
        """Its name in messages."""
        return "an annotation" if self.id is None else f"annotation {self.id}"


class CocoDocument(Lenient):
    """A whole file of annotations; `parse_document` checks that its ids refer to each other."""

    images: Annotated[tuple[Image, ...], FailFast()]
    categories: Annotated[tuple[Category, ...], FailFast()] = ()
    annotations: Annotated[tuple[Annotation, ...], FailFast()]


class Amiss:
    """A count of faulty items in a file: a few are reported in one warning, too many are refused.

    Args:
        source: the file, for messages.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._counts: dict[str, int] = {}
        self._firsts: dict[str, str] = {}

    def add(self, kind: str, complaint: str) -> None:
        """Count one faulty item.

        Args:
            kind: the kind of fault in words, with its consequence: "persons left out because of their boxes".
            complaint: the item, what was found and what was expected.
        """
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._firsts.setdefault(kind, complaint)

    def check(self, kind: str, total: int, most: float = 0.1) -> None:
        """Refuse a file with too many faulty items: the cause is then not a slip but, for example, another unit.

        Args:
            kind: as for `add`.
            total: the number of items, including correct ones.
            most: the share of items that may be faulty; one may always be, unless it is the only item.

        Raises:
            InputError: more items are faulty.
        """
        count = self._counts.get(kind, 0)
        if count and (count > max(1, most * total) or count == total):
            raise InputError(f"{self._source}: {self._firsts[kind]} ({count} of {total})")

    def tell(self) -> None:
        """Log one warning with all faults and their consequences; nothing if there are none."""
        if self._counts:
            said = "; ".join(f"{kind}: {count}, first {self._firsts[kind]}" for kind, count in self._counts.items())
            _log.warning("%s: %s", self._source, printable(said))


def read_document(path: Path) -> CocoDocument:
    """Read a file of annotations, and check that its ids refer to each other.

    Raises:
        InputError: the file cannot be read or is not in COCO's format; an id occurs twice or refers to nothing; or two
            images share a file.
    """
    return parse_document(path, read_value(path))


def read_value(path: Path) -> Any:  # noqa: ANN401 - JSON
    """Read the JSON of annotations or detections.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return read_json(path, ANNOTATION_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def parse_document(path: Path, value: object) -> CocoDocument:
    """Check the annotations of a file that was already read.

    Args:
        path: the file, for messages.
        value: its JSON.

    Raises:
        InputError: as for `read_document`.
    """
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {quoted(value)}, expected an object with images, annotations and categories")
    document = validated(path, TypeAdapter(CocoDocument), value)
    _unique(path, "images", "id", (image.id for image in document.images))
    _unique(path, "images", "file_name", (image.file_name for image in document.images))
    _unique(path, "categories", "id", (category.id for category in document.categories))
    _unique(path, "annotations", "id", (one.id for one in document.annotations if one.id is not None))
    images, categories = ({one.id for one in some} for some in (document.images, document.categories))
    for one in document.annotations:
        _known(path, one, "image_id", one.image_id, images)
        if categories:
            _known(path, one, "category_id", one.category_id, categories)
    return document


def validated(path: Path, adapter: TypeAdapter[_T], value: object) -> _T:
    """Validate a value with pydantic.

    Args:
        path: the file of the value, for messages.
        adapter: the expected type.
        value: the value.

    Raises:
        InputError: the value does not have this type.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(error)}") from None


def _unique(path: Path, field: str, key: str, values: Iterable[int | str]) -> None:
    seen: set[int | str] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{path}: {field}: found the {key} {quoted(value)} twice, expected it once")
        seen.add(value)


def _known(path: Path, one: Annotation, field: str, value: int | str, known: Collection[int | str]) -> None:
    if value not in known:
        raise InputError(
            f"{path}: {one.where}: {field}: found {quoted(value)}, expected one of the {len(known)} that are listed"
        )


def image_size(path: Path, image: Image) -> tuple[int, int]:
    """Return an image's width and height in pixels from the annotations.

    Raises:
        InputError: they are missing or out of range.
    """
    width, height = image.width, image.height
    if width is None or height is None:
        raise InputError(f"{path}: image {image.id}: width or height is missing, expected both")
    if min(width, height) < 1 or width * height > PICTURE_PIXELS:
        raise InputError(
            f"{path}: image {image.id}: found a size of {width} x {height} pixels, expected 1 to"
            f" {PICTURE_PIXELS:,} pixels"
        )
    return width, height


def box_complaint(box: Box, size: tuple[int, int]) -> str | None:
    """Return what is wrong with a box in a picture of this width and height; None: nothing.

    A box is wrong if it is less than a pixel wide or high, or if more than half of it is outside of the picture.
    """
    if complaint := sliver_complaint(box):
        return complaint
    inside = 1.0
    for start, length, most in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        inside *= max(0.0, min(start + length, most) - max(start, 0.0)) / length
    if inside < 0.5:
        return (
            f"bbox: found {_shown_box(box)}, outside of {size[0]} x {size[1]} pixels by more than half, expected x, y,"
            " width and height within the picture"
        )
    return None


def sliver_complaint(box: Box) -> str | None:
    """Return what is wrong with a box that is less than a pixel wide or high, maybe in another unit; None: nothing."""
    if min(box[2:]) < 1:
        return f"bbox: found {_shown_box(box)}, expected x, y, width and height in pixels, the last two 1 or more"
    return None


def _shown_box(box: Box) -> str:
    return f"[{', '.join(f'{value:g}' for value in box)}]"


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """Return the part of a box that is inside of a picture of this width and height."""
    if min(box) >= 0 and box[0] + box[2] <= size[0] and box[1] + box[3] <= size[1]:
        return box
    left, top, right, bottom = (
        min(max(place, 0.0), float(most))
        for place, most in zip((*box[:2], box[0] + box[2], box[1] + box[3]), (*size, *size), strict=True)
    )
    return left, top, max(right - left, 0.0), max(bottom - top, 0.0)


def area_complaint(area: object, box: Box) -> str | None:
    """Return what is wrong with the area of a person in this box, by which COCO's metrics divide; None: nothing."""
    whole = box[2] * box[3]
    least, most = (share * whole for share in AREAS)
    if type(area) in (int, float) and least <= area <= most and area > 0:  # type: ignore[operator]
        return None
    if area is None:
        return "area is missing"
    return f"area: found {quoted(area)}, expected {least:g} to {most:g} pixels in a box of {box[2]:g} x {box[3]:g}"


def outline(segmentation: Any, size: tuple[int, int], where: str) -> Mapping[str, Any] | None:  # noqa: ANN401
    """Convert the outline of a person to run lengths.

    Args:
        segmentation: polygons, [[x, y, x, y, ...], ...]; run lengths, {"size": [height, width], "counts": a list or
            COCO's compressed text}; or an empty value.
        size: width and height of the image in pixels.
        where: the file and the annotation, for messages.

    Returns:
        Run lengths in the form of pycocotools; None: the value is empty.

    Raises:
        InputError: the value has another form, or does not fit the image.
    """
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, dict):
            found: Any = {"size": [size[1], size[0]], "counts": _counts(segmentation, size)}
        else:
            found = _polygons(segmentation, size)
    except ValueError as error:
        raise InputError(f"{where}: segmentation: cannot be read: {error}") from None
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools and NumPy 2
        runs = coco_mask.frPyObjects(found, size[1], size[0])
        merged: Mapping[str, Any] = coco_mask.merge(runs) if isinstance(runs, list) else runs
    return merged


def _polygons(polygons: Any, size: tuple[int, int]) -> list[list[float]]:  # noqa: ANN401
    """Check polygons and clip them to the picture; points far outside of it are refused."""
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise ValueError(f"found {quoted(polygons)}, expected polygons, [[x, y, ...], ...], or run lengths")
    around, inside = 0.0, []
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(type(value) in (int, float) for value in polygon):
            raise ValueError(f"found {quoted(polygon)}, expected x and y of three points or more")
        points = np.array(polygon, np.float64).reshape(-1, 2)
        off = ((points < np.negative(size)) | (points > np.multiply(size, 2))).any(1)
        if off.any() or not np.isfinite(points).all():
            x, y = points[int(off.argmax())]
            raise ValueError(f"found a point at x {x:g}, y {y:g}, expected it within {size[0]} x {size[1]} pixels")
        points = points.clip(0, size)
        around += float(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum())
        inside.append(points.ravel().tolist())
    if around > OUTLINE_PIXELS:
        raise ValueError(f"found outlines {around:.3g} pixels long, expected at most {OUTLINE_PIXELS:,}")
    return inside


def _counts(segmentation: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    """Check that run lengths, as a list or in COCO's compressed text, fill the image; return them as a list."""
    counts, said = segmentation.get("counts"), segmentation.get("size")
    if said != [size[1], size[0]]:
        raise ValueError(f"found the size {quoted(said)}, expected [{size[1]}, {size[0]}], height and width")
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"found the counts {quoted(counts)}, expected lengths of runs, 0 or more")
    if (total := sum(counts)) != size[0] * size[1]:
        raise ValueError(f"found counts of {total} pixels in total, expected {size[0] * size[1]}")
    return counts


def _decompressed(text: str) -> list[int]:
    """Decode COCO's text of run lengths.

    Each character has 5 bits of a number. From the fourth number on, the text stores the difference to the number two
    places before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        part = ord(character) - 48
        if not 0 <= part < 64 or shift > 60:
            raise ValueError(f"found {quoted(character)} in the counts, expected COCO's compressed run lengths")
        value |= (part & 31) << shift
        shift += 5
        if not part & 32:
            value -= (part & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("found counts that are cut off, expected COCO's compressed run lengths")
    return counts


def same_joints(path: Path, categories: Sequence[Category]) -> list[Category]:
    """Return the categories with joints; there may be several if all have the same joints.

    Raises:
        InputError: there are none, or two have different joints.
    """
    found = [category for category in categories if category.keypoints]
    if not found:
        raise InputError(f"{path}: found no category with keypoints, expected one, such as person")
    if (count := len(found[0].keypoints)) > JOINTS:
        raise InputError(f"{path}: categories: found {count:,} keypoints, expected at most {JOINTS:,}")
    if other := next((one for one in found if one.keypoints != found[0].keypoints), None):
        first = found[0]
        raise InputError(
            f"{path}: categories: found keypoints {_shown(first)} and {_shown(other)}, expected the same"
            " for every category with keypoints, in one order"
        )
    return found


def _shown(category: Category) -> str:
    return f"{quoted(list(category.keypoints), 60)} of {quoted(category.name or category.id, 30)}"
