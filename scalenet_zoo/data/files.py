"""Find images in folders and tar files by the same rules, and the classes that their folders stand for.

A class is the first folder below its split, however deep its images lie in it. Hidden files and folders are ignored.
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
    """An image that was found in a folder or in a tar file.

    Attributes:
        folders: the folders around it, from the outermost; a tar file counts as a folder whose name ends in `.tar`.
        file: its path, or its place in a tar file.
    """

    folders: tuple[str, ...]
    file: str | Member

    @property
    def name(self) -> str:
        """The name of the file without its folders."""
        return PurePosixPath(self.file if isinstance(self.file, str) else self.file.path).name

    def order(self) -> tuple[object, ...]:
        """Return the key for sorting images: by path, with the numbers in it compared as numbers."""
        path = (
            self.file if isinstance(self.file, str) else "/".join((*self.folders, PurePosixPath(self.file.path).name))
        )
        return natural_key(path), path

    def below(self, depth: int) -> "FoundImages":
        """Return the image without its outermost `depth` folders."""
        return FoundImages(self.folders[depth:], self.file)


def list_images(root: Path) -> list[FoundImages]:
    """List the images in a folder, with its subfolders and tar files, or in a tar file; sorted.

    Raises:
        InputError: a folder or tar file cannot be read, or the name of a folder is not valid UTF-8.
    """
    found = _in_tar(root) if is_tar(root) else _in_folder(root, (), frozenset())
    return sorted(found, key=FoundImages.order)


def find_classes(root: Path) -> list[str]:
    """Return the names of the classes in a folder or tar file, like `name_classes`, without listing each image.

    Raises:
        InputError: as for `list_images` and `name_classes`.
    """
    inside = [] if is_tar(root) else [Path(entry.path) for entry in entries(root)]
    if is_tar(root) or any(map(is_tar, inside)):
        return name_classes(list_images(root), root)[0]
    firsts = [next(_in_folder(path, (path.name,), frozenset()), None) for path in inside if path.is_dir()]
    return name_classes([FoundImages(image.folders[:1], image.file) for image in firsts if image], root)[0]


def has_images(folder: Path) -> bool:
    """Return whether images lie directly in a folder, as in the folder of a class."""
    return is_folder(folder) and any(is_image(entry.name) for entry in entries(folder))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the sorted entries of a folder, without hidden ones.

    Raises:
        InputError: it is not a folder, or cannot be read.
    """
    if os.path.isfile(folder):  # noqa: PTH113 - as is_tar
        raise InputError(f"{folder}: found a file, expected a folder, or an uncompressed tar file (.tar)")
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder: {error.strerror or error}") from None


def is_tar(path: Path) -> bool:
    """Return whether a path is an existing file with the name of a tar file."""
    return path.suffix == TAR and os.path.isfile(path)  # noqa: PTH113 - Path raises for names that are too long


def _in_folder(folder: Path, folders: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[FoundImages]:
    """Yield the images in a folder; links back to a folder in `above` are not followed."""
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
    """List the images in an open tar file and in tar files inside it.

    A single folder with the tar file's own name around all images does not count.

    Args:
        tar: the open tar file.
        path: the file on the disk, which may be an outer tar file.
        own_name: the name of the tar file.
        start: the byte in `path` at which the tar file begins.
        within: the prefix for the names of its members.
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
            assert content is not None  # because it is a regular file
            with content, tarfile.open(fileobj=content, mode="r:") as child:
                inside = _members(child, path, name, place, f"{shown}/")
            images += [FoundImages((*folders, _text(name, path), *image.folders), image.file) for image in inside]
        else:
            images.append(FoundImages(folders, Member(str(path), shown, place, file.size)))
    if all(image.folders[:1] == (own_name.removesuffix(TAR),) for image in images):
        return [image.below(1) for image in images]
    return images


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return the regular file that an entry is, or links to in the same tar file; None: there is no such file."""
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
    """Return the classes of a split's images.

    A class is the first folder below the split. A tar file in the place of such a folder is a class if images lie
    directly in it; otherwise its folders count as if they were next to it.

    Args:
        images: the images, with their folders below the split.
        where: the split, for messages.

    Returns:
        The names of the classes, sorted with their numbers compared as numbers; and the class of each image, as a place
        among the names.

    Raises:
        InputError: there are no images, an image is in no folder, or it is unclear which folders are classes.
    """
    if not images:
        raise InputError(f"{where}: found no images, expected some in one folder per class")
    if stray := next((image for image in images if not image.folders), None):
        raise InputError(f"{where}: found {stray.name} outside of any class folder, expected one folder per class")
    folders = _without_containers(images, where)
    for first, second in _doubles(folders):
        raise InputError(f"{where}: found both {first} and {second}, expected one folder per class")
    deeper = next(("/".join(path[:2]) for path in folders if len(path) > 1), None)
    names = sorted({path[0] for path in folders}, key=lambda name: (natural_key(name), name))
    if deeper and len(names) == 1:
        raise InputError(f"{where}: found one folder {names[0]} with folders in it ({deeper}), expected one per class")
    if deeper:
        _log.warning("%s: found images in nested folders (%s): the outer folders are the classes", where, deeper)
    places = {name: place for place, name in enumerate(names)}
    return [name.removesuffix(TAR) for name in names], [places[path[0]] for path in folders]


def _without_containers(images: Sequence[FoundImages], where: Path | str) -> list[tuple[str, ...]]:
    """Return the folders of each image, its class first, without the tar files that only hold class folders."""
    classes = {image.folders[0] for image in images if len(image.folders) == 1}
    held = {image.folders[:2] for image in images if image.folders[0].endswith(TAR)}
    held = {(tar, folder) for tar, *rest in held if tar not in classes for folder in rest}
    parts = {re.sub(r"\d+", "", tar) for tar, _ in held}
    if len(parts) > 1:  # they are not numbered parts of one data set
        tar, folder = min(held)
        raise InputError(f"{where}: found only the folder {folder} in {tar}, expected images directly in a class file")
    return [image.folders[1:] if image.folders[:2] in held else image.folders for image in images]


def _doubles(folders: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of folders for the same class: a folder and a tar file, or two Unicode forms of the same name."""
    seen: dict[str, str] = {}
    for name in sorted({path[0] for path in folders}):
        if (other := seen.setdefault(spelling(name.removesuffix(TAR)), name)) != name:
            yield quoted(other), quoted(name)
