"""Open the examples of the data set that a user names with `--data`."""

from pathlib import Path

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.data import pose, segmentation
from scalenet_zoo.data.digits import open_digits
from scalenet_zoo.data.examples import Examples, Part
from scalenet_zoo.data.forms import parse_source
from scalenet_zoo.data.image_folder import open_image_folder
from scalenet_zoo.data.libraries import open_hub_dataset, open_torchvision
from scalenet_zoo.data.streams import Stream, open_stream


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
        source: one of `data.forms.FORMS`, or a folder; `~` is the user's home folder, here and in the other paths.
        task: the task that the data are for.
        split: the part of the data: `train`, `val`, `test`, or another name in the data set.
        ignore_index: for segmentation: the value of void pixels in masks; None: 255, unless `classes.json` says
            otherwise.
        joints: for pose: a YAML file about the joints, see `data.joints`.
        boxes: for pose: a file with a detector's boxes, which replace those of the data set, see `pose.open_coco`.
        box_score: boxes with lower scores are left out.
        limit: the number of examples to use, spread evenly; with `boxes`, the number of images.

    Raises:
        InputError: the source has none of the known forms, does not exist, or is not valid.
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
        raise InputError(f"{source}: found a limit, expected none: this data set is read in its own order")
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
