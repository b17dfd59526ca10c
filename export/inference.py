"""An exported file as `predict` and `evaluate` take networks."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.export.inputs import file_transform
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.inference.prepare import Inference


def file_inference(metadata: Metadata, network: Callable[[np.ndarray], np.ndarray]) -> Inference:
    """An exported file, ready for batches of images.

    Args:
        metadata: what the file says of itself.
        network: a batch of images, as the file takes them, to its output.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    smallest, _, largest = metadata.options.batch or (1, 1, None)

    def run(images: Tensor) -> Tensor:
        count = len(images)
        filled = torch.cat([images, images[-1:].expand(max(0, smallest - count), *images.shape[1:])])
        return torch.from_numpy(network(filled.numpy()))[:count]

    return Inference(
        metadata.spec,
        metadata.interface,
        metadata.class_names,
        file_transform(metadata),
        run,
        metadata.options.output,
        torch.device("cpu"),
        smallest,
        largest,
    )


def checked_output(metadata: Metadata, output: np.ndarray, count: int) -> np.ndarray:
    """What a runtime gave for so many images, halves as float32.

    Raises:
        InputError: it has another shape than the file's metadata say.
    """
    if output.shape != (expected := (count, *metadata.output.shape)):
        raise InputError(f"{metadata.spec.name}: found an output of shape {output.shape}, expected {expected}")
    return output.astype(np.float32, copy=False) if output.dtype == np.float16 else output
