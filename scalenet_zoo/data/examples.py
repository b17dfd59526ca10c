"""The parts of a data set: images, each with a target."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import LoadingError

IGNORE = 255
"""The class of void pixels in a mask, which are ignored."""

TRAINING = ("train", "training")
"""Names of the training split, whose classes define the numbers of the classes."""
_SYNONYMS = (TRAINING, ("val", "valid", "validation", "eval", "evaluation"), ("test", "testing"))
SPLITS = frozenset(name for names in _SYNONYMS for name in names)
"""Common names of splits."""


@dataclass(frozen=True, eq=False)
class Person:
    """A person in an image.

    Attributes:
        keypoints: float32 (joints, 3): x and y in pixels, and 0 if not labelled, 1 if hidden, 2 if visible. As in COCO,
            the centre of an image's first pixel is (0, 0).
        box: x, y, width and height in pixels; the image's upper left corner is (0, 0).
        area: the area of the person in pixels.
        image_id: the id of the image in its data set.
        id: the id of the annotation in its data set.
        score: a detector's confidence in the box; 1 for boxes of the data set.
    """

    keypoints: np.ndarray
    box: tuple[float, float, float, float]
    area: float
    image_id: int
    id: int = -1
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class Crop:
    """A person in the crop that a network sees.

    Attributes:
        person: the person, in coordinates of the whole image.
        to_image: float64 (2, 3): maps (x, y, 1), with x and y as shares of the crop's width and height, to pixels of
            the whole image.
    """

    person: Person
    to_image: np.ndarray


@dataclass(frozen=True, eq=False)
class Region:
    """A region of an image with people whose joints are not labelled.

    Attributes:
        box: as in `Person`.
        area: the area in pixels.
        crowd: whether it holds many people, or an unknown number.
        outline: run lengths in the form of pycocotools; None: not known.
    """

    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    outline: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class People:
    """All people in an image.

    Attributes:
        image_id: the id of the image in its data set.
        persons: those with labelled joints.
        unlabelled: regions with the others.
    """

    image_id: int
    persons: tuple[Person, ...]
    unlabelled: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """A whole image that a network sees, with all people in it.

    Attributes:
        people: the people, in coordinates of the whole image.
        to_image: as in `Crop`.
    """

    people: People
    to_image: np.ndarray


Target: TypeAlias = int | np.ndarray | Person | People
"""The target of an image: its class; a mask, uint8 (height, width), with the class of each pixel or `IGNORE`; one
person; or all people in it."""


class Examples(Protocol):
    """Images with targets, in a fixed order.

    Attributes:
        task: the task that the targets are for.
        labels: the labels of the classes or joints.
        source: the data set, as the user named it.
        split: the part of the data set.
    """

    @property
    def task(self) -> Task: ...  # noqa: D102
    @property
    def labels(self) -> Labels: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Image.Image, Target]:
        """Read an RGB image and its target.

        Raises:
            InputError: one of them cannot be read; the message begins with `name(index)` or the name of the file.
        """
        ...

    def name(self, index: int) -> str:
        """Return the name of an example in messages, such as the path of its file."""
        ...


@dataclass(frozen=True)
class Part:
    """A subset of other examples, spread evenly over them."""

    whole: Examples
    limit: int

    @property
    def task(self) -> Task:  # noqa: D102
        return self.whole.task

    @property
    def labels(self) -> Labels:  # noqa: D102
        return self.whole.labels

    @property
    def source(self) -> str:  # noqa: D102
        return self.whole.source

    @property
    def split(self) -> str:  # noqa: D102
        return self.whole.split

    def __len__(self) -> int:
        return min(self.limit, len(self.whole))

    def read(self, index: int) -> tuple[Image.Image, Target]:  # noqa: D102
        return self.whole.read(self._place(index))

    def name(self, index: int) -> str:  # noqa: D102
        return self.whole.name(self._place(index))

    @property
    def targets(self) -> np.ndarray | None:
        """The class of each example, int (examples,); None: it is not known without reading them."""
        targets = known_targets(self.whole)
        return None if targets is None else targets[[self._place(index) for index in range(len(self))]]

    def _place(self, index: int) -> int:
        return index * len(self.whole) // len(self)


def known_targets(examples: object) -> np.ndarray | None:
    """Return the class of each example, int (examples,); None: it is not known without reading them."""
    targets = getattr(examples, "targets", None)
    return targets if isinstance(targets, np.ndarray) else None


def known_classes(labels: Labels, classes: int) -> int:
    """Return the number of classes that targets may have.

    Args:
        labels: the labels of the data.
        classes: the number of classes of the network.

    Returns:
        The number of labels, at most `classes`; without labels, `classes`.
    """
    return min(len(labels.names) or classes, classes)


def check_class(target: object, classes: int, name: str) -> None:
    """Refuse a target that is not the number of a class.

    Args:
        target: the target.
        classes: the number of classes, see `known_classes`.
        name: the name of the example in the message.

    Raises:
        LoadingError: the target is not an integer from 0 to `classes` - 1.
    """
    if not isinstance(target, int | np.integer) or not 0 <= target < classes:
        raise LoadingError(f"{name}: found the class {quoted(target)}, expected a number from 0 to {classes - 1}")


def find_split(split: str, available: Collection[str], source: str) -> str:
    """Find a split by its name or by a synonym: `val` also stands for `validation`.

    Args:
        split: the name that the user gave.
        available: the names of the splits in the data set.
        source: the name of the data set in the message.

    Returns:
        The name of the split in the data set.

    Raises:
        InputError: there is no such split; the message lists the available ones.
    """
    if split in available:
        return split
    synonyms: tuple[str, ...] = next((names for names in _SYNONYMS if split in names), ())
    for name in synonyms:
        if name in available:
            return name
    shown = ", ".join(sorted(available)[:10]) + (", ..." if len(available) > 10 else "")
    raise InputError(f"{source}: found no split {split}, expected one of {shown or 'train, val, test: it is empty'}")
