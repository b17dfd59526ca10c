"""Top-down pose estimation: read persons from COCO keypoint files, annotated or found by a detector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.coco import (
    AREA,
    Amiss,
    Annotation,
    Category,
    CocoDocument,
    area_complaint,
    box_complaint,
    clipped,
    image_size,
    outline,
    read_document,
    same_joints,
)
from scalenet_zoo.data.detections import PERSON, Detection, read_detections
from scalenet_zoo.data.examples import Person, Region, find_split
from scalenet_zoo.data.image_files import read_oriented
from scalenet_zoo.data.joints import read_joints

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class Persons:
    """Examples that are single persons, annotated or found by a detector; several of them may be in the same image.

    Attributes:
        files: the image file of each person.
        sizes: int (persons, 2): width and height of each person's image, from the annotations.
        keypoints: float32 (persons, joints, 3), as in `Person`.
        boxes: float (persons, 4), as in `Person`.
        areas: float (persons,), in pixels.
        image_ids: int (persons,).
        ids: int (persons,), of the annotations.
        scores: float (persons,), of the boxes.
        truth: for persons that a detector found: a COCO document with all people in the images, for `oks.oks_figures`;
            None: the persons are annotated.
        images: file, width and height of every image by its id, including images without people.
        unlabelled: crowds and persons without labelled joints, by the id of the image.
    """

    source: str
    split: str
    labels: Labels
    files: Sequence[Path]
    sizes: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    image_ids: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    truth: dict[str, Any] | None = None
    images: Mapping[int, tuple[Path, tuple[int, int]]] = field(default_factory=dict)
    unlabelled: Mapping[int, tuple[Region, ...]] = field(default_factory=dict)
    task: Task = "pose"

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, Person]:  # noqa: D102
        return read_sized(self.files[index], tuple(self.sizes[index].tolist())), self.person(index)

    def person(self, index: int) -> Person:
        """Return a person without the image."""
        box: tuple[float, float, float, float] = tuple(self.boxes[index].tolist())
        return Person(
            self.keypoints[index],
            box,
            float(self.areas[index]),
            int(self.image_ids[index]),
            int(self.ids[index]),
            float(self.scores[index]),
        )

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.files[index])


def open_coco(
    source: str,
    root: Path,
    split: str,
    joints: Path | None = None,
    boxes: Path | None = None,
    box_score: float = 0.0,
    limit: int | None = None,
) -> Persons:
    """Open a folder with `annotations/person_keypoints_{split}.json` and `images/{split}/` or `{split}/`.

    COCO's names of splits are understood: `val` also stands for `val2017`. The persons come from all categories with
    keypoints, without crowds and persons without a labelled joint. Faults of single persons are corrected and logged;
    if many persons have faults, the file is refused. See `_read_people`.

    Args:
        source: the data set, as the user named it.
        root: the folder.
        split: the split to open.
        joints: a YAML file about the joints, see `joints.read_joints`.
        boxes: a file with a detector's boxes, see `detections.read_detections`: the examples are then these boxes,
            without keypoints. None: the examples are the annotated persons.
        box_score: boxes with lower scores are left out.
        limit: the number of images to use with `boxes`, spread evenly.

    Raises:
        InputError: something is missing or not valid.
    """
    prefix = "person_keypoints_"
    files = {path.stem.removeprefix(prefix): path for path in (root / "annotations").glob(f"{prefix}*.json")}
    years = {name.removesuffix("2017"): name for name in files}
    found = find_split(split, {*files, *years}, source)
    found = found if found in files else years[found]
    path = files[found]
    folder = next((folder for folder in (root / "images" / found, root / found) if folder.is_dir()), None)
    if folder is None:
        raise InputError(f"{source}: found no folder {found}, expected the images in images/{found} or {found}")
    document = read_document(path)
    categories = same_joints(path, document.categories)
    labels = read_joints(path, categories[0], joints)
    listed = _image_files(path, document)
    persons, unlabelled = _read_people(path, document, categories, listed, labels.names)
    truth = None
    if boxes:
        found_boxes = read_detections(boxes, box_score, {category.id: category.name for category in categories})
        looked_at = sorted(listed)
        if limit and limit < len(looked_at):
            looked_at = [looked_at[i * len(looked_at) // limit] for i in range(limit)]
        truth = _truth(path, looked_at, persons, unlabelled, labels.names)
        persons = _detected(path, {number: listed[number] for number in looked_at}, listed, found_boxes, labels.names)
    places = [listed[one.image_id] for one in persons]
    return Persons(
        source,
        split,
        labels,
        [folder / name for name, _ in places],
        sizes=np.array([size for _, size in places]),
        keypoints=np.array([one.keypoints for one in persons]),
        boxes=np.array([one.box for one in persons]),
        areas=np.array([one.area for one in persons]),
        image_ids=np.array([one.image_id for one in persons]),
        ids=np.array([one.id for one in persons]),
        scores=np.array([one.score for one in persons]),
        truth=truth,
        images={number: (folder / name, size) for number, (name, size) in listed.items()},
        unlabelled=unlabelled,
    )


def read_sized(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read an image, and check that its labels belong to the upright image.

    Args:
        path: the file.
        size: width and height in pixels, according to the annotations.

    Raises:
        InputError: the image cannot be read, has another size, or has an EXIF orientation, and the labels may belong to
            its stored pixels, because the sizes do not decide.
    """
    image, orientation = read_oriented(path)
    stored = image.size[::-1] if orientation > 4 else image.size
    if size not in (image.size, stored):
        raise InputError(f"{path}: found {image.size} pixels, expected {size}, as its annotations say")
    if orientation != 1 and size == stored:
        raise InputError(
            f"{path}: found the EXIF orientation {orientation}, expected none: labels may belong to the stored pixels;"
            " if they do, delete the tag, otherwise save the image upright"
        )
    return image


