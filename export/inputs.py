"""Image files, prepared as input for a network or its exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scalenet_zoo.data.image_files import read_image
from scalenet_zoo.data.preparation import pixels, preprocessing
from scalenet_zoo.export.metadata import Metadata

MOST_BYTES = 2**29
"""The most bytes of prepared images that are kept."""

Transform = Callable[[Image.Image], np.ndarray]


def file_transform(metadata: Metadata) -> Transform:
    """Make the transform from an image to the input of an exported file: bytes if the file normalises, else float32.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    if not metadata.options.preprocess:
        to_tensor = preprocessing(metadata.spec, metadata.interface)
        return lambda image: to_tensor(image).numpy()
    to_pixels = pixels(metadata.spec, metadata.interface)
    return lambda image: to_pixels(image).permute(1, 2, 0).numpy()


def file_input(metadata: Metadata, images: Sequence[Path], count: int) -> np.ndarray:
    """Prepare `count` images as a batch for an exported file; if there are fewer files, they recur upside down.

    Raises:
        InputError: a file cannot be read.
    """
    if metadata.options.preprocess:
        return _batch(file_transform(metadata), images, count, raw=True)
    return network_input(metadata, images, count)


class Remembered(Sequence[Path]):
    """Image files that are prepared only once, since calibration, the network and the exported file share them."""

    def __init__(self, images: Sequence[Path], made: dict[tuple[Path, int, bool], np.ndarray] | None = None) -> None:
        self.images = images
        self._made = {} if made is None else made

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - one file, or several for a slice
        """Return a file, or for a slice several files, which share the prepared images."""
        return Remembered(self.images[place], self._made) if isinstance(place, slice) else self.images[place]

    def prepare(self, path: Path, angle: int, raw: bool, transform: Transform) -> np.ndarray:
        """Rotate an image by `angle` degrees and transform it; keep the result while there is room."""
        key = path, angle, raw
        if key in self._made:
            return self._made[key]
        image = transform(read_image(path).rotate(angle))
        if image.nbytes * len(self._made) < MOST_BYTES:
            self._made[key] = image
        return image


class FileBatches(Sequence[np.ndarray]):
    """Batches of image files for an exported file, prepared on access; the last one is filled up."""

    def __init__(self, metadata: Metadata, images: Sequence[Path], size: int) -> None:
        self.metadata, self.images, self.size = metadata, images, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - a batch, or for a slice `FileBatches`
        """Return a batch (size, ...), or for a slice the batches in it."""
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            return FileBatches(self.metadata, self.images[start * self.size : stop * self.size], self.size)
        if not 0 <= place < len(self):
            raise IndexError(place)
        return file_input(self.metadata, self.images[place * self.size : (place + 1) * self.size], self.size)


def network_input(metadata: Metadata, images: Sequence[Path], count: int) -> np.ndarray:
    """Prepare a batch for the network itself, float32 (count, channels, height, width).

    As in `file_input`, too few files recur upside down. A network with neither 1 nor 3 channels gets the grey image in
    every channel.

    Raises:
        InputError: a file cannot be read.
    """
    spec = metadata.spec
    channels = spec.input.channels
    seen = spec if channels in (1, 3) else spec.replace(channels=1)
    to_tensor = preprocessing(seen, metadata.interface)
    batch = _batch(lambda image: to_tensor(image).numpy(), images, count)
    return batch if seen is spec else np.repeat(batch, channels, axis=1)


def _batch(transform: Transform, images: Sequence[Path], count: int, raw: bool = False) -> np.ndarray:
    """Prepare images; `raw` marks the bytes for a file that normalises, so that they are not taken for floats."""
    known = images if isinstance(images, Remembered) else Remembered(images)
    turned = ((known[i % len(images)], 180 * (i // len(images))) for i in range(count))
    return np.stack([known.prepare(path, angle, raw, transform) for path, angle in turned])
