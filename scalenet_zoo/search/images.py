"""Images decoded and resized once a resolution, kept on disk as bytes that processes share.

images/128-0123456789abcdef/    images.npy (mapped into memory), targets.npy, broken.json
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scalenet_zoo._files import replacing_folder
from scalenet_zoo.data import BrokenImages, Examples, Stream, evaluation_loader
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import pixels
from scalenet_zoo.spec import ArchSpec
from scalenet_zoo.zoo import pretrained_cfg

_BATCH = 64


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Images as evaluation prepares them, before normalisation.

    Attributes:
        images: uint8 (n, channels, height, width), mapped from a file; not to be written to.
        targets: int64 (n,), their classes.
        broken: what could not be read, and why.
    """

    images: Tensor
    targets: Tensor
    broken: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)


def check_data(*parts: Examples | Stream) -> list[Examples]:
    """Refuse data that networks cannot be scored on.

    Args:
        parts: the splits to be used.

    Returns:
        The same.

    Raises:
        InputError: one is empty, has one class, is not for classification, or comes in an order of its own.
    """
    checked: list[Examples] = []
    for examples in parts:
        where = f"{examples.source}: split {examples.split}"
        if isinstance(examples, Stream):
            raise InputError(f"{where}: found a stream, expected data of which each image can be asked for")
        if examples.task != "classification":
            raise InputError(f"{where}: found data for {examples.task}, expected classification")
        if not len(examples):
            raise InputError(f"{where}: found no images, expected some")
        if len(examples.labels.names) == 1:
            raise InputError(f"{where}: found the class {examples.labels.names[0]} alone, expected two or more")
        checked.append(examples)
    return checked


def cached_images(
    examples: Examples, spec: ArchSpec, folder: Path, workers: int = 0, broken_limit: int = 100
) -> CachedImages:
    """The images that a network would see in evaluation; read once, then taken from the folder.

    Other data, another resolution or another preparation lie beside them.

    Args:
        examples: of classification; `data.examples.Part` is how to take only some.
        spec: of a network: its input's size and channels count, and what `pretrained_cfg` says of it.
        folder: to keep them in.
        workers: processes that read images; 0: none beside this one.
        broken_limit: images that may be unreadable; they are left out.

    Raises:
        InputError: the data are unfit (see `check_data`), or too many images are broken.
        OutputError: the folder cannot be written.
    """
    cfg = pretrained_cfg(spec)
    shape = (spec.input.channels, spec.input.height, spec.input.width)
    names = [examples.name(i) for i in range(len(examples))]
    known = [examples.source, examples.split, names, shape, cfg["crop_pct"], cfg.get("interpolation")]
    path = folder / f"{shape[1]}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    if not path.is_dir():
        check_data(examples)
        with replacing_folder(path) as new:
            _write(examples, spec, new, workers, broken_limit)
    broken = BrokenImages(broken_limit)
    broken.add(json.loads((path / "broken.json").read_text(encoding="utf-8")))
    targets = torch.from_numpy(np.load(path / "targets.npy"))
    images = torch.from_numpy(np.load(path / "images.npy", mmap_mode="c"))  # "r": torch warns of what it may not write
    return CachedImages(images[: len(targets)], targets, tuple(broken.names))


def _write(examples: Examples, spec: ArchSpec, folder: Path, workers: int, broken_limit: int) -> None:
    """Fill a folder of the cache."""
    shape = (len(examples), spec.input.channels, spec.input.height, spec.input.width)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    targets: list[int] = []
    broken = BrokenImages(broken_limit)
    for batch in evaluation_loader(examples, pixels(spec, pretrained_cfg(spec)), spec, _BATCH, workers):
        broken.add(batch["broken"])
        if count := len(batch["target"]):
            images[len(targets) : len(targets) + count] = batch["image"]
            targets += batch["target"].tolist()
    images.flush()
    if (classes := len(set(targets))) < 2:
        found = f"images of {classes} class{'' if classes else 'es'}"
        raise InputError(f"{examples.source}: split {examples.split}: found {found}, expected two or more")
    np.save(folder / "targets.npy", np.array(targets, dtype=np.int64))
    (folder / "broken.json").write_text(json.dumps(broken.names), encoding="utf-8")
