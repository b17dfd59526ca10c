"""Pose: persons of COCO keypoint files, with any joints; read, cut out and augmented."""

import contextlib
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from scalenet_zoo._files import read_yaml
from scalenet_zoo.data.crops import STRIDE, apply, crop_matrix, cut, draw_heatmaps, inverse
from scalenet_zoo.data.detections import Detection, check_box, read_detections
from scalenet_zoo.data.examples import Person, Region, find_split
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import normalisation, read_image
from scalenet_zoo.labels import Labels
from scalenet_zoo.recipe import Recipe
from scalenet_zoo.spec import ArchSpec, Task, first_complaint

_MIRRORED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_JOINTS = ("nose", *(f"{side}_{joint}" for joint in _MIRRORED for side in ("left", "right")))
USUAL_SIGMA = 0.079
"""For a joint of which nothing is known: that of COCO's shoulders."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Persons:
    """Examples that are persons, annotated or found by a detector: an image for each, though several may share a file.

    Attributes:
        files: of each person.
        sizes: width and height of each image, as the annotations have it.
        keypoints: float32 (persons, joints, 3), as `Person` has them.
        boxes: (persons, 4), areas: (persons,), image_ids and ids: integers (persons,).
        scores: (persons,): of the boxes.
        truth: of persons that a detector found: the COCO document about everybody in the images, as `oks.coco_figures`
            takes it.
        images: file, width and height of every image by its id, also of those with nobody in it.
        unlabelled: crowds and persons without joints, by the image's id.
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
        """A person, without the image."""
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
    """A folder with `annotations/person_keypoints_{split}.json` and `images/{split}/`, or `{split}/`.

    COCO's own split names are understood: `val` is also `val2017`. Crowds, and persons without any labelled joint, are
    left out.

    Args:
        source: as the user wrote it.
        root: the folder.
        split: which annotations.
        joints: a YAML file about the joints, see `read_joints`.
        boxes: a detector's, see `detections.read_detections`; the persons are those, without keypoints. None: the
            persons are those with keypoints.
        box_score: boxes of lower scores are left out.
        limit: take only so many of the images that `boxes` are for, spread evenly.

    Raises:
        InputError: something is missing or not as it should be.
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
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells how long it took
            coco = COCO(str(path))
        category = next((category for category in coco.loadCats(coco.getCatIds()) if category.get("keypoints")), None)
        if category is None:
            raise InputError(f"{path}: found no category with keypoints, expected one, such as person")
        labels = read_joints(path, category, joints)
        rows, truth = _annotated(path, coco, category, labels), None
        listed = {number: _image_file(f"{path}: image {number}", image) for number, image in coco.imgs.items()}
        unlabelled = _unlabelled(path, coco, category)
        if boxes:
            rows, truth = _detected(path, coco, category, read_detections(boxes, box_score, category["id"]), limit)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing, or no image has this id") from None
    except (OSError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as COCO keypoints: {' '.join(str(error).split())}") from None
    names, keypoints, places, areas, sizes, image_ids, ids, scores = zip(*rows, strict=True)
    return Persons(
        source,
        split,
        labels,
        [folder / name for name in names],
        sizes=np.array(sizes),
        keypoints=np.array(keypoints),
        boxes=np.array(places),
        areas=np.array(areas),
        image_ids=np.array(image_ids),
        ids=np.array(ids),
        scores=np.array(scores),
        truth=truth,
        images={number: (folder / name, size) for number, (name, size) in listed.items()},
        unlabelled=unlabelled,
    )


def read_sized(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read an image that is to have a width and height.

    Raises:
        InputError: it cannot be read, or has another size.
    """
    image = read_image(path)
    if image.size != size:
        raise InputError(f"{path}: found {image.size} pixels, expected {size}, as its annotations say")
    return image


