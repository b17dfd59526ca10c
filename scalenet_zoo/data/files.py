"""Images in folders and in tar files, found by one set of rules; and the classes that their folders are.

A class is the first folder below its split, however deep its images lie; what systems hide there is passed over.
"""

import logging
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from timm.utils.misc import natural_key

from scalenet_zoo.arch.labels import spelling
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import is_folder
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.image_names import is_hidden, is_image

TAR = ".tar"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A file in a tar file: `size` bytes from `start`."""

    tar: str
    path: str
    start: int
    size: int


@dataclass(frozen=True)
class FoundImages:
    """An image.

    Attributes:
        folders: in which it lies, from the outermost; a tar file is a folder whose name ends in `.tar`.
        file: its path, or its place in a tar file.
    """

    folders: tuple[str, ...]
    file: str | Member

    @property
    def name(self) -> str:
        """Of the file, without its folders."""
        return PurePosixPath(self.file if isinstance(self.file, str) else self.file.path).name

    def order(self) -> tuple[object, ...]:
        """By which images are sorted: by their paths, with numbers in them as numbers."""
        path = (
            self.file if isinstance(self.file, str) else "/".join((*self.folders, PurePosixPath(self.file.path).name))
        )
        return natural_key(path), path

    def below(self, depth: int) -> "FoundImages":
        """The same without its outermost folders."""
        return FoundImages(self.folders[depth:], self.file)


def list_images(root: Path) -> list[FoundImages]:
    """The images in a folder and in the tar files and all folders in it, or in a tar file, sorted.

    Raises:
        InputError: a folder or tar file cannot be read, or one has a name that is no text.
    """
    found = _in_tar(root) if is_tar(root) else _in_folder(root, (), frozenset())
    return sorted(found, key=FoundImages.order)


def find_classes(root: Path) -> list[str]:
    """The names of the classes in a folder or tar file, as `name_classes` has them, without looking at each image.

    Raises:
        InputError: as `list_images` and `name_classes`.
    """
    inside = [] if is_tar(root) else [Path(entry.path) for entry in entries(root)]
    if is_tar(root) or any(map(is_tar, inside)):
        return name_classes(list_images(root), root)[0]
    firsts = [next(_in_folder(path, (path.name,), frozenset()), None) for path in inside if path.is_dir()]
    return name_classes([FoundImages(image.folders[:1], image.file) for image in firsts if image], root)[0]


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder, as in that of a class."""
    return is_folder(folder) and any(is_image(entry.name) for entry in entries(folder))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds and is not hidden, sorted.

    Raises:
        InputError: it cannot be read.
    """
    if os.path.isfile(folder):  # noqa: PTH113 - as is_tar
        raise InputError(f"{folder}: found a file, expected a folder, or a tar file that is not compressed (.tar)")
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder: {error.strerror or error}") from None


def is_tar(path: Path) -> bool:
    """Whether this is a tar file, by its name."""
    return path.suffix == TAR and os.path.isfile(path)  # noqa: PTH113 - Path raises for names that are too long


def _in_folder(folder: Path, folders: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[FoundImages]:
    """The images in a folder; links back to one of those `above` it are not followed."""
    try:
        status = folder.stat()
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder: {error.strerror or error}") from None
    here = status.st_dev, status.st_ino
    if here in above:
        return
    for entry in entries(folder):
        if entry.is_dir():
            yield from _in_folder(Path(entry.path), (*folders, _text(entry.name, folder)), above | {here})
        elif is_image(entry.name):
            yield FoundImages(folders, entry.path)
        elif not folders and is_tar(Path(entry.path)):
            for image in _in_tar(Path(entry.path)):
                yield FoundImages((*folders, _text(entry.name, folder), *image.folders), image.file)


def _in_tar(path: Path) -> list[FoundImages]:
    try:
        with tarfile.open(path, "r:") as tar:
            return _members(tar, path, path.name, 0)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a tar file with images: {said}; is it compressed?") from None


def _members(tar: tarfile.TarFile, path: Path, own_name: str, start: int, within: str = "") -> list[FoundImages]:
    """The images in an open tar file, and in tar files in it; one folder of its own name around all does not count.

    Args:
        tar: the file, open.
        path: of the file on the disk,
        start: in which the tar file begins here.
        own_name: of the tar file.
        within: what the names of members begin with.
    """
    images: list[FoundImages] = []
    for entry in tar:
        parts = [part for part in PurePosixPath(entry.name).parts if part not in ("/", "..")]
        parents, name = parts[:-1], "".join(parts[-1:])
        is_inner = name.endswith(TAR) and not is_hidden(name)
        if any(map(is_hidden, parents)) or not (is_inner or is_image(name)):
            continue
        if (file := _content(tar, entry)) is None:
            continue
        folders = tuple(_text(parent, path) for parent in parents)
        place, shown = start + file.offset_data, f"{within}{entry.name}"
        if is_inner:
            content = tar.extractfile(file)
            assert content is not None  # of a regular file
            with content, tarfile.open(fileobj=content, mode="r:") as child:
                inside = _members(child, path, name, place, f"{shown}/")
            images += [FoundImages((*folders, _text(name, path), *image.folders), image.file) for image in inside]
        else:
            images.append(FoundImages(folders, Member(str(path), shown, place, file.size)))
    if all(image.folders[:1] == (own_name.removesuffix(TAR),) for image in images):
        return [image.below(1) for image in images]
    return images


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The regular file that an entry is, or links to in the same tar file; None: it is none."""
    if entry.issym() or entry.islnk():
        target = posixpath.join(posixpath.dirname(entry.name), entry.linkname) if entry.issym() else entry.linkname
        try:
            entry = tar.getmember(posixpath.normpath(target))
        except KeyError:
            return None
    return entry if entry.isreg() and entry.sparse is None else None


