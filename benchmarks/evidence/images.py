"""CIFAR-10 as tensors on the device: images are decoded once, and augmented on the device a few steps at a time."""

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import replacing
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.zoo.interface import Interface

SEARCH_EVERY = 10
"""Every tenth training image of a class belongs to the search half, which scores networks and trains none."""
CHUNK_STEPS = 16
"""Number of steps whose images are augmented at once; up to two such chunks wait on the device."""
MARGIN = 4
"""Pixels of padding on each side of an image before it is cropped."""
CHUNK = 10_000
"""Number of images that are resized at once."""


def decode(archive: Path, target: Path, processes: int) -> None:
    """Decode an archive to one file of tensors, unless that file exists.

    Args:
        archive: a .tar.gz of images of one size, in ANY/SPLIT/CLASS/, where SPLIT is train or test.
        target: the file to write. Each of train, search and test has images, uint8 (n, 3, height, width), and targets.
        processes: number of processes.

    Raises:
        InputError: if the archive has no images in a split.
    """
    if target.exists():
        return
    packed = gzip.decompress(archive.read_bytes())
    places: dict[str, list[tuple[int, int]]] = {"train": [], "search": [], "test": []}
    labels: dict[str, list[str]] = {split: [] for split in places}
    seen: dict[str, int] = {}
    with tarfile.open(fileobj=BytesIO(packed), mode="r:") as tar:
        for member in tar:
            if not member.isfile():
                continue
            split, label = Path(member.name).parts[-3:-1]
            seen[split + label] = seen.get(split + label, 0) + 1
            split = "search" if split == "train" and seen[split + label] % SEARCH_EVERY == 0 else split
            labels[split].append(label)
            places[split].append((member.offset_data, member.size))
    numbers = {label: number for number, label in enumerate(sorted(set(labels["train"])))}
    for split, known in labels.items():
        if not known:
            raise InputError(f"{archive}: found no images of the split {split}, expected some in SPLIT/CLASS/")
    every = [place for split in places.values() for place in split]
    parts = [every[first : first + CHUNK // 5] for first in range(0, len(every), CHUNK // 5)]
    if processes > 1:
        with ProcessPoolExecutor(processes, get_context("fork"), _keep, (packed,)) as pool:
            decoded = np.concatenate(list(pool.map(_decoded, parts)))
    else:
        _keep(packed)
        decoded = np.concatenate(list(map(_decoded, parts)))
        _keep(b"")
    tensors, first = {}, 0
    for split, known in labels.items():
        tensors[f"{split}.images"] = torch.from_numpy(decoded[first : first + len(known)])
        tensors[f"{split}.targets"] = torch.tensor([numbers[label] for label in known])
        first += len(known)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        save_file(tensors, temporary)


_packed = b""
"""The unpacked archive, in each process that decodes."""


def _keep(packed: bytes) -> None:
    global _packed
    _packed = packed


def _decoded(places: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.stack([_pixels(_packed[at : at + size]) for at, size in places])


def _pixels(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


@dataclass(frozen=True, eq=False)
class Sets:
    """The three parts of the data, on the device: networks learn from train, searches score by search, test judges."""

    train: CachedImages
    search: CachedImages
    test: CachedImages

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Sets":
        """Load a file that `decode` wrote."""
        tensors = {name: tensor.to(device) for name, tensor in load_file(path).items()}
        train, search, test = (
            CachedImages(tensors[f"{split}.images"], tensors[f"{split}.targets"], ())
            for split in ("train", "search", "test")
        )
        return cls(train, search, test)


def resized(images: Tensor, pixels: int) -> Tensor:
    """Resize images (n, 3, h, w) to (n, 3, pixels, pixels); uint8 stays uint8, float stays float."""
    if images.shape[-1] == pixels:
        return images
    if images.is_floating_point():
        return F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)
    parts = [images[first : first + CHUNK].float() for first in range(0, len(images), CHUNK)]
    return torch.cat([resized(part, pixels).round().clamp(0, 255).to(torch.uint8) for part in parts])


class Normalise:
    """Normalises uint8 images as the package's evaluation does.

    Args:
        interface: the mean and the standard deviation.
        device: the device of the images.
    """

    def __init__(self, interface: Interface, device: torch.device) -> None:
        self.mean, self.std = (
            255 * torch.tensor(values, device=device)[:, None, None] for values in (interface.mean, interface.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 images (n, 3, h, w)."""
        return (images.float() - self.mean) / self.std


class Epochs:
    """The images of each epoch, in random order; each is padded, cropped and mirrored at random.

    Order and augmentation depend only on the seed and the epoch.

    Args:
        images: the training images.
        batch_size: images per step; the last incomplete batch of an epoch is dropped.
        seed: the seed of order and augmentation.
        fill: the value of the padding, one per channel.
    """

    def __init__(self, images: CachedImages, batch_size: int, seed: int, fill: Tensor) -> None:
        n, self.channels, self.height, self.width = images.images.shape
        shape = n, self.channels, self.height + 2 * MARGIN, self.width + 2 * MARGIN
        self.padded = fill.round().to(torch.uint8).expand(shape).contiguous()
        self.padded[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] = images.images
        self.targets, self.seed, self.batch_size = images.targets, seed, batch_size
        self.steps = n // batch_size
        self._drawn: tuple[int, tuple[Tensor, ...]] | None = None

    def epoch(self, number: int) -> tuple[Tensor, Tensor]:
        """All images of an epoch, uint8 (steps * batch_size, 3, h, w), and their classes."""
        return self.part(number, 0, self.steps)

    def chunks(self, done: int, last: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield images and classes of the steps from `done` to `last` (exclusive), at most `CHUNK_STEPS` steps at once.

        Steps are counted over all epochs. A whole epoch would not fit on the device beside those of other processes.
        """
        while done < last:
            number, place = divmod(done, self.steps)
            end = min(self.steps, place + CHUNK_STEPS, place + last - done)
            images, targets = self.part(number, place, end)
            starts = range(0, len(images), self.batch_size)
            yield [(images[at : at + self.batch_size], targets[at : at + self.batch_size]) for at in starts]
            done += end - place

    def part(self, number: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Images, uint8 (n * batch_size, 3, h, w), and classes of the steps from `first` to `last` (exclusive)."""
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = number, self._draw(number)
        own = slice(first * self.batch_size, last * self.batch_size)
        order, top, left, mirrored = (each[own] for each in self._drawn[1])
        device, dtype = order.device, torch.int32 if self.padded.numel() < 2**31 else torch.int64
        columns = torch.arange(self.width, device=device)
        columns = left[:, None] + torch.where(mirrored[:, None], self.width - 1 - columns, columns)
        rows = top[:, None] + torch.arange(self.height, device=device)
        high, wide = self.padded.shape[2:]
        within = (rows * wide)[:, :, None] + columns[:, None, :]
        channels = torch.arange(self.channels, device=device) * high * wide
        starts = (order * self.channels * high * wide)[:, None] + channels
        places = starts[:, :, None, None].to(dtype) + within[:, None].to(dtype)
        images = self.padded.view(-1).index_select(0, places.view(-1)).view(places.shape)
        return images, self.targets[order]

    def _draw(self, number: int) -> tuple[Tensor, ...]:
        device, count = self.padded.device, self.steps * self.batch_size
        generator = torch.Generator(device).manual_seed(1_000_003 * self.seed + number)
        order = torch.randperm(len(self.padded), generator=generator, device=device)[:count]
        top, left = torch.randint(0, 2 * MARGIN + 1, (2, count), generator=generator, device=device)
        return order, top, left, torch.rand(count, generator=generator, device=device) < 0.5
