"""Images decoded and resized once a resolution, kept on disk as bytes that processes share.

images/128-0123456789abcdef/    images.bin (mapped into memory), broken.json, and what is known about the images:
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
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Crop, Examples, Person, Target, check_class, known_targets
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.preparation import pixels
from scalenet_zoo.zoo.interface import Interface

_FORMAT = "2"
"""Of the files: folders of another one are left alone."""
_BATCH = {"classification": 64, "segmentation": 8, "pose": 32}
_COPIES = 8
"""Of each byte of a batch, while it is decoded, resized and collated: float32, and bytes."""
_NAMES = TypeAdapter(list[str])


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Images as evaluation prepares them, before normalisation.

    Attributes:
        images: uint8 (n, channels, height, width), mapped from a file; not to be written to.
        targets: int64 (n,), their classes; or a list of the classes of pixels, uint8 (height, width) of any sizes; or
            a list of `Crop`.
        broken: what could not be read, and why.
    """

    images: Tensor
    targets: Any
    broken: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Any]]:
        """Images and targets in order; the last batch may have fewer."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.targets[start : start + size]


def check_data(*parts: Examples | Stream, task: Task = "classification") -> list[Examples]:
    """Refuse data that networks cannot be scored on.

    Args:
        parts: the splits to be used.
        task: of the networks.

    Returns:
        The same; what is the first's by name has the first's number.

    Raises:
        InputError: one is empty, has one class, is for another task, has classes or joints that the first does not
            have, or comes in an order of its own.
    """
    checked: list[Examples] = []
    for examples in parts:
        where = f"{examples.source}: split {examples.split}"
        if isinstance(examples, Stream):
            raise InputError(f"{where}: found a stream, expected data of which each image can be asked for")
        if examples.task != task:
            raise InputError(f"{where}: found data for {examples.task}, expected {task}")
        if not len(examples):
            raise InputError(f"{where}: found no images, expected some")
        if task != "pose" and len(examples.labels.names) == 1:
            raise InputError(f"{where}: found the class {examples.labels.names[0]} alone, expected two or more")
        checked.append(_numbered_as(checked[0], examples, where) if checked else examples)
    return checked


def _numbered_as(first: Examples, examples: Examples, where: str) -> Examples:
    """Examples with the first's numbers of their classes or joints, which are told by their names.

    Raises:
        InputError: one has a name that is not the first's, or a joint is missing.
    """
    ours, theirs = first.labels, examples.labels
    if not ours.names or not theirs.names:
        return examples
    numbers = match_labels(ours, theirs)
    noun = "joint" if examples.task == "pose" else "class"
    for name, number in zip(theirs.names, numbers, strict=True):
        if number is None:
            raise InputError(f"{where}: found the {noun} {quoted(name)}, expected those that {first.split} has")
    missing = [name for number, name in enumerate(ours.names) if number not in numbers]
    if missing and noun == "joint":
        raise InputError(f"{where}: found no joint {quoted(missing[0])}, expected one, as {first.split} has")
    known = tuple(number for number in numbers if number is not None)
    return examples if known == tuple(range(len(ours.names))) else _Renumbered(examples, ours, known)


@dataclass(frozen=True)
class _Renumbered:
    """Examples whose classes or joints have the numbers, and the labels, that others have for them.

    Attributes:
        whole: the examples.
        labels: the others'.
        numbers: theirs of each class or joint of the examples.
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
        raise InputError(f"{self.name(index)}: found a target of another task, expected one of {self.task}")

    @property
    def targets(self) -> np.ndarray | None:
        """The class of each example, where that is known without reading it."""
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
    """The images that a network would see in evaluation; read once, then taken from the folder.

    Other data, another resolution or another preparation lie beside them.

    Args:
        examples: of the network's task; `data.examples.Part` is how to take only some.
        spec: of a network: its input's size and channels count.
        folder: to keep them in.
        workers: processes that read images; 0: none beside this one.
        broken_limit: images that may be unreadable; they are left out.
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
        check_memory(_COPIES * _BATCH[spec.task] * math.prod(shape), f"{spec.name}: a batch of images for it")
        with replacing_folder(path) as new:
            _write(examples, spec, interface, new, workers, broken_limit)
    broken = BrokenImages(broken_limit)
    try:
        names = _NAMES.validate_python(read_json(path / "broken.json"))
        targets = _TARGETS[spec.task].load(path)
        images = _mapped(path / "images.bin", len(targets) * math.prod(shape)).view(-1, *shape)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is damaged ({reason}); delete it, and it is made anew") from None
    broken.add(names)
    return CachedImages(images, targets, tuple(broken.names))


def _write(
    examples: Examples, spec: ArchSpec, interface: Interface, folder: Path, workers: int, broken_limit: int
) -> None:
    """Fill a folder of the cache: by writing, for a process that meets a full disk in a memory map dies of it."""
    targets, done = _TARGETS[spec.task](), 0
    broken = BrokenImages(broken_limit)
    with (folder / "images.bin").open("wb") as file:
        for batch in evaluation_loader(examples, pixels(spec, interface), spec, _BATCH[spec.task], workers):
            broken.add(batch["broken"])
            if count := len(batch["target"]):
                file.write(batch["image"].to(torch.uint8).contiguous().numpy().data)
                targets.add(batch["target"], folder)
                done += count
    complaint = targets.finish(folder) if done else "found no image that can be read, expected some"
    if complaint:
        raise InputError(f"{examples.source}: split {examples.split}: {complaint}")
    (folder / "broken.json").write_text(json.dumps(broken.names), encoding="utf-8")


def _mapped(path: Path, count: int) -> Tensor:
    """The bytes of a file, mapped into memory; writing to them would not change the file.

    Raises:
        ValueError: there are more or fewer.
        OSError: there is no such file.
    """
    if (found := path.stat().st_size) != count:
        raise ValueError(f"{path.name}: found {found:,} bytes, expected {count:,}")
    return torch.from_numpy(np.memmap(path, np.uint8, "c"))  # "r": torch warns that it may not write


def _write_arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    (folder / "targets.safetensors").write_bytes(save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))


def _read_arrays(folder: Path, *expected: tuple[str, type[np.generic], tuple[int | None, ...]]) -> list[NDArray[Any]]:
    """Arrays of a folder by their names.

    Args:
        folder: of the cache.
        expected: names with the types and the sizes after the first that they must have; None: any.

    Raises:
        SafetensorError, ValueError, KeyError, OSError: they are not there, or not so.
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
            raise ValueError(f"{name}: found {array.dtype} of shape {list(array.shape)}")
    return [arrays[name] for name, _, _ in expected]


class _Targets(Protocol):
    """Takes the targets of images, batch by batch, to a folder, and from there again."""

    def add(self, targets: Any, folder: Path) -> None: ...  # noqa: ANN401

    def finish(self, folder: Path) -> str | None:
        """Write what is not written yet; what makes the data useless, if something does."""
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
            raise ValueError("sizes: found masks of no size, expected pixels")
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
