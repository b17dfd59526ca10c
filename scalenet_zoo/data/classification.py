"""Classification: whatever timm reads, as examples."""

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
            with _without_ghostscript():
                image, target = self.dataset[index]
            return as_rgb(image, self.name(index)), int(target)
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
        images: how many its description says there are; None: it does not say.
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
        """What to say where nothing in it can be used."""
        expected = "some, as 1.png with the number of its class in 1.cls" if self.name.startswith("wds/") else "some"
        return f"{self.source}: found no images with classes in the split {self.split}, expected {expected}"

    def dataset(self, classes: int, training: bool = False, batch_size: int = 1, seed: int = 0) -> "StreamSet":
        """The data set as timm has it, for one loader and a network of so many classes."""
        classes = known_classes(self.labels, classes)
        return StreamSet(self.reader(training, batch_size, seed), self.source, classes, training)

    def reader(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:  # noqa: ANN401
        """Timm's reader of it."""
        kwargs: dict[str, Any] = {} if self.name.startswith("tfds/") else {"input_img_mode": ""}  # images as they are
        if self.name.startswith("wds/"):
            kwargs["input_key"] = ";".join(sorted(suffix[1:] for suffix in image_suffixes()))
        return create_dataset(
            self.name, self.root, self.split, is_training=training, batch_size=batch_size, seed=seed, **kwargs
        ).reader


class StreamSet(IterableImageDataset):  # type: ignore[misc] # timm's has no types
    """The images of a stream with their classes, and what is wrong with those that cannot be used.

    Args:
        reader: timm's.
        source: what messages call the stream.
        classes: how many there are.
        training: broken images go along with the next that is whole; else they take the place of a row.
    """

    def __init__(self, reader: Any, source: str, classes: int, training: bool) -> None:  # noqa: ANN401
        super().__init__(None, reader=reader)
        self._source, self._classes, self._training = source, classes, training

    def __iter__(self) -> Iterator[Any]:
        """Rows as `loaders.TrainingSet` or `loaders.EvaluationSet` has them.

        Raises:
            LoadingError: a target is none of these classes.
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
    """Let Pillow find no Ghostscript meanwhile: PostScript, whatever its file is called, is a program."""
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """An open image as `read_image` gives it.

    Raises:
        InputError: it has more than 8 bits a channel, or is damaged.
    """
    if image.mode in ("I", "F") or ";" in image.mode:
        raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits a channel")
    try:
        return load_turned(image)[0].convert("RGB")
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as an image: {error}") from None


def open_image_folder(source: str, root: Path, split: str) -> ImageFiles | TarMembers:
    """A folder with a folder, a tar file or a folder of tar files for each split; or a tar file with folders for them.

    Classes are those of the training split, if there is one: a small split may lack images of one. See `data.files` for
    what is an image and what a class.

    Raises:
        InputError: there is no such folder or split, it holds no images, or classes that the training split lacks.
    """
    if is_tar(root):
        return _open_tar(source, root, split)
    if has_images(root):
        raise InputError(
            f"{source}: found images outside of any class folder, expected {root}/train and /val with such"
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
    """A tar file with folders for splits: the outermost of these names."""
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
    """The classes of the training split, and the number among them of each image's class in another split.

    Raises:
        InputError: a class is not among them.
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
        raise InputError(f"{source}: found images in tar files and beside them in {split}, expected one or the other")
    if members:
        return TarMembers(source, split, labels, members, np.array(targets))
    return ImageFiles(source, split, labels, [str(image.file) for image in images], np.array(targets))


def _say_splits(source: str, root: Path, classes: Sequence[str]) -> str:
    """What to write where the folder of a split, or images without splits, are given."""
    shown = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    found = f"{source}: found {shown}, which look like classes, expected folders train and val with such in them"
    if root.absolute().name in SPLITS:
        return f"{found}: write {source.removesuffix(str(root))}{root.absolute().parent}"
    return found


def make_labels(source: str, names: Sequence[str]) -> Labels:
    """The labels of named classes; those of ImageNet's synsets (n01440764) are named in words (tench).

    Raises:
        InputError: a name is empty or too long.
    """
    synsets = bool(names) and all(re.fullmatch(r"n\d{8}", name) for name in names)
    try:
        return Labels(names=words_of(names) if synsets else tuple(names), ids=tuple(names) if synsets else ())
    except ValidationError as error:
        raise InputError(f"{source}: classes: {first_complaint(error)}") from None


def open_torchvision(source: str, name: str, root: Path, split: str) -> TorchvisionImages:
    """A data set that lies on this disk, by timm's name for it: `cifar10`, `mnist`, `imagenet`, ...

    Raises:
        InputError: timm knows none of this name, or it is not there.
    """
    try:
        dataset = create_dataset(f"torch/{name}", str(root), split)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    names: Any = getattr(dataset, "wnids", None) or getattr(dataset, "classes", ())
    names = [name if isinstance(name, str) else str(name[0]) for name in names]
    return TorchvisionImages(source, split, make_labels(source, names), dataset)


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
    return HubImages(source, split, make_labels(source, list(reader.class_to_idx)), reader)


def open_stream(source: str, kind: str, rest: str, split: str) -> Stream:
    """An iterable data set: `wds` (webdataset), `hfids` (Hugging Face), `tfds` (TensorFlow), as timm opens them.

    Raises:
        InputError: it cannot be opened, or lacks files.
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
                f"{source}: found no number of images of the split {split} in its description, expected num_examples"
                " (dataset_info in its README.md); hfds: needs none"
            ) from None
        raise InputError(f"{source}: cannot be opened: {_line(error)}") from None
    names = list(reader.class_to_idx)
    if kind == "wds":
        names = _described_classes(source, reader.info)
    for file in reader.split_info.filenames if on_disk else ():
        if not Path(rest, file).is_file():  # webdataset would leave it out without a word
            raise InputError(f"{Path(rest, file)}: found no such file, expected a part of {source}")
    return replace(stream, labels=make_labels(source, names), images=getattr(reader, "num_samples", None) or None)


class _Shards(BaseModel):
    """A split as a webdataset's description has it; what else stands there is not looked at."""

    name: StrictStr
    num_samples: Annotated[StrictInt, Field(ge=1)]
    filenames: Annotated[list[StrictStr], Field(min_length=1)]
    shard_lengths: list[StrictInt]
    alt_label: StrictStr = ""


def _described_split(source: str, folder: Path, split: str) -> str:
    """The name of a split in a webdataset's description, which is checked; of a pattern of files, the pattern.

    Raises:
        InputError: there is no such folder, description or split, or it is not as timm's reader needs it.
    """
    if not folder.is_dir():
        raise InputError(f"{source}: found no folder {folder}, expected one with tar files and _info.json")
    is_pattern = "tar" in split or ".." in split  # as timm tells them apart
    path = next((path for path in (folder / "_info.json", folder / "info.json") if path.exists()), None)
    if path is None:
        if is_pattern:
            return split
        raise InputError(f"{source}: found no _info.json in it, expected one that describes its splits")
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
    """The names of classes that a webdataset's `_info.json` has: a list, or numbers by name or names by number.

    Raises:
        InputError: it has something else in their place.
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
        raise InputError(f"{source}: classes: found {quoted(said)} in _info.json, expected a name for each number")
    return said


def _require(kind: str, source: str) -> None:
    package, install = _PACKAGES[kind]
    if find_spec(package) is None:
        raise InputError(f"{source}: needs the package {package}, which is not here: pip install '{install}'")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
