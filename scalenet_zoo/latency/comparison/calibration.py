"""Images from which int8's ranges are found: the user's folder or the training split, never the judged images."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.crops import crop_person
from scalenet_zoo.data.examples import TRAINING, Examples, Person
from scalenet_zoo.data.image_files import find_images
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream

MOST_IMAGES = 128
"""The most calibration images."""
BROKEN = 8
"""The most unreadable images of a training split that are skipped."""


@dataclass(frozen=True)
class CalibrationImages:
    """A folder of calibration images.

    Attributes:
        folder: the folder.
        digest: the SHA-256 of the images, since other images make another int8 file.
    """

    folder: Path
    digest: str

    @classmethod
    def of_folder(cls, folder: Path, judged: Examples | Stream) -> CalibrationImages:
        """Take the images of a user's folder.

        Args:
            folder: the folder; its subfolders may have images, too.
            judged: the data that networks are judged on.

        Raises:
            InputError: there is no such folder, it has no images, or it has an image that networks are judged on.
        """
        images, _ = find_images(folder, MOST_IMAGES)
        names = _names(judged)
        if shared := [path for path in images if _absolute(str(path)) in names]:
            raise InputError(
                f"{folder}: found {shared[0].name}, which is in the split {judged.split} of {judged.source}, expected"
                " only images outside that split"
            )
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in images))
        return cls(folder, digest.hexdigest())

    @classmethod
    def of_training(
        cls, data: str | Examples | Stream, spec: ArchSpec, judged: Examples | Stream, folder: Path
    ) -> CalibrationImages:
        """Take images of the training split, spread evenly; for people, take the crops that a network sees.

        Args:
            data: the data as the user named it, or open examples.
            spec: the spec of the network.
            judged: the data that networks are judged on.
            folder: an empty folder, in which the images are written.

        Raises:
            InputError: there are no such images, or too many of them are unreadable.
        """
        training = _training_split(data, spec, judged)
        names, size = _names(judged), (spec.input.height, spec.input.width)
        digest, broken, written = hashlib.sha256(), 0, 0
        for place in range(count := min(MOST_IMAGES, len(training))):
            index = place * len(training) // count
            if _absolute(training.name(index)) in names:
                continue
            try:
                image, target = training.read(index)
            except InputError:
                if (broken := broken + 1) > BROKEN:
                    raise
                continue
            if isinstance(target, Person):
                image, _ = crop_person(image, target.box, size)
            digest.update(repr(image.size).encode() + image.tobytes())
            image.save(folder / f"{place:03}.png")
            written += 1
        if not written:
            raise InputError(_lacking(judged))
        return cls(folder, digest.hexdigest())


def _training_split(data: str | Examples | Stream, spec: ArchSpec, judged: Examples | Stream) -> Examples:
    """Open the training split of the judged data.

    Raises:
        InputError: there is none, or networks are judged on it.
    """
    if isinstance(data, str) and judged.split not in TRAINING:
        with suppress(InputError):
            training = open_data(data, spec.task, TRAINING[0])
            if not isinstance(training, Stream):
                return training
    raise InputError(_lacking(judged))


def _lacking(judged: Examples | Stream) -> str:
    return (
        f"`calibration`: found no training split besides {judged.split} of {judged.source}, expected a folder of images"
    )


def _names(examples: Examples | Stream) -> set[str]:
    """List the absolute paths of the examples; a stream has none."""
    if isinstance(examples, Stream):
        return set()
    return {_absolute(examples.name(i)) for i in range(len(examples))}


def _absolute(name: str) -> str:
    return os.path.abspath(name)  # noqa: PTH100 - for a million files, Path takes half a minute
