"""Data sets for classification: everything that timm reads, as examples."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from PIL import EpsImagePlugin, Image
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from timm.data import IterableImageDataset, create_dataset

from scalenet_zoo.arch.labels import Labels, match_names, words_of
from scalenet_zoo.arch.spec import Task, first_complaint
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_json
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.examples import SPLITS, TRAINING, check_class, find_split, known_classes
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
from scalenet_zoo.data.image_files import load_turned, read_image
from scalenet_zoo.data.image_names import image_suffixes

_PACKAGES = {
    "hfds": ("datasets", "scalenet-zoo[data]"),
    "hfids": ("datasets", "scalenet-zoo[data]"),
    "wds": ("webdataset", "scalenet-zoo[data]"),
    "tfds": ("tensorflow_datasets", "tensorflow-datasets"),
}


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


@dataclass(frozen=True, eq=False)
class TorchvisionImages:
    """Examples in a data set of torchvision."""

    source: str
    split: str
    labels: Labels
    dataset: Any
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        try:
            with _without_ghostscript():
                image, target = self.dataset[index]
            return as_rgb(image, self.name(index)), int(target)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.name(index)}: cannot be read as an image: {error}") from None

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.source}: {self.split} {index}"


@dataclass(frozen=True, eq=False)
class HubImages:
    """Examples in a Hugging Face data set."""

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
            raise InputError(f"{self.name(index)}: cannot be read as an image: {error}") from None
        with file:
            image = read_image(file, self.name(index))
        if not isinstance(target, int):
            raise InputError(f"{self.name(index)}: found the label {target!r}, expected the number of a class")
        return image, target

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.source}: {self.split} {index}"


@dataclass(frozen=True)
class Stream:
    """Images in an order of their own: timm's iterable data sets, which divide themselves among processes.

    Attributes:
        task, labels, source, split: as in `Examples`.
        name: timm's name of the data set.
        root: its folder; None: it has none.
        images: the number of images in its description; None: the description does not say.
    """

    source: str
    split: str
    labels: Labels
    name: str
    root: str | None
    images: int | None = None
    task: Task = "classification"

    @property
    def complaint(self) -> str:
        """The message for a stream without any usable image."""
        expected = "some, as 1.png with the number of its class in 1.cls" if self.name.startswith("wds/") else "some"
        return f"{self.source}: found no images with classes in the split {self.split}, expected {expected}"

    def dataset(self, classes: int, training: bool = False, batch_size: int = 1, seed: int = 0) -> "StreamSet":
        """Return timm's data set for one loader.

        Args:
            classes: the number of classes of the network.
            training: whether the loader is for training.
            batch_size: images per batch.
            seed: the seed of the order in training.
        """
        classes = known_classes(self.labels, classes)
        return StreamSet(self.reader(training, batch_size, seed), self.source, classes, training)

    def reader(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:  # noqa: ANN401
        """Return timm's reader of the data set; arguments as for `dataset`."""
        kwargs: dict[str, Any] = {} if self.name.startswith("tfds/") else {"input_img_mode": ""}  # images unchanged
        if self.name.startswith("wds/"):
            kwargs["input_key"] = ";".join(sorted(suffix[1:] for suffix in image_suffixes()))
        return create_dataset(
            self.name, self.root, self.split, is_training=training, batch_size=batch_size, seed=seed, **kwargs
        ).reader


class StreamSet(IterableImageDataset):  # type: ignore[misc] # timm's has no types
    """The images of a stream with their classes, and the reasons why broken images cannot be used.

    Args:
        reader: timm's reader.
        source: the name of the stream in messages.
        classes: the number of classes.
        training: whether broken images are reported with the next usable image; otherwise each is a row of its own.
    """

    def __init__(self, reader: Any, source: str, classes: int, training: bool) -> None:  # noqa: ANN401
        super().__init__(None, reader=reader)
        self._source, self._classes, self._training = source, classes, training

    def __iter__(self) -> Iterator[Any]:
        """Yield rows like those of `loaders.TrainingSet` or `loaders.EvaluationSet`.

        Raises:
            LoadingError: a target is not the number of a class.
        """
        with _without_ghostscript():  # libraries open images of all formats
            yield from self._rows()

    def _rows(self) -> Iterator[Any]:
        broken: list[str] = []
        for place, (image, target) in enumerate(self.reader):
            name = f"{self._source}: image {place} of its process"
            check_class(target, self._classes, name)
            try:
                image = as_rgb(image, name)
            except InputError as error:
                if self._training:
                    broken.append(str(error))
                else:
                    yield str(error)
                continue
            yield self.transform(image), target, broken
            broken = []


