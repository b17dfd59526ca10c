"""Data sets for classification in folders or tar files, with one folder per class."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scalenet_zoo.arch.labels import Labels, class_labels, match_names
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.examples import SPLITS, TRAINING, find_split
from scalenet_zoo.data.files import (
    TAR,
    FoundImages,
    Member,
    entries,
    find_classes,
    has_images,
    is_tar,
    list_images,
    name_classes,
)
from scalenet_zoo.data.image_files import read_image


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Examples in image files, with one folder per class."""

    source: str
    split: str
    labels: Labels
    files: Sequence[str]
    targets: np.ndarray
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        return read_image(self.files[index]), int(self.targets[index])

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.files[index])


@dataclass(frozen=True, eq=False)
class TarMembers:
    """Examples in tar files. No file stays open, so that processes do not share a file's position."""

    source: str
    split: str
    labels: Labels
    members: Sequence[Member]
    targets: np.ndarray
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.members)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        member = self.members[index]
        try:
            with Path(member.tar).open("rb") as tar:
                tar.seek(member.start)
                content = tar.read(member.size)
        except OSError as error:
            raise InputError(f"{self.name(index)}: cannot be read: {error.strerror or error}") from None
        return read_image(io.BytesIO(content), self.name(index)), int(self.targets[index])

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.members[index].tar}:{self.members[index].path}"


def open_image_folder(source: str, root: Path, split: str) -> ImageFiles | TarMembers:
    """Open a folder with one folder, tar file or folder of tar files per split, or a tar file with a folder per split.

    The classes are those of the training split if there is one, because a small split may lack images of some classes.
    `data.files` defines what is an image and what is a class.

    Args:
        source: the data set, as the user named it.
        root: the folder or tar file.
        split: the split to open.

    Raises:
        InputError: there is no such folder or split, the split has no images, or it has a class that the training split
            lacks.
    """
    if is_tar(root):
        return _open_tar(source, root, split)
    if has_images(root):
        raise InputError(
            f"{source}: found images outside of class folders, expected class folders in {root}/train and /val"
        )
    parts = {
        path.name.removesuffix(TAR): path
        for path in (Path(entry.path) for entry in reversed(entries(root)))  # a folder comes before its tar file
        if path.is_dir() or is_tar(path)
    }
    try:
        split = find_split(split, parts.keys(), source)
    except InputError:
        if classes := [name for name, path in sorted(parts.items()) if has_images(path)]:
            raise InputError(_say_splits(source, root, classes)) from None
        raise
    images = list_images(parts[split])
    names, targets = name_classes(images, parts[split])
    training = next((name for name in TRAINING if name in parts), split)
    if training != split:
        names, targets = _number_as(find_classes(parts[training]), parts[training], names, targets, parts[split])
    return _examples(source, split, names, images, targets)


def _open_tar(source: str, root: Path, split: str) -> ImageFiles | TarMembers:
    """Open a tar file with a folder per split; if several folders have the name of the split, the outermost counts."""
    images = list_images(root)
    folders = {(depth, name.removesuffix(TAR)) for image in images for depth, name in enumerate(image.folders)}
    split = find_split(split, {name for _, name in folders}, source)
    depth = min(depth for depth, name in folders if name == split)
    parts: dict[str, list[FoundImages]] = {}
    for image in images:
        if len(image.folders) > depth:
            parts.setdefault(image.folders[depth].removesuffix(TAR), []).append(image.below(depth + 1))
    images, where = parts[split], f"{root}: {split}"
    names, targets = name_classes(images, where)
    training = next((name for name in TRAINING if name in parts), split)
    if training != split:
        known, _ = name_classes(parts[training], f"{root}: {training}")
        names, targets = _number_as(known, f"{root}: {training}", names, targets, where)
    return _examples(source, split, names, images, targets)


def _number_as(
    known: list[str], training: Path | str, names: list[str], targets: list[int], where: Path | str
) -> tuple[list[str], list[int]]:
    """Return the classes of the training split, and each image's class in another split as a number among them.

    Raises:
        InputError: the training split lacks a class.
    """
    numbers = match_names(known, names)
    for name, number in zip(names, numbers, strict=True):
        if number is None:
            raise InputError(f"{where}: found the class {name}, expected those of {training}")
    return known, [numbers[target] for target in targets]  # type: ignore[misc]


def _examples(
    source: str, split: str, names: list[str], images: list[FoundImages], targets: list[int]
) -> ImageFiles | TarMembers:
    labels = class_labels(source, names)
    members = [image.file for image in images if isinstance(image.file, Member)]
    if members and len(members) < len(images):
        raise InputError(f"{source}: found images both in tar files and outside in {split}, expected one of the two")
    if members:
        return TarMembers(source, split, labels, members, np.array(targets))
    return ImageFiles(source, split, labels, [str(image.file) for image in images], np.array(targets))


def _say_splits(source: str, root: Path, classes: Sequence[str]) -> str:
    """Return the message for a folder of classes without splits; it suggests the parent if the folder is a split."""
    shown = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    found = f"{source}: found {shown}, which look like classes, expected train and val with class folders in them"
    if root.absolute().name in SPLITS:
        return f"{found}: use {source.removesuffix(str(root))}{root.absolute().parent}"
    return found
