"""Exported files in the form in which `predict` and `evaluate` take networks."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.export.inputs import file_transform
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.inference.prepare import Inference


def file_inference(metadata: Metadata, network: Callable[[np.ndarray], np.ndarray]) -> Inference:
    """Make an exported file ready for batches of images.

    Args:
        metadata: the file's metadata.
        network: runs the file on a batch of images, in the form that it takes, and returns its output.

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
    """Check the shape of a runtime's output for `count` images, and convert float16 to float32.

    Raises:
        InputError: the shape is not the one in the file's metadata.
    """
    if output.shape != (expected := (count, *metadata.output.shape)):
        raise InputError(f"{metadata.spec.name}: found an output of shape {output.shape}, expected {expected}")
    return output.astype(np.float32, copy=False) if output.dtype == np.float16 else output
