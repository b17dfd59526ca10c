"""Images that int8's ranges are taken from: a folder of the user's, or some of the training split, never the judged."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.crops import crop_person
from scalenet_zoo.data.examples import TRAINING, Examples, Person
from scalenet_zoo.data.image_files import find_images
from scalenet_zoo.data.sources import open_data

MOST_IMAGES = 128
"""At most so many."""
BROKEN = 8
"""Images of a training split that may be unreadable."""


@dataclass(frozen=True)
class CalibrationImages:
    """A folder of images.

    Attributes:
        folder: the folder.
        digest: of the images: other ones make another file.
    """

    folder: Path
    digest: str

    @classmethod
    def of_folder(cls, folder: Path, judged: Examples | Stream) -> CalibrationImages:
        """Images of the user's.

        Args:
            folder: with images, and with folders of them.
            judged: the data that networks are judged on.

        Raises:
            InputError: there is no folder, no image in it, or one of the data's.
        """
        images, _ = find_images(folder, MOST_IMAGES)
        names = _names(judged)
        if shared := [path for path in images if _absolute(str(path)) in names]:
            raise InputError(
                f"{folder}: found {shared[0].name}, which is in the split {judged.split} of {judged.source}, expected"
                " images to calibrate with that are not judged"
            )
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in images))
        return cls(folder, digest.hexdigest())

    @classmethod
    def of_training(
        cls, data: str | Examples | Stream, spec: ArchSpec, judged: Examples | Stream, folder: Path
    ) -> CalibrationImages:
        """Images of the training split, spread evenly over it: of persons, the crops that a network sees.

        Args:
            data: as the user names it.
            spec: of the network.
            judged: what networks are judged on.
            folder: where to write them, empty.

        Raises:
            InputError: there are no such images.
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
    """The training split of what is judged by another one.

    Raises:
        InputError: there is none.
    """
    if isinstance(data, str) and judged.split not in TRAINING:
        with suppress(InputError):
            training = open_data(data, spec.task, TRAINING[0])
            if not isinstance(training, Stream):
                return training
    raise InputError(_lacking(judged))


def _lacking(judged: Examples | Stream) -> str:
    return (
        f"int8: found no training split beside {judged.split} of {judged.source} to calibrate with, expected a folder"
        " of images as `calibration`"
    )


def _names(examples: Examples | Stream) -> set[str]:
    """The files of examples, as far as they are files."""
    if isinstance(examples, Stream):
        return set()
    return {_absolute(examples.name(i)) for i in range(len(examples))}


def _absolute(name: str) -> str:
    return os.path.abspath(name)  # noqa: PTH100 - of a million files, a Path takes half a minute
