"""Classification: whatever timm reads, as examples."""

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from timm.data import ImageNetInfo, IterableImageDataset, create_dataset
from timm.data.readers import create_reader
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from scalenet_zoo.data.examples import find_split
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import read_image
from scalenet_zoo.labels import Labels
from scalenet_zoo.spec import Task

_PACKAGES = {
    "hfds": ("datasets", "scalenet-zoo[data]"),
    "hfids": ("datasets", "scalenet-zoo[data]"),
    "wds": ("webdataset", "scalenet-zoo[data]"),
    "tfds": ("tensorflow_datasets", "tensorflow-datasets"),
}


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Examples that are files, one folder a class."""

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


@dataclass(frozen=True)
class Member:
    """A file in a tar file: `size` bytes from `start`."""

    tar: str
    path: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class TarMembers:
    """Examples in tar files. Nothing is kept open, so that processes do not share a file's position."""

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


@dataclass(frozen=True, eq=False)
class TorchvisionImages:
    """Examples of a data set of torchvision's."""

    source: str
    split: str
    labels: Labels
    dataset: Any
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        try:
            image, target = self.dataset[index]
            return image.convert("RGB"), int(target)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.name(index)}: cannot be read as an image: {error}") from None

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.source}: {self.split} {index}"


@dataclass(frozen=True, eq=False)
class HubImages:
    """Examples of a Hugging Face data set."""

    source: str
    split: str
    labels: Labels
    reader: Any
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        try:
            file: BinaryIO
            file, target = self.reader[index]
        except (OSError, AssertionError, TypeError) as error:  # timm asserts that there are bytes or a path
            raise InputError(f"{self.name(index)}: found no image: {error}") from None
        with file:
            image = read_image(file, self.name(index))
        if not isinstance(target, int):
            raise InputError(f"{self.name(index)}: found the label {target!r}, expected the number of a class")
        return image, target

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.source}: {self.split} {index}"


@dataclass(frozen=True)
class Stream:
    """Images that come in an order of their own: timm's iterable data sets, which divide themselves among processes.

    Attributes:
        task, labels, source, split: as `Examples` have them.
        name: as timm calls it.
        root: its folder, if it has one.
    """

    source: str
    split: str
    labels: Labels
    name: str
    root: str | None
    task: Task = "classification"

    def dataset(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> IterableImageDataset:
        """The data set as timm has it, for one loader."""
        return create_dataset(self.name, self.root, self.split, is_training=training, batch_size=batch_size, seed=seed)


def open_image_folder(source: str, root: Path, split: str) -> ImageFiles | TarMembers:
    """A folder with a folder, a tar file or a folder of tar files for each split; or a tar file with folders for them.

    Classes are the innermost folders, or the tar files, in which images lie.

    Raises:
        InputError: there is no such folder or split, it holds no images, or classes that the training split lacks.
    """
    if root.is_file():
        return _open_tar(source, root, split, inside=True)
    parts = {path.name.removesuffix(".tar"): path for path in sorted(_entries(root)) if path.is_dir() or _is_tar(path)}
    split = find_split(split, parts.keys(), source)
    if _is_tar(parts[split]) or any(map(_is_tar, _entries(parts[split]))):
        return _open_tar(source, parts[split], split)
    reader = _read_folder(parts[split])
    files, targets = zip(*reader.samples, strict=True)
    classes = sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)
    for name in ("train", "training"):
        if name == split or name not in parts or _is_tar(parts[name]):
            continue
        if {path.name for path in _entries(parts[name])} != set(classes):
            # A class of which a small split has no image still counts.
            known = _read_folder(parts[name]).class_to_idx
            if missing := [label for label in classes if label not in known]:
                raise InputError(f"{parts[split]}: found the class {missing[0]}, expected those of {parts[name]}")
            targets = tuple(known[classes[target]] for target in targets)
            classes = sorted(known, key=known.__getitem__)
    return ImageFiles(source, split, Labels(names=_readable(classes)), files, np.array(targets))


def open_torchvision(source: str, name: str, root: Path, split: str) -> TorchvisionImages:
    """A data set that lies on this disk, by timm's name for it: `cifar10`, `mnist`, `imagenet`, ...

    Raises:
        InputError: timm knows none of this name, or it is not there.
    """
    try:
        dataset = create_dataset(f"torch/{name}", str(root), split)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    names = getattr(dataset, "classes", ())
    names = tuple(name if isinstance(name, str) else str(name[0]) for name in names)
    return TorchvisionImages(source, split, Labels(names=_readable(names)), dataset)


