"""What a data set is: images, each with what is known about it."""

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
"""Class of the pixels of a mask that count for nothing: void."""

TRAINING = ("train", "training")
"""Names of the split that classes are numbered by."""
_SYNONYMS = (TRAINING, ("val", "valid", "validation", "eval", "evaluation"), ("test", "testing"))
SPLITS = frozenset(name for names in _SYNONYMS for name in names)
"""Usual names of splits."""


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody in an image.

    Attributes:
        keypoints: float32 (joints, 3): x and y in pixels, and 0 if not labelled, 1 if hidden, 2 if visible. As COCO
            counts, the centre of an image's first pixel is (0, 0).
        box: x, y, width and height in pixels; the image's upper left corner is (0, 0).
        area: of the person, in pixels.
        image_id: of the image, in its data set.
        id: of the annotation, in its data set.
        score: how sure a detector is of the box; 1 for the data set's own.
    """

    keypoints: np.ndarray
    box: tuple[float, float, float, float]
    area: float
    image_id: int
    id: int = -1
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class Crop:
    """A person that a network sees.

    Attributes:
        person: in the whole image.
        to_image: float64 (2, 3): from (x, y, 1), x and y as shares of the crop's width and height, to the person's
            pixels.
    """

    person: Person
    to_image: np.ndarray


@dataclass(frozen=True, eq=False)
class Region:
    """Where there are people of whom no joints are known.

    Attributes:
        box: as `Person` has it.
        area: in pixels.
        crowd: there are many, or their number is not known.
        outline: run lengths, as pycocotools has them; None: not known.
    """

    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    outline: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class People:
    """Everybody in an image.

    Attributes:
        image_id: of the image, in its data set.
        persons: with joints.
        unlabelled: the others.
    """

    image_id: int
    persons: tuple[Person, ...]
    unlabelled: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """A whole image that a network sees, with everybody in it.

    Attributes:
        people: in the whole image.
        to_image: as `Crop` has it.
    """

    people: People
    to_image: np.ndarray


Target: TypeAlias = int | np.ndarray | Person | People
"""What is known about an image: its class; uint8 (height, width), the class of each pixel, or `IGNORE`; a person of it,
or everybody in it."""


class Examples(Protocol):
    """Images with targets, in a fixed order.

    Attributes:
        task: what the targets are for.
        labels: of the classes or joints.
        source: where they are from, as the user wrote it.
        split: which part of it.
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
        """An RGB image and its target.

        Raises:
            InputError: one of them cannot be read; the message begins with `name(index)`.
        """
        ...

    def name(self, index: int) -> str:
        """What messages call an example: its file."""
        ...


@dataclass(frozen=True)
class Part:
    """Some of other examples, spread evenly over them."""

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
        """The class of each example, where that is known without reading it."""
        targets = known_targets(self.whole)
        return None if targets is None else targets[[self._place(index) for index in range(len(self))]]

    def _place(self, index: int) -> int:
        return index * len(self.whole) // len(self)


def known_targets(examples: object) -> np.ndarray | None:
    """The class of each example, where that is known without reading it."""
    targets = getattr(examples, "targets", None)
    return targets if isinstance(targets, np.ndarray) else None


def known_classes(labels: Labels, classes: int) -> int:
    """How many classes targets may be of: those that the data name, if they name any, of so many of a network."""
    return min(len(labels.names) or classes, classes)


def check_class(target: object, classes: int, name: str) -> None:
    """Refuse a target that is none of so many classes; see `known_classes`.

    Raises:
        LoadingError: it is; `name` is what the message calls the example.
    """
    if not isinstance(target, int | np.integer) or not 0 <= target < classes:
        raise LoadingError(f"{name}: found the class {quoted(target)}, expected a number from 0 to {classes - 1}")


def find_split(split: str, available: Collection[str], source: str) -> str:
    """A split by its name or another usual one: `val` is also `validation`.

    Raises:
        InputError: there is none; the message names those that there are.
    """
    if split in available:
        return split
    synonyms: tuple[str, ...] = next((names for names in _SYNONYMS if split in names), ())
    for name in synonyms:
        if name in available:
            return name
    shown = ", ".join(sorted(available)[:10]) + (", ..." if len(available) > 10 else "")
    raise InputError(
        f"{source}: found no split {split}, expected one of {shown or 'train, val, test: it holds nothing'}"
    )
