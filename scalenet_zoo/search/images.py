"""Images, decoded and resized once per resolution and kept on disk as bytes that processes share.

images/128-0123456789abcdef/    images.bin (mapped into memory), broken.json, and the targets of the images:
                                targets.safetensors (classes, sizes of masks, or persons), masks.bin (mapped, too)
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from scalenet_zoo.arch.labels import Labels, match_labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_json, replacing_folder
from scalenet_zoo.core.memory import check_memory
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.examples import Crop, Examples, Person, Target, check_class, known_targets
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.preparation import pixels
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.zoo.interface import Interface

_FORMAT = "2"
"""Version of the file format; folders of other versions are left alone."""
_BATCH = {"classification": 64, "segmentation": 8, "pose": 32}
_COPIES = 8
"""How many bytes each byte of a batch takes while it is decoded, resized and collated, as float32 and as bytes."""
_NAMES = TypeAdapter(list[str])


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Images as evaluation prepares them, before normalisation.

    Attributes:
        images: uint8 (n, channels, height, width), mapped from a file; do not write to it.
        targets: for classification, classes as int64 (n,); for segmentation, a list of n masks, uint8 (height, width)
            of any size each; for pose, a list of n `Crop`.
        broken: what could not be read, and why.
    """

    images: Tensor
    targets: Any
    broken: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Any]]:
        """Iterate over batches of `size` images with their targets, in order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.targets[start : start + size]


def check_data(*parts: Examples | Stream, task: Task = "classification") -> list[Examples]:
    """Refuse data that networks cannot be scored on.

    Args:
        parts: the splits to be used.
        task: the networks' task.

    Returns:
        The same splits, with classes and joints numbered by their names as in the first split.

    Raises:
        InputError: a split is empty, has only one class, is for another task, has classes or joints that the first
            does not have, or is a stream, whose images cannot be read by index.
    """
    checked: list[Examples] = []
    for examples in parts:
        where = f"{examples.source}: split {examples.split}"
        if isinstance(examples, Stream):
            raise InputError(f"{where}: found a stream, expected data whose images can be read by index")
        if examples.task != task:
            raise InputError(f"{where}: found data for {examples.task}, expected {task}")
        if not len(examples):
            raise InputError(f"{where}: found no images, expected some")
        if task != "pose" and len(examples.labels.names) == 1:
            raise InputError(f"{where}: found only the class {examples.labels.names[0]}, expected two or more")
        checked.append(_numbered_as(checked[0], examples, where) if checked else examples)
    return checked


def _numbered_as(first: Examples, examples: Examples, where: str) -> Examples:
    """Number the classes or joints of examples as in the first split, matching them by name.

    Raises:
        InputError: the first split has no class or joint of such a name, or one of its joints is missing.
    """
    ours, theirs = first.labels, examples.labels
    if not ours.names or not theirs.names:
        return examples
    numbers = match_labels(ours, theirs)
    noun = "joint" if examples.task == "pose" else "class"
    for name, number in zip(theirs.names, numbers, strict=True):
        if number is None:
            raise InputError(f"{where}: found the {noun} {quoted(name)}, expected those of the split {first.split}")
    missing = [name for number, name in enumerate(ours.names) if number not in numbers]
    if missing and noun == "joint":
        raise InputError(f"{where}: found no joint {quoted(missing[0])}, expected all of the split {first.split}")
    known = tuple(number for number in numbers if number is not None)
    return examples if known == tuple(range(len(ours.names))) else _Renumbered(examples, ours, known)


@dataclass(frozen=True)
class _Renumbered:
    """Examples with the labels of another split, and with its numbers for their classes or joints.

    Attributes:
        whole: the examples.
        labels: the labels of the other split.
        numbers: the other split's number for each class or joint of the examples.
    """

    whole: Examples
    labels: Labels
    numbers: tuple[int, ...]

    @property
    def task(self) -> Task:
        return self.whole.task

    @property
    def source(self) -> str:
        return self.whole.source

    @property
    def split(self) -> str:
        return self.whole.split

    def __len__(self) -> int:
        return len(self.whole)

    def name(self, index: int) -> str:
        return self.whole.name(index)

    def read(self, index: int) -> tuple[Image.Image, Target]:
        image, target = self.whole.read(index)
        match target:
            case Person():
                keypoints = np.empty_like(target.keypoints)
                keypoints[list(self.numbers)] = target.keypoints
                return image, replace(target, keypoints=keypoints)
            case np.ndarray():
                table = np.arange(256, dtype=np.uint8)  # void pixels stay
                table[: len(self.numbers)] = self.numbers
                return image, table[target]
            case int():
                check_class(target, len(self.numbers), self.name(index))
                return image, self.numbers[target]
        raise InputError(f"{self.name(index)}: found a target of another task, expected one for {self.task}")

    @property
    def targets(self) -> np.ndarray | None:
        """The class of each example, int64 (n,); None: the examples would have to be read."""
        targets = known_targets(self.whole)
        return None if targets is None else np.array(self.numbers)[targets]


def cached_images(
    examples: Examples,
    spec: ArchSpec,
    folder: Path,
    workers: int = 0,
    broken_limit: int = 100,
    interface: Interface | None = None,
) -> CachedImages:
    """Give the images that a network would see in evaluation; they are read once, and then taken from the folder.

    Images of other data, at another resolution or with another preparation have folders of their own beside it.

    Args:
        examples: examples for the network's task; `data.examples.Part` takes only some of them.
        spec: spec of a network; the images get the size and the channels of its input.
        folder: the folder where images are kept.
        workers: processes that read images; 0: only this one.
        broken_limit: how many images may be unreadable; they are left out.
        interface: how images are prepared; None: as for any network of the spec.

    Raises:
        InputError: the data are unfit (see `check_data`), nothing is labelled in them, too many images are broken, or
            the folder is damaged.
        OutputError: the folder cannot be written.
    """
    interface = interface or Interface.of(spec)
    shape = (spec.input.channels, spec.input.height, spec.input.width)
    names = [examples.name(i) for i in range(len(examples))]
    known = [
        _FORMAT,
        examples.labels.names,
        examples.source,
        examples.split,
        names,
        shape,
        interface.crop_pct,
        interface.interpolation,
    ]
    path = folder / f"{shape[1]}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    if not path.is_dir():
        check_data(examples, task=spec.task)
        check_memory(_COPIES * _BATCH[spec.task] * math.prod(shape), f"{spec.name}: a batch of its images")
        with replacing_folder(path) as new:
            _write(examples, spec, interface, new, workers, broken_limit)
    broken = BrokenImages(broken_limit)
    try:
        names = _NAMES.validate_python(read_json(path / "broken.json"))
        targets = _TARGETS[spec.task].load(path)
        images = _mapped(path / "images.bin", len(targets) * math.prod(shape)).view(-1, *shape)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: found a damaged folder ({reason}), expected whole files; delete it") from None
    broken.add(names)
    return CachedImages(images, targets, tuple(broken.names))


def _write(
    examples: Examples, spec: ArchSpec, interface: Interface, folder: Path, workers: int, broken_limit: int
) -> None:
    """Fill a folder of the cache.

    Files are written, not mapped into memory: a process is killed if the disk fills up while it writes to a map.
    """
    targets, done = _TARGETS[spec.task](), 0
    broken = BrokenImages(broken_limit)
    with (folder / "images.bin").open("wb") as file:
        for batch in evaluation_loader(examples, pixels(spec, interface), spec, _BATCH[spec.task], workers):
            broken.add(batch["broken"])
            if count := len(batch["target"]):
                file.write(batch["image"].to(torch.uint8).contiguous().numpy().data)
                targets.add(batch["target"], folder)
                done += count
    complaint = targets.finish(folder) if done else "found no readable image, expected some"
    if complaint:
        raise InputError(f"{examples.source}: split {examples.split}: {complaint}")
    (folder / "broken.json").write_text(json.dumps(broken.names), encoding="utf-8")


def _mapped(path: Path, count: int) -> Tensor:
    """Map the bytes of a file into memory; writing to them would not change the file.

    Raises:
        ValueError: the file has more or fewer bytes than `count`.
        OSError: there is no such file.
    """
    if (found := path.stat().st_size) != count:
        raise ValueError(f"{path.name}: found {found:,} bytes, expected {count:,}")
    return torch.from_numpy(np.memmap(path, np.uint8, "c"))  # with "r", torch warns that the array is read-only


def _write_arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    (folder / "targets.safetensors").write_bytes(save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))


def _read_arrays(folder: Path, *expected: tuple[str, type[np.generic], tuple[int | None, ...]]) -> list[NDArray[Any]]:
    """Read arrays of a folder by their names.

    Args:
        folder: a folder of the cache.
        expected: for each array its name, its type, and its sizes after the first dimension; None: any size.

    Raises:
        SafetensorError, ValueError, KeyError, OSError: an array is missing, or has another type or shape.
    """
    arrays = load((folder / "targets.safetensors").read_bytes())
    for name, kind, sizes in expected:
        array = arrays[name]
        pairs = zip(sizes, array.shape[1:], strict=False)
        if (
            array.dtype != kind
            or array.ndim != 1 + len(sizes)
            or any(size not in (None, found) for size, found in pairs)
        ):
            raise ValueError(
                f"{name}: found {array.dtype} of shape {list(array.shape)}, expected type and shape as they are written"
            )
    return [arrays[name] for name, _, _ in expected]


class _Targets(Protocol):
    """Writes the targets of images to a folder, batch by batch, and reads them from it."""

    def add(self, targets: Any, folder: Path) -> None: ...  # noqa: ANN401

    def finish(self, folder: Path) -> str | None:
        """Write what is not written yet; return what makes the data unusable, or None."""
        ...

    @staticmethod
    def load(folder: Path) -> Any: ...  # noqa: ANN401


class _Classes:
    def __init__(self) -> None:
        self.classes: list[int] = []

    def add(self, targets: Tensor, folder: Path) -> None:
        self.classes += targets.tolist()

    def finish(self, folder: Path) -> str | None:
        _write_arrays(folder, classes=np.array(self.classes, dtype=np.int64))
        different = len(set(self.classes))
        plural = "" if different == 1 else "es"
        return None if different > 1 else f"found images of {different} class{plural}, expected two or more"

    @staticmethod
    def load(folder: Path) -> Tensor:
        (classes,) = _read_arrays(folder, ("classes", np.int64, ()))
        return torch.from_numpy(classes)


class _Masks:
    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def add(self, targets: Sequence[Tensor], folder: Path) -> None:
        with (folder / "masks.bin").open("ab") as file:
            for mask in targets:
                self.sizes.append((mask.shape[0], mask.shape[1]))
                file.write(mask.to(torch.uint8).numpy().tobytes())

    def finish(self, folder: Path) -> str | None:
        _write_arrays(folder, sizes=np.array(self.sizes, dtype=np.int64))
        return None

    @staticmethod
    def load(folder: Path) -> list[Tensor]:
        (sizes,) = _read_arrays(folder, ("sizes", np.int64, (2,)))
        if (sizes < 1).any() or (sizes > 2**24).any():
            raise ValueError("sizes: found sides below 1 or above 2^24 pixels, expected sizes of masks")
        areas = sizes.prod(axis=1).tolist()
        parts = torch.split(_mapped(folder / "masks.bin", sum(areas)), areas)
        return [part.view(height, width) for part, (height, width) in zip(parts, sizes.tolist(), strict=True)]


class _Crops:
    def __init__(self) -> None:
        self.crops: list[Crop] = []

    def add(self, targets: Sequence[Crop], folder: Path) -> None:
        self.crops += targets

    def finish(self, folder: Path) -> str | None:
        persons = [crop.person for crop in self.crops]
        _write_arrays(
            folder,
            keypoints=np.array([person.keypoints for person in persons], dtype=np.float32),
            boxes=np.array([person.box for person in persons], dtype=np.float64),
            areas=np.array([person.area for person in persons], dtype=np.float64),
            ids=np.array([(person.image_id, person.id) for person in persons], dtype=np.int64),
            to_image=np.array([crop.to_image for crop in self.crops], dtype=np.float64),
        )
        labelled = any((person.keypoints[:, 2] > 0).any() for person in persons)
        return None if labelled else "found no person with a labelled joint, expected some"

    @staticmethod
    def load(folder: Path) -> list[Crop]:
        parts = _read_arrays(
            folder,
            ("keypoints", np.float32, (None, 3)),
            ("boxes", np.float64, (4,)),
            ("areas", np.float64, ()),
            ("ids", np.int64, (2,)),
            ("to_image", np.float64, (2, 3)),
        )
        return [
            Crop(Person(keypoints, tuple(box.tolist()), float(area), *ids.tolist()), to_image)
            for keypoints, box, area, ids, to_image in zip(*parts, strict=True)
        ]


_TARGETS: dict[Task, type[_Targets]] = {"classification": _Classes, "segmentation": _Masks, "pose": _Crops}
