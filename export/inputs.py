"""Image files as what a network, or its exported file, takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scalenet_zoo.data.image_files import read_image
from scalenet_zoo.data.preparation import pixels, preprocessing
from scalenet_zoo.export.metadata import Metadata

Transform = Callable[[Image.Image], np.ndarray]


def file_transform(metadata: Metadata) -> Transform:
    """The transform from an image to what an exported file takes: bytes, if it normalises them, else float32.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    if not metadata.options.preprocess:
        to_tensor = preprocessing(metadata.spec, metadata.interface)
        return lambda image: to_tensor(image).numpy()
    to_pixels = pixels(metadata.spec, metadata.interface)
    return lambda image: to_pixels(image).permute(1, 2, 0).numpy()


def file_input(metadata: Metadata, images: Sequence[Path], count: int) -> np.ndarray:
    """So many image files as a batch for an exported file; fewer files come again, upside down.

    Raises:
        InputError: a file cannot be read.
    """
    if metadata.options.preprocess:
        return _batch(file_transform(metadata), images, count)
    return network_input(metadata, images, count)


def network_input(metadata: Metadata, images: Sequence[Path], count: int) -> np.ndarray:
    """The same for the network, float32 (count, channels, height, width); other sensors see grey in every channel.

    Raises:
        InputError: a file cannot be read.
    """
    spec = metadata.spec
    channels = spec.input.channels
    seen = spec if channels in (1, 3) else spec.replace(channels=1)
    to_tensor = preprocessing(seen, metadata.interface)
    batch = _batch(lambda image: to_tensor(image).numpy(), images, count)
    return batch if seen is spec else np.repeat(batch, channels, axis=1)


def _batch(transform: Transform, images: Sequence[Path], count: int) -> np.ndarray:
    turned = ((images[i % len(images)], 180 * (i // len(images))) for i in range(count))
    return np.stack([transform(read_image(path).rotate(angle)) for path, angle in turned])
