"""Small images of Imagenette (imagenette-128), and the accuracy of a classifier of 1000 classes on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scalenet_zoo.arch.labels import imagenet_labels, match_labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.data.examples import Examples, Part
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.search.images import check_data
from scalenet_zoo.zoo.interface import Interface

FOLDER = "imagenette-128"


def imagenette(data: Path, split: str, images: int | None = None) -> Examples:
    """Open a split of the data set, or some of its images, spread evenly.

    Args:
        data: the folder that has the unpacked data set.
        split: train or val.
        images: number of images; None: all.
    """
    (examples,) = check_data(open_data(f"imagefolder:{data / FOLDER}", "classification", split))
    return examples if images is None else Part(examples, images)


def accuracies(
    run: Callable[[torch.Tensor], np.ndarray], spec: ArchSpec, interface: Interface, examples: Examples
) -> dict[str, float]:
    """Compute top-1 accuracy among all of ImageNet's classes, and among the classes of the data alone.

    Args:
        run: maps normalised images (n, 3, height, width) to logits (n, 1000).
        spec: the network's spec.
        interface: how images are prepared for the network.
        examples: examples of Imagenette.
    """
    numbers = match_labels(imagenet_labels(), examples.labels)
    known = np.array([number for number in numbers if number is not None])
    assert len(known) == len(examples.labels.names)
    right = among = count = 0
    for batch in evaluation_loader(examples, preprocessing(spec, interface), spec, 50, workers=0):
        logits, targets = run(batch["image"]), batch["target"].numpy()
        right += int((logits.argmax(1) == known[targets]).sum())
        among += int((logits[:, known].argmax(1) == targets).sum())
        count += len(targets)
    return {"top1_of_1000": right / count, f"top1_of_{len(known)}": among / count, "images": count}


def runner(network: torch.nn.Module) -> Callable[[torch.Tensor], np.ndarray]:
    """Wrap a PyTorch network as a function that `accuracies` takes."""
    network = network.eval().to(memory_format=torch.channels_last)

    def run(images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            logits: torch.Tensor = network(images.contiguous(memory_format=torch.channels_last))
            return logits.numpy()

    return run
