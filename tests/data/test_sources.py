"""Data sets by the names that users give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from tests.helpers.data_files import (
    examples_of,
    pixels,
)


def test_digits_are_divided_once_and_for_all() -> None:
    train, val = (open_data("digits", "classification", split) for split in ("train", "validation"))
    assert not isinstance(train, Stream)
    assert not isinstance(val, Stream)
    assert (len(train), len(val)) == (1437, 360)
    assert (train.split, val.split) == ("train", "val")
    assert val.labels.names == tuple("0123456789")
    counts = np.bincount([val.read(i)[1] for i in range(len(val))])  # type: ignore[arg-type]
    assert counts.min() >= 34
    assert not {image for image, _ in pixels(train)} & {image for image, _ in pixels(val)}
    image, _ = val.read(0)
    assert (image.size, image.mode) == ((8, 8), "RGB")
    again = open_data("digits", "classification", "val")
    assert not isinstance(again, Stream)
    assert pixels(again) == pixels(val)
    with pytest.raises(InputError, match="digits: found no split test, expected one of train, val$"):
        open_data("digits", "classification", "test")


@pytest.mark.parametrize(
    ("source", "task", "kwargs", "complaint"),
    [
        (
            "nowhere",
            "classification",
            {},
            "nowhere: found no such data for classification, expected a folder or digits or",
        ),
        ("digits:8", "classification", {}, "found no such data"),
        ("imagefolder:", "classification", {}, "found no such data"),
        ("torch:mnist", "classification", {}, "found no such data"),
        ("digits", "pose", {}, "digits: found no such data for pose, expected a folder or coco:PATH"),
        ("imagefolder:nowhere", "classification", {}, "nowhere: cannot be read as a folder: No such file"),
        ("digits", "classification", {"limit": 0}, "limit: found 0, expected a number of images, 1 or more"),
        ("digits", "classification", {"joints": Path("joints.yaml")}, "joints.yaml: found a file about joints"),
        (
            "masks:nowhere",
            "segmentation",
            {"ignore_index": 256},
            "ignore index: found 256, expected a number from 0 to",
        ),
        ("masks:nowhere", "segmentation", {}, "found no lists of names"),
        ("cityscapes:nowhere", "segmentation", {}, "cannot be opened: Dataset not found or incomplete"),
        ("coco:nowhere", "pose", {}, "found no split val, expected one of train, val, test: it is empty"),
    ],
)
def test_sources_that_cannot_be(source: str, task: Task, kwargs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        open_data(source, task, "val", **kwargs)
    assert "\n" not in str(caught.value)


def test_a_limit_takes_examples_of_every_class(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path, "train", limit=3)
    assert [target for _, target in pixels(examples)] == [0, 1, 2]
    assert examples.name(2) == str(tmp_path / "train" / "eel" / "0.png")
    assert (examples.task, examples.split, examples.labels.names[2]) == ("classification", "train", "eel")
    many = open_data(str(tmp_path), "classification", "train", limit=1000)
    assert not isinstance(many, Stream)
    assert len(many) == 12