@contextmanager
def _without_ghostscript() -> Iterator[None]:
    """Disable Pillow's use of Ghostscript in a `with` block: a PostScript file is a program, whatever its name."""
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an open image to RGB, as `read_image` does.

    Args:
        image: the image.
        name: its name in messages.

    Raises:
        InputError: the image has more than 8 bits per channel, or is damaged.
    """
    if image.mode in ("I", "F") or ";" in image.mode:
        raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits per channel")
    try:
        return load_turned(image)[0].convert("RGB")
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as an image: {error}") from None


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
    labels = make_labels(source, names)
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


def make_labels(source: str, names: Sequence[str]) -> Labels:
    """Return the labels of named classes; ImageNet's synsets (n01440764) get their names in words (tench).

    Args:
        source: the name of the data set in messages.
        names: the names of the classes.

    Raises:
        InputError: a name is empty or too long.
    """
    synsets = bool(names) and all(re.fullmatch(r"n\d{8}", name) for name in names)
    try:
        return Labels(names=words_of(names) if synsets else tuple(names), ids=tuple(names) if synsets else ())
    except ValidationError as error:
        raise InputError(f"{source}: classes: {first_complaint(error)}") from None


def open_torchvision(source: str, name: str, root: Path, split: str) -> TorchvisionImages:
    """Open a data set of torchvision on this disk, by timm's name: `cifar10`, `mnist`, `imagenet`, ...

    Args:
        source: the data set, as the user named it.
        name: timm's name.
        root: the folder with the data.
        split: the split to open.

    Raises:
        InputError: timm has no data set with this name, or the data are not in the folder.
    """
    try:
        dataset = create_dataset(f"torch/{name}", str(root), split)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    names: Any = getattr(dataset, "wnids", None) or getattr(dataset, "classes", ())
    names = [name if isinstance(name, str) else str(name[0]) for name in names]
    return TorchvisionImages(source, split, make_labels(source, names), dataset)


def open_hub_dataset(source: str, name: str, split: str) -> HubImages:
    """Open a data set of the Hugging Face Hub, or a folder that the library `datasets` can read.

    Args:
        source: the data set, as the user named it.
        name: its name on the Hub, or the folder.
        split: the split to open.

    Raises:
        InputError: it cannot be loaded, or does not have exactly one column of images and one of classes.
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
                raise InputError(f"{source}: found {len(found)} columns of {kind} in {list(features)}, expected one")
        (image,), (label,) = keys
        reader = create_dataset(f"hfds/{name}", split=split, input_key=image, target_key=label).reader
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cannot be loaded: {_line(error)}") from None
    return HubImages(source, split, make_labels(source, list(reader.class_to_idx)), reader)


def open_stream(source: str, kind: str, rest: str, split: str) -> Stream:
    """Open an iterable data set with timm: `wds` (webdataset), `hfids` (Hugging Face) or `tfds` (TensorFlow).

    Args:
        source: the data set, as the user named it.
        kind: `wds`, `hfids` or `tfds`.
        rest: its path or name.
        split: the split to open.

    Raises:
        InputError: it cannot be opened, or files are missing.
    """
    _require(kind, source)
    name, root = ("wds/", rest) if kind == "wds" else (f"{kind}/{rest}", None)
    on_disk = kind == "wds" and "://" not in rest
    if on_disk:
        split = _described_split(source, Path(rest), split)
    stream = Stream(source, split, Labels(), name, root)
    try:
        reader = stream.reader()
    except (OSError, ValueError, RuntimeError, AssertionError, LookupError, TypeError, AttributeError) as error:
        if "Dataset length is unknown" in str(error):
            raise InputError(
                f"{source}: found no number of images for the split {split} in its description, expected num_examples"
                " (dataset_info in its README.md); hfds: does not need it"
            ) from None
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    names = list(reader.class_to_idx)
    if kind == "wds":
        names = _described_classes(source, reader.info)
    for file in reader.split_info.filenames if on_disk else ():
        if not Path(rest, file).is_file():  # webdataset would skip it silently
            raise InputError(f"{Path(rest, file)}: found no such file, expected a part of {source}")
    return replace(stream, labels=make_labels(source, names), images=getattr(reader, "num_samples", None) or None)


class _Shards(BaseModel):
    """A split in a webdataset's description; other fields are ignored."""

    name: StrictStr
    num_samples: Annotated[StrictInt, Field(ge=1)]
    filenames: Annotated[list[StrictStr], Field(min_length=1)]
    shard_lengths: list[StrictInt]
    alt_label: StrictStr = ""


def _described_split(source: str, folder: Path, split: str) -> str:
    """Return the name of a split in a webdataset's description, after checking it; a pattern of files stays as it is.

    Raises:
        InputError: there is no such folder, description or split, or the description is not valid for timm's reader.
    """
    if not folder.is_dir():
        raise InputError(f"{source}: found no folder {folder}, expected one with tar files and _info.json")
    is_pattern = "tar" in split or ".." in split  # the same rule as in timm
    path = next((path for path in (folder / "_info.json", folder / "info.json") if path.exists()), None)
    if path is None:
        if is_pattern:
            return split
        raise InputError(f"{source}: found no _info.json, expected one that describes the splits")
    try:
        described = read_json(path)
        splits = described.get("splits", {}) if isinstance(described, dict) else None
        if not isinstance(splits, dict):
            raise ValueError(
                f"splits: found {quoted(described if splits is None else splits)}, expected splits by name"
            )
        if is_pattern:
            return split
        split = find_split(split, splits, source)
        if not isinstance(splits[split], dict):
            raise ValueError(f"splits.{split}: found {quoted(splits[split])}, expected fields with values")
        _Shards.model_validate(splits[split])
    except ValidationError as error:
        raise InputError(f"{path}: splits.{split}: {first_complaint(error)}") from None
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    return split


def _described_classes(source: str, info: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return the names of the classes in a webdataset's `_info.json`: a list, numbers by name, or names by number.

    Raises:
        InputError: the field has none of these forms.
    """
    said: Any = next((info[field] for field in ("class_names", "classes", "class_to_idx") if info.get(field)), [])
    if isinstance(said, dict):
        pairs = said.items() if all(isinstance(value, int) for value in said.values()) else map(reversed, said.items())
        try:
            numbered = {int(number): name for name, number in pairs}
        except (TypeError, ValueError):
            numbered = {}
        said = [numbered.get(number) for number in range(len(said))]
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise InputError(f"{source}: classes: found {quoted(said)} in _info.json, expected one name per number")
    return said


def _require(kind: str, source: str) -> None:
    package, install = _PACKAGES[kind]
    if find_spec(package) is None:
        raise InputError(f"{source}: found no package {package}, expected it to be installed: pip install '{install}'")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
