"""Data sets for classification that torchvision or Hugging Face's `datasets` reads."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from timm.data import create_dataset

from scalenet_zoo.arch.labels import Labels, class_labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.examples import find_split
from scalenet_zoo.data.image_files import as_rgb, read_image, without_ghostscript

_PACKAGES = {
    "hfds": ("datasets", "scalenet-zoo[data]"),
    "hfids": ("datasets", "scalenet-zoo[data]"),
    "wds": ("webdataset", "scalenet-zoo[data]"),
    "tfds": ("tensorflow_datasets", "tensorflow-datasets"),
}


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
            with without_ghostscript():
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
        raise InputError(f"{source}: cannot be opened: {one_line(error)}") from None
    names: Any = getattr(dataset, "wnids", None) or getattr(dataset, "classes", ())
    names = [name if isinstance(name, str) else str(name[0]) for name in names]
    return TorchvisionImages(source, split, class_labels(source, names), dataset)


def open_hub_dataset(source: str, name: str, split: str) -> HubImages:
    """Open a data set of the Hugging Face Hub, or a folder that the library `datasets` can read.

    Args:
        source: the data set, as the user named it.
        name: its name on the Hub, or the folder.
        split: the split to open.

    Raises:
        InputError: it cannot be loaded, or does not have exactly one column of images and one of classes.
    """
    require_package("hfds", source)
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
        raise InputError(f"{source}: cannot be loaded: {one_line(error)}") from None
    return HubImages(source, split, class_labels(source, list(reader.class_to_idx)), reader)


def require_package(kind: str, source: str) -> None:
    """Refuse a kind of data set whose package is not installed.

    Args:
        kind: `hfds`, `hfids`, `wds` or `tfds`.
        source: the data set, as the user named it.

    Raises:
        InputError: the package is not installed; the message says how to install it.
    """
    package, install = _PACKAGES[kind]
    if find_spec(package) is None:
        raise InputError(f"{source}: found no package {package}, expected it to be installed: pip install '{install}'")


def one_line(error: Exception) -> str:
    """Put the message of a library's error on one line; the name of its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