_Listed = Mapping[int, tuple[Path, tuple[int, int]]]
"""Each image's path in the folder of images, and its width and height, by the image's id."""

_OUTSIDE = "joints outside of their images, treated as not labelled"
_BOXES = "persons left out because of their boxes"
_AREAS = f"areas replaced by {AREA} of the boxes"


def _image_files(path: Path, document: CocoDocument) -> _Listed:
    listed = {}
    for image in document.images:
        if isinstance(image.id, str):
            raise InputError(f"{path}: images: found the id {quoted(image.id)}, expected whole numbers")
        name = Path(image.file_name)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{path}: image {image.id}: found the path {name}, expected one in the folder of images")
        listed[image.id] = name, image_size(path, image)
    return listed


def _read_people(
    path: Path, document: CocoDocument, categories: Sequence[Category], listed: _Listed, joints: Sequence[str]
) -> tuple[list[Person], dict[int, tuple[Region, ...]]]:
    """Return the persons with labelled joints, and crowds and all other persons by the ids of their images.

    A few joints outside of their images are treated as not labelled. A few persons whose boxes are outside of their
    images or far from their joints are treated as persons without joints. Areas that do not fit the boxes are estimated
    from the boxes.

    Raises:
        InputError: no person has a labelled joint, more than a tenth of the joints or boxes have faults, or an
            annotation is not valid.
    """
    amiss = Amiss(path)
    numbers = {category.id for category in categories}
    people = [one for one in document.annotations if one.category_id in numbers]
    places = [listed[int(one.image_id)] for one in people]
    keypoints = _keypoints(path, people, places, joints, amiss)
    persons: list[Person] = []
    regions: dict[int, list[Region]] = {}
    labelled_joints = np.count_nonzero(keypoints[..., 2], axis=1)
    for one, (name, size), points, labelled in zip(people, places, keypoints, labelled_joints.tolist(), strict=True):
        if one.bbox is None or one.id is None:
            raise InputError(f"{path}: {one.where}: {'id' if one.id is None else 'bbox'} is missing, expected it")
        complaint = (box_complaint(one.bbox, size) or _apart(points, one.bbox)) if labelled else None
        if labelled and not complaint:
            persons.append(Person(points, one.bbox, _area(one, one.bbox, amiss), int(one.image_id), one.id))
            continue
        shape = outline(one.segmentation, size, f"{path}: {one.where}")
        if complaint:
            amiss.add(_BOXES, f"{one.where} of {name}: {complaint}")
            region = Region(box := _around(points), AREA * box[2] * box[3], crowd=False, outline=shape)
        else:
            box = clipped(one.bbox, size)
            region = Region(box, _area(one, box, amiss), bool(one.iscrowd), shape)
        regions.setdefault(int(one.image_id), []).append(region)
    amiss.check(_BOXES, int((labelled_joints > 0).sum()))
    if not persons:
        found = f"{len(people)}, all of them crowds or without a labelled joint" if people else "none"
        names = ", ".join(category.name for category in categories)
        raise InputError(f"{path}: found no persons with keypoints, expected some: of {names} it has {found}")
    amiss.tell()
    return persons, {image: tuple(some) for image, some in regions.items()}


