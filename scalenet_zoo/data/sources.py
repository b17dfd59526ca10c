"""From what a user writes after `--data` to examples."""

from pathlib import Path

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.data import pose, segmentation
from scalenet_zoo.data.classification import (
    Stream,
    open_hub_dataset,
    open_image_folder,
    open_stream,
    open_torchvision,
)
from scalenet_zoo.data.digits import open_digits
from scalenet_zoo.data.examples import Examples, Part
from scalenet_zoo.data.forms import parse_source


def open_data(
    source: str,
    task: Task,
    split: str,
    *,
    ignore_index: int | None = None,
    joints: Path | None = None,
    boxes: Path | None = None,
    box_score: float = 0.0,
    limit: int | None = None,
) -> Examples | Stream:
    """Open a data set.

    Args:
        source: one of `data.forms.FORMS`, or a folder; `~` is the user's home, here and in other paths.
        task: what it is for.
        split: which part: `train`, `val`, `test`, or another name that the data set has.
        ignore_index: of segmentation masks: the value of void pixels; None: 255, where `classes.json` says
            nothing else.
        joints: of persons: a YAML file about their joints, see `data.joints`.
        boxes: of persons: those that a detector found instead of the data set's own, see `pose.open_coco`.
        box_score: boxes of lower scores are left out.
        limit: take only so many examples, spread evenly; with `boxes` so many images.

    Raises:
        InputError: the source is of no known form, is not there, or is not as it should be.
    """
    kind, rest = parse_source(source, task)
    joints, boxes = joints and user_path(joints), boxes and user_path(boxes)
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise InputError(f"ignore index: found {ignore_index}, expected a number from 0 to 255")
    if joints and task != "pose":
        raise InputError(f"{joints}: found a file about joints for {task}, expected one for pose only")
    if boxes and task != "pose":
        raise InputError(f"{boxes}: found boxes of persons for {task}, expected them for pose only")
    if limit is not None and limit < 1:
        raise InputError(f"limit: found {limit}, expected a number of images, 1 or more")
    if boxes:
        return pose.open_coco(source, Path(rest), split, joints, boxes, box_score, limit)
    examples = _open(kind, rest, source, split, ignore_index, joints)
    if limit is None:
        return examples
    if isinstance(examples, Stream):
        raise InputError(f"{source}: found a limit, expected none: it is read in its own order")
    return Part(examples, limit)


def _open(
    kind: str, rest: str, source: str, split: str, ignore_index: int | None, joints: Path | None
) -> Examples | Stream:
    match kind:
        case "digits":
            return open_digits(source, split)
        case "imagefolder":
            return open_image_folder(source, Path(rest), split)
        case "torch":
            name, _, root = rest.partition(":")
            return open_torchvision(source, name, Path(root), split)
        case "hfds":
            return open_hub_dataset(source, rest, split)
        case "masks":
            return segmentation.open_masks(source, Path(rest), split, ignore_index)
        case "cityscapes":
            return segmentation.open_cityscapes(source, Path(rest), split)
        case "coco":
            return pose.open_coco(source, Path(rest), split, joints)
        case _:
            return open_stream(source, kind, rest, split)
