"""Images decoded and resized once a resolution, kept on disk as bytes that processes share.

images/128-0123456789abcdef/    images.npy (mapped into memory), broken.json, and what is known about the images:
                                targets.npy (classes), masks.bin and sizes.npy (pixels' classes), or persons.npz
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from scalenet_zoo._files import replacing_folder
from scalenet_zoo.data import BrokenImages, Crop, Examples, Person, Stream, evaluation_loader
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import pixels
from scalenet_zoo.spec import ArchSpec, Task
from scalenet_zoo.zoo import pretrained_cfg

_BATCH = {"classification": 64, "segmentation": 8, "pose": 32}


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
        The same.

    Raises:
        InputError: one is empty, has one class, is for another task, has other classes or joints than the first, or
            comes in an order of its own.
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
        checked.append(examples)
        names, first = examples.labels.names, checked[0]
        if task == "pose" and names != first.labels.names:
            theirs = ", ".join(first.labels.names)
            raise InputError(f"{where}: found the joints {', '.join(names)}, expected {theirs}, as {first.split} has")
    return checked


def cached_images(
    examples: Examples, spec: ArchSpec, folder: Path, workers: int = 0, broken_limit: int = 100
) -> CachedImages:
    """The images that a network would see in evaluation; read once, then taken from the folder.

    Other data, another resolution or another preparation lie beside them.

    Args:
        examples: of the network's task; `data.examples.Part` is how to take only some.
        spec: of a network: its input's size and channels count, and what `pretrained_cfg` says of it.
        folder: to keep them in.
        workers: processes that read images; 0: none beside this one.
        broken_limit: images that may be unreadable; they are left out.

    Raises:
        InputError: the data are unfit (see `check_data`), nothing is labelled in them, too many images are broken, or
            the folder is damaged.
        OutputError: the folder cannot be written.
    """
    cfg = pretrained_cfg(spec)
    shape = (spec.input.channels, spec.input.height, spec.input.width)
    names = [examples.name(i) for i in range(len(examples))]
    known = [examples.source, examples.split, names, shape, cfg["crop_pct"], cfg.get("interpolation")]
    path = folder / f"{shape[1]}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    if not path.is_dir():
        check_data(examples, task=spec.task)
        with replacing_folder(path) as new:
            _write(examples, spec, new, workers, broken_limit)
    broken = BrokenImages(broken_limit)
    try:
        names = json.loads((path / "broken.json").read_text(encoding="utf-8"))
        targets = _TARGETS[spec.task].load(path)
        images = torch.from_numpy(np.load(path / "images.npy", mmap_mode="c"))  # "r": torch warns that it may not write
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: is damaged ({error}); delete it, and it is made anew") from None
    broken.add(names)
    return CachedImages(images[: len(targets)], targets, tuple(broken.names))


def _write(examples: Examples, spec: ArchSpec, folder: Path, workers: int, broken_limit: int) -> None:
    """Fill a folder of the cache."""
    shape = (len(examples), spec.input.channels, spec.input.height, spec.input.width)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    targets, done = _TARGETS[spec.task](), 0
    broken = BrokenImages(broken_limit)
    for batch in evaluation_loader(examples, pixels(spec, pretrained_cfg(spec)), spec, _BATCH[spec.task], workers):
        broken.add(batch["broken"])
        if count := len(batch["target"]):
            images[done : done + count] = batch["image"]
            targets.add(batch["target"], folder)
            done += count
    images.flush()
    complaint = targets.finish(folder) if done else "found no image that can be read, expected some"
    if complaint:
        raise InputError(f"{examples.source}: split {examples.split}: {complaint}")
    (folder / "broken.json").write_text(json.dumps(broken.names), encoding="utf-8")


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
        np.save(folder / "targets.npy", np.array(self.classes, dtype=np.int64))
        different = len(set(self.classes))
        plural = "" if different == 1 else "es"
        return None if different > 1 else f"found images of {different} class{plural}, expected two or more"

    @staticmethod
    def load(folder: Path) -> Tensor:
        return torch.from_numpy(np.load(folder / "targets.npy"))


class _Masks:
    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def add(self, targets: Sequence[Tensor], folder: Path) -> None:
        with (folder / "masks.bin").open("ab") as file:
            for mask in targets:
                self.sizes.append((mask.shape[0], mask.shape[1]))
                file.write(mask.to(torch.uint8).numpy().tobytes())

    def finish(self, folder: Path) -> str | None:
        np.save(folder / "sizes.npy", np.array(self.sizes, dtype=np.int64))
        return None

    @staticmethod
    def load(folder: Path) -> list[Tensor]:
        sizes = np.load(folder / "sizes.npy").tolist()
        flat = torch.from_numpy(np.memmap(folder / "masks.bin", np.uint8, "c"))
        parts = torch.split(flat, [height * width for height, width in sizes])
        return [part.view(height, width) for part, (height, width) in zip(parts, sizes, strict=True)]


class _Crops:
    def __init__(self) -> None:
        self.crops: list[Crop] = []

    def add(self, targets: Sequence[Crop], folder: Path) -> None:
        self.crops += targets

    def finish(self, folder: Path) -> str | None:
        persons = [crop.person for crop in self.crops]
        np.savez(
            folder / "persons.npz",
            to_image=np.array([crop.to_image for crop in self.crops]),
            keypoints=np.array([person.keypoints for person in persons]),
            boxes=np.array([person.box for person in persons]),
            areas=np.array([person.area for person in persons]),
            ids=np.array([(person.image_id, person.id) for person in persons], dtype=np.int64),
        )
        labelled = any((person.keypoints[:, 2] > 0).any() for person in persons)
        return None if labelled else "found no person with a labelled joint, expected some"

    @staticmethod
    def load(folder: Path) -> list[Crop]:
        with np.load(folder / "persons.npz") as file:
            parts = [file[name] for name in ("keypoints", "boxes", "areas", "ids", "to_image")]
        return [
            Crop(Person(keypoints, tuple(box.tolist()), float(area), *ids.tolist()), to_image)
            for keypoints, box, area, ids, to_image in zip(*parts, strict=True)
        ]


_TARGETS: dict[Task, type[_Targets]] = {"classification": _Classes, "segmentation": _Masks, "pose": _Crops}