def _keypoints(
    path: Path,
    people: Sequence[Annotation],
    places: Sequence[tuple[Path, tuple[int, int]]],
    joints: Sequence[str],
    amiss: Amiss,
) -> np.ndarray:
    """Return float32 (people, joints, 3), as in `Person`; 0 for joints that are not labelled, and for crowds.

    Joints that are more than a pixel outside of their images are treated as not labelled.
    """
    count, rows = 3 * len(joints), []
    for one in people:
        if len(one.keypoints) not in (0, count):
            found = f"found {len(one.keypoints)} numbers, expected {count}"
            raise InputError(f"{path}: {one.where}: keypoints: {found}")
        rows.append((0.0,) * count if one.iscrowd or not one.keypoints else one.keypoints)
    keypoints = np.array(rows, np.float64).reshape(-1, len(joints), 3)
    keypoints[keypoints[..., 2] <= 0] = 0
    keypoints[..., 2] = keypoints[..., 2].clip(0, 2)
    sizes = np.array([size for _, size in places]).reshape(-1, 1, 2)
    off = np.asarray(((keypoints[..., :2] < -1) | (keypoints[..., :2] > sizes)).any(2))
    for person, joint in zip(*(axis.tolist() for axis in off.nonzero()), strict=True):
        x, y = keypoints[person, joint, :2].tolist()
        name, (width, height) = places[person]
        amiss.add(
            _OUTSIDE,
            f"{people[person].where}: keypoints: found {quoted(joints[joint])} (joint {joint}) at x {x:g}, y {y:g},"
            f" expected it within {name} of {width} x {height} pixels",
        )
    amiss.check(_OUTSIDE, int((keypoints[..., 2] > 0).sum()))
    keypoints[off] = 0
    return keypoints.astype(np.float32)


def _apart(keypoints: np.ndarray, box: tuple[float, float, float, float]) -> str | None:
    """Return what is wrong with a box that is far from all labelled joints, maybe in another unit; None: nothing."""
    x, y, width, height = box
    if any(
        seen and x - width <= across <= x + 2 * width and y - height <= down <= y + 2 * height
        for across, down, seen in keypoints.tolist()
    ):
        return None
    return f"bbox: found [{x:g}, {y:g}, {width:g}, {height:g}], far from all joints, expected it around them"


def _around(keypoints: np.ndarray) -> tuple[float, float, float, float]:
    """Return the square around the labelled joints: x, y, width and height in pixels."""
    points = keypoints[keypoints[:, 2] > 0, :2].astype(np.float64)
    side = max(1.0, float(np.ptp(points, axis=0).max()))
    left, top = ((points.min(0) + points.max(0) - side) / 2).tolist()
    return left, top, side, side


def _area(one: Annotation, box: tuple[float, float, float, float], amiss: Amiss) -> float:
    """Return the area of a person in pixels; if it is not valid, record that and estimate it from the box."""
    if complaint := area_complaint(one.area, box):
        amiss.add(_AREAS, f"{one.where}: {complaint}")
        return AREA * box[2] * box[3]
    return float(one.area)


def _truth(
    path: Path,
    images: Sequence[int],
    persons: Sequence[Person],
    unlabelled: Mapping[int, Sequence[Region]],
    joints: Sequence[str],
) -> dict[str, Any]:
    """Return a COCO document with all people in some images, in one category, for `oks.oks_figures`."""
    within = set(images)
    nothing = np.zeros((len(joints), 3))
    everybody: list[tuple[int, Person | Region, np.ndarray, bool]] = [
        (one.image_id, one, one.keypoints, False) for one in persons if one.image_id in within
    ]
    if not everybody:
        raise InputError(f"{path}: found no persons with keypoints in {len(images)} of its images, expected some")
    everybody += [(image, one, nothing, one.crowd) for image in images for one in unlabelled.get(image, ())]
    return {
        "images": [{"id": image} for image in images],
        "categories": [{"id": PERSON, "name": "person"}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": PERSON,
                "keypoints": keypoints.astype(np.float64).ravel().tolist(),
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "bbox": list(one.box),
                "area": one.area,
                "iscrowd": int(crowd),
            }
            for number, (image, one, keypoints, crowd) in enumerate(everybody, 1)
        ],
    }


def _detected(
    path: Path, looked_at: _Listed, listed: _Listed, detections: Sequence[Detection], joints: Sequence[str]
) -> list[Person]:
    """Return the persons that a detector found in the images in `looked_at`."""
    amiss = Amiss(path)
    by_name = {str(name): number for number, (name, _) in listed.items()}
    keypoints = np.zeros((len(joints), 3), np.float32)
    persons, boxes = [], 0
    for place, one in enumerate(detections):
        number = by_name.get(str(PurePath(one.image_id)), -1) if isinstance(one.image_id, str) else one.image_id
        if number not in listed:
            raise InputError(f"{path}: found no image {quoted(one.image_id)}, expected it because a box refers to it")
        if number in looked_at:
            boxes += 1
            name, size = looked_at[number]
            if complaint := box_complaint(one.bbox, size):
                amiss.add(_BOXES, f"box {place} in {name}: {complaint}")
            else:
                persons.append(Person(keypoints, one.bbox, one.bbox[2] * one.bbox[3], number, place, one.score))
    if not boxes:
        raise InputError(f"{path}: found no boxes for its {len(looked_at)} images, expected some")
    amiss.check(_BOXES, boxes)
    amiss.tell()
    return persons