def open_hub_dataset(source: str, name: str, split: str) -> HubImages:
    """A data set of the Hugging Face Hub, or of a folder as the library `datasets` reads it.

    Raises:
        InputError: it cannot be loaded, or has not one column of images and one of classes.
    """
    _require("hfds", source)
    import datasets

    try:
        split = find_split(split, datasets.get_dataset_split_names(name), source)
        features = datasets.load_dataset(name, split=split).features
        keys = [
            [key for key, feature in features.items() if isinstance(feature, kind)]
            for kind in (datasets.Image, datasets.ClassLabel)
        ]
        for found, kind in zip(keys, ("images", "classes"), strict=True):
            if len(found) != 1:
                raise InputError(f"{source}: found {len(found)} columns of {kind}, expected one, in {list(features)}")
        (image,), (label,) = keys
        reader = create_dataset(f"hfds/{name}", split=split, input_key=image, target_key=label).reader
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cannot be loaded: {_line(error)}") from None
    return HubImages(source, split, Labels(names=_readable(list(reader.class_to_idx))), reader)


def open_stream(source: str, kind: str, rest: str, split: str) -> Stream:
    """An iterable data set: `wds` (webdataset), `hfids` (Hugging Face), `tfds` (TensorFlow), as timm opens them.

    Raises:
        InputError: it cannot be opened, or lacks files.
    """
    _require(kind, source)
    name, root = ("wds/", rest) if kind == "wds" else (f"{kind}/{rest}", None)
    stream = Stream(source, split, Labels(), name, root)
    try:
        reader = stream.dataset().reader
    except KeyError as error:  # of webdataset's _info.json
        raise InputError(f"{source}: found no field {error} in its description, expected one") from None
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    if kind == "wds":
        for file in reader.split_info.filenames:
            if "://" not in rest and not Path(rest, file).is_file():  # webdataset would leave it out without a word
                raise InputError(f"{Path(rest, file)}: found no such file, expected a part of {source}")
    return Stream(source, split, Labels(names=_readable(list(reader.class_to_idx))), name, root)


def _open_tar(source: str, root: Path, split: str, inside: bool = False) -> TarMembers:
    """A tar file, or a folder of them; with `inside`, what lies in its folder for the split."""
    try:
        reader = ReaderImageInTar(str(root), cache_tarinfo=False)
    except (OSError, ValueError, AssertionError, tarfile.TarError) as error:
        raise InputError(f"{root}: cannot be read as a tar file with images: {_line(error)}") from None
    members, targets = [], []
    for (member, parent, child), target in zip(reader.samples, reader.targets, strict=True):
        within = f"{child.path}/{member.path}" if child else member.path
        start = member.offset_data + (child.offset_data if child else 0)
        members.append(Member(str(root / parent) if parent else str(root), within, start, member.size))
        targets.append(int(target))
    if inside:
        folders = {part.removesuffix(".tar") for member in members for part in member.path.split("/")[:-1]}
        split = find_split(split, folders, source)
        kept = [i for i, member in enumerate(members) if split in member.path.replace(".tar/", "/").split("/")[:-1]]
        members, targets = [members[i] for i in kept], [targets[i] for i in kept]
    classes = sorted(reader.class_name_to_idx, key=reader.class_name_to_idx.__getitem__)
    return TarMembers(source, split, Labels(names=_readable(classes)), members, np.array(targets))


def _read_folder(folder: Path) -> Any:  # noqa: ANN401 - timm's reader
    try:
        return create_reader("", root=str(folder))
    except RuntimeError:
        raise InputError(f"{folder}: found no images, expected some, in a folder for each class") from None


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder: {error.strerror or error}") from None


def _is_tar(path: Path) -> bool:
    return path.suffix == ".tar" and path.is_file()


def _readable(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes; ImageNet's synsets (n01440764) in words (tench)."""
    if classes and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        words = ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)
        return tuple(words.get(name, name).split(",")[0] for name in classes)
    return tuple(classes)


def _require(kind: str, source: str) -> None:
    package, install = _PACKAGES[kind]
    if find_spec(package) is None:
        raise InputError(f"{source}: needs the package {package}, which is not here: pip install '{install}'")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