def read_joints(path: Path, category: dict[str, Any], joints: Path | None = None) -> Labels:
    """Names, flip pairs, skeleton and sigmas of a data set's joints.

    Args:
        path: of the annotations, for messages.
        category: of the annotations: "keypoints" (the names), "skeleton" (pairs of numbers from 1), "sigmas" or
            "keypoint_sigmas" (optional).
        joints: a YAML file that says otherwise, in any of its fields: `names`, `flip_pairs` and `skeleton` (lists of
            pairs, of names or of numbers from 0), `sigmas` (a list, or numbers by name).

    Returns:
        What the YAML file says, else the annotations. Otherwise `left_` and `right_` in names tell the flip pairs, and
        joints have COCO's sigmas by their names, or `USUAL_SIGMA`, with a notice.

    Raises:
        InputError: one of them says something that cannot be.
    """
    said = _read_yaml(joints) if joints else {}
    where = joints or path
    names = tuple(map(str, category["keypoints"]))
    if "names" in said:
        if not isinstance(said["names"], list) or len(said["names"]) != len(names):
            raise InputError(f"{where}: names: found {said['names']!r}, expected {len(names)} names, one a joint")
        names = tuple(map(str, said["names"]))
    if len(set(names)) != len(names):
        raise InputError(f"{where}: names: found {list(names)}, expected different ones")
    skeleton = [[end - 1 for end in line] for line in category.get("skeleton") or []]
    pairs = [
        (names.index(name), names.index(other))
        for name in names
        if name.startswith("left_") and (other := "right_" + name.removeprefix("left_")) in names
    ]
    if "skeleton" in said:
        skeleton = _pairs(where, "skeleton", said["skeleton"], names)
    if "flip_pairs" in said:
        pairs = [(first, second) for first, second in _pairs(where, "flip_pairs", said["flip_pairs"], names)]
    flipped = [joint for pair in pairs for joint in pair]
    if len(set(flipped)) != len(flipped):
        raise InputError(
            f"{where}: flip_pairs: found {[list(pair) for pair in pairs]}, expected every joint once at most"
        )
    sigmas = said.get("sigmas") or category.get("sigmas") or category.get("keypoint_sigmas")
    try:
        return Labels.model_validate(
            {"names": names, "flip_pairs": pairs, "skeleton": skeleton, "sigmas": _sigmas(where, sigmas, names)},
            strict=False,
        )
    except ValidationError as error:
        raise InputError(f"{where}: {first_complaint(error)}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        said = read_yaml(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    fields = ("names", "flip_pairs", "skeleton", "sigmas")
    if not isinstance(said, dict) or (unknown := [key for key in said if key not in fields]):
        found = unknown[0] if isinstance(said, dict) else "no fields"
        raise InputError(f"{path}: found {found}, expected some of {', '.join(fields)}")
    return said


def _pairs(where: Path, field: str, pairs: Any, names: Sequence[str]) -> list[list[int]]:  # noqa: ANN401
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError(f"{where}: {field}: found {pairs!r}, expected a list of pairs")
    for joint in (joint for pair in pairs for joint in pair):
        known = joint in names if isinstance(joint, str) else type(joint) is int and 0 <= joint < len(names)
        if not known:
            raise InputError(
                f"{where}: {field}: found {joint!r}, expected the name of a joint, or 0 to {len(names) - 1}"
            )
    return [[names.index(joint) if isinstance(joint, str) else joint for joint in pair] for pair in pairs]


def _sigmas(where: Path, sigmas: Any, names: Sequence[str]) -> list[float]:  # noqa: ANN401
    if isinstance(sigmas, list):
        if len(sigmas) != len(names):
            raise InputError(f"{where}: sigmas: found {len(sigmas)}, expected {len(names)}, one a joint")
        return sigmas
    known = dict(zip(COCO_JOINTS, Params("keypoints").kpt_oks_sigmas.round(3).tolist(), strict=True))
    if isinstance(sigmas, dict):
        if unknown := [name for name in sigmas if name not in names]:
            raise InputError(f"{where}: sigmas: found {unknown[0]!r}, expected names among {', '.join(names)}")
        known |= sigmas
    elif sigmas is not None:
        raise InputError(f"{where}: sigmas: found {sigmas!r}, expected a list, or numbers by name")
    if unknown := [name for name in names if name not in known]:
        _log.warning("%s: no sigmas are known for %s: taken to be %s", where, ", ".join(unknown), USUAL_SIGMA)
    return [known.get(name, USUAL_SIGMA) for name in names]


def _annotated(path: Path, coco: COCO, category: dict[str, Any], labels: Labels) -> list[tuple[Any, ...]]:
    """Of each annotated person what `_read_person` gives."""
    annotations = coco.loadAnns(coco.getAnnIds(catIds=[category["id"]]))
    whole = [row for row in annotations if not row["iscrowd"] and any(row["keypoints"][2::3])]
    if not whole:
        found = f"{len(annotations)}, all of them crowds or without a labelled joint" if annotations else "none"
        raise InputError(
            f"{path}: found no persons with keypoints, expected some: of {category['name']} it has {found}"
        )
    images = coco.loadImgs([row["image_id"] for row in whole])
    return [_read_person(path, row, image, labels.names) for row, image in zip(whole, images, strict=True)]


def _unlabelled(path: Path, coco: COCO, category: dict[str, Any]) -> dict[int, tuple[Region, ...]]:
    """The crowds, and the persons without a labelled joint, of each image that has some."""
    found: dict[int, list[Region]] = {}
    for row in coco.loadAnns(coco.getAnnIds(catIds=[category["id"]])):
        if row["iscrowd"] or not any(row["keypoints"][2::3]):
            x, y, width, height = map(float, row["bbox"])
            try:
                outline = coco.annToRLE(row) if row.get("segmentation") else None
            except Exception as error:  # pycocotools raises many kinds, Exception itself among them
                raise InputError(f"{path}: annotation {row['id']}: segmentation: cannot be read: {error}") from None
            region = Region((x, y, width, height), float(row["area"]), bool(row["iscrowd"]), outline)
            found.setdefault(int(row["image_id"]), []).append(region)
    return {image: tuple(regions) for image, regions in found.items()}


def _detected(
    path: Path, coco: COCO, category: dict[str, Any], detections: Sequence[Detection], limit: int | None
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """The same of each person whom a detector found; and the truth about the images that it looked at."""
    numbers = sorted(coco.imgs)
    if limit and limit < len(numbers):
        numbers = [numbers[i * len(numbers) // limit] for i in range(limit)]
    images = dict(zip(numbers, coco.loadImgs(numbers), strict=True))
    by_name = {image["file_name"]: number for number, image in coco.imgs.items()}
    rows = []
    for place, one in enumerate(detections):
        number = by_name.get(one.image_id, one.image_id)
        if number not in coco.imgs:
            raise InputError(f"{path}: found no image {one.image_id}, for which there is a box, expected it")
        if number in images:
            where, (_, _, width, height) = f"the box {place}", one.bbox
            keypoints = np.zeros((len(category["keypoints"]), 3), np.float32)
            name, size = _image_file(f"{path}: {where}", images[number])
            check_box(one.bbox, size, f"{where} of {name}")
            rows.append((name, keypoints, one.bbox, width * height, size, number, place, one.score))
    if not rows:
        raise InputError(f"{path}: found none of its {len(images)} images among the boxes, expected boxes for them")
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=numbers, catIds=[category["id"]]))
    known = [
        {
            "id": place,
            "image_id": row["image_id"],
            "category_id": category["id"],
            "keypoints": row["keypoints"],
            "num_keypoints": sum(seen > 0 for seen in row["keypoints"][2::3]),
            "bbox": row["bbox"],
            "area": row["area"],
            "iscrowd": row["iscrowd"],
        }
        for place, row in enumerate(annotations, 1)
    ]
    if not any(row["num_keypoints"] and not row["iscrowd"] for row in known):
        raise InputError(f"{path}: found no persons with keypoints in {len(images)} of its images, expected some")
    return rows, {"images": [{"id": number} for number in numbers], "categories": [category], "annotations": known}


def _read_person(path: Path, row: dict[str, Any], image: dict[str, Any], joints: Sequence[str]) -> tuple[Any, ...]:
    """File, keypoints, box, area, size, ids of image and annotation, score."""
    where = f"{path}: annotation {row['id']}"
    keypoints = np.array(row["keypoints"], dtype=np.float32)
    if keypoints.size != 3 * len(joints) or not np.isfinite(keypoints).all():
        raise InputError(
            f"{where}: keypoints: found {keypoints.size} numbers, expected {3 * len(joints)}, all of them finite"
        )
    keypoints = keypoints.reshape(-1, 3)
    box = np.array(row["bbox"], dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2:].min() <= 0:
        raise InputError(f"{where}: bbox: found {row['bbox']}, expected x, y, width and height, above 0")
    if not math.isfinite(area := float(row["area"])):
        raise InputError(f"{where}: area: found {area}, expected a finite number")
    name, size = _image_file(where, image)
    off = ((keypoints[:, :2] < -1) | (keypoints[:, :2] > size)).any(1) & (keypoints[:, 2] > 0)  # by a pixel or more
    if off.any():
        joint = int(off.argmax())
        x, y = keypoints[joint, :2].tolist()
        raise InputError(
            f"{where}: keypoints: found {joints[joint]} (joint {joint}) at x {x:g}, y {y:g}, expected it within"
            f" {name} of {size[0]} x {size[1]} pixels, or not labelled"
        )
    return name, keypoints, box, area, size, int(row["image_id"]), int(row["id"]), 1.0


def _image_file(where: str, image: dict[str, Any]) -> tuple[Path, tuple[int, int]]:
    """An image's file, in the folder of images, and its width and height."""
    name = Path(image["file_name"])
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{where}: found the image {name}, expected one in the folder of images")
    return name, (int(image["width"]), int(image["height"]))


def augmentation(
    spec: ArchSpec, cfg: dict[str, Any], recipe: Recipe, labels: Labels
) -> Callable[[Image.Image, Person], tuple[Tensor, dict[str, Tensor]]]:
    """The training transform of a person: seen larger or smaller, turned, mirrored.

    Returns:
        A function to float32 (channels, height, width), normalised, and {"heatmaps": float32 (joints, height / 4,
        width / 4), "weights": float32 (joints,)}: 0 for joints that count for nothing.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    return partial(_augment, picture_transform(spec, cfg, recipe), spec, recipe, mirror_order(labels))


def picture_transform(spec: ArchSpec, cfg: dict[str, Any], recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """A training image as float32 (channels, height, width), normalised, its colours changed as the recipe says.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    jitter = recipe.color_jitter
    steps = [
        v2.ColorJitter(jitter, jitter, jitter) if jitter else None,
        v2.Grayscale() if spec.input.channels == 1 else None,
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(*normalisation(spec, cfg)),
        v2.ToPureTensor(),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose([step for step in steps if step])
    return transform


def mirror_order(labels: Labels) -> np.ndarray:
    """For each joint of a mirrored person, which one it was: left and right change places."""
    order = np.arange(len(labels.names))
    for first, second in labels.flip_pairs:
        order[[first, second]] = second, first
    return order


def _augment(
    transform: Callable[[Image.Image], Tensor],
    spec: ArchSpec,
    recipe: Recipe,
    mirror: np.ndarray,
    image: Image.Image,
    person: Person,
) -> tuple[Tensor, dict[str, Tensor]]:
    zoom = float(torch.empty(()).uniform_(*recipe.resize))
    turn = float(torch.empty(()).uniform_(-recipe.rotation, recipe.rotation))
    mirrored = float(torch.rand(())) < recipe.hflip
    size = recipe.train_size or (spec.input.height, spec.input.width)
    to_image = crop_matrix(person.box, size, zoom, turn, mirrored)
    keypoints = person.keypoints[mirror] if mirrored else person.keypoints
    points = apply(inverse(to_image), keypoints[:, :2].astype(np.float64))
    maps, weights = draw_heatmaps(
        points, keypoints[:, 2] > 0, (-(-size[0] // STRIDE), -(-size[1] // STRIDE)), recipe.heatmap_sigma
    )
    target = {"heatmaps": torch.from_numpy(maps), "weights": torch.from_numpy(weights)}
    return transform(cut(image, to_image, size)), target