def _text(name: str, where: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: found the folder {quoted(name)}, expected a name in UTF-8") from None
    return name


def name_classes(images: Sequence[FoundImages], where: Path | str) -> tuple[list[str], list[int]]:
    """The classes of a split's images.

    A class is the first folder below the split. A tar file there is a class if images lie directly in it; else its
    folders count as if they lay beside it.

    Args:
        images: with their folders below the split.
        where: the split, for messages.

    Returns:
        The names of the classes, with numbers in them sorted as numbers, and the place of each image's.

    Raises:
        InputError: there are no images, one lies in no folder, or it is not clear which folders are classes.
    """
    if not images:
        raise InputError(f"{where}: found no images, expected some, in a folder for each class")
    if stray := next((image for image in images if not image.folders), None):
        raise InputError(f"{where}: found {stray.name} outside of any class folder, expected a folder for each class")
    folders = _without_containers(images, where)
    for first, second in _doubles(folders):
        raise InputError(f"{where}: found both {first} and {second}, expected one for each class")
    deeper = next(("/".join(path[:2]) for path in folders if len(path) > 1), None)
    names = sorted({path[0] for path in folders}, key=lambda name: (natural_key(name), name))
    if deeper and len(names) == 1:
        raise InputError(f"{where}: found folders in the one folder {names[0]} ({deeper}): which of them are classes?")
    if deeper:
        _log.warning("%s: images lie in folders of folders (%s): the outer ones are the classes", where, deeper)
    places = {name: place for place, name in enumerate(names)}
    return [name.removesuffix(TAR) for name in names], [places[path[0]] for path in folders]


def _without_containers(images: Sequence[FoundImages], where: Path | str) -> list[tuple[str, ...]]:
    """The folders of each image, the first of which is its class: without tar files that but hold classes."""
    classes = {image.folders[0] for image in images if len(image.folders) == 1}
    held = {image.folders[:2] for image in images if image.folders[0].endswith(TAR)}
    held = {(tar, folder) for tar, *rest in held if tar not in classes for folder in rest}
    parts = {re.sub(r"\d+", "", tar) for tar, _ in held}
    if len(parts) > 1:  # they are not numbered parts of one whole
        tar, folder = min(held)
        raise InputError(f"{where}: found no image beside the folder {folder} in {tar}: which of the two is a class?")
    return [image.folders[1:] if image.folders[:2] in held else image.folders for image in images]


def _doubles(folders: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Folders that would be classes of one name: a folder and a tar file, or two of Unicode's forms of a name."""
    seen: dict[str, str] = {}
    for name in sorted({path[0] for path in folders}):
        if (other := seen.setdefault(spelling(name.removesuffix(TAR)), name)) != name:
            yield quoted(other), quoted(name)
