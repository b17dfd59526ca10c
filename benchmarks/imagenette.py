"""Imagenette's small pictures (imagenette-128), and how often a classifier of 1000 classes is right on them."""

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
    """A part of the data set, or so many images of it, spread evenly.

    Args:
        data: the folder that holds it, unpacked.
        split: train or val.
        images: None: all.
    """
    (examples,) = check_data(open_data(f"imagefolder:{data / FOLDER}", "classification", split))
    return examples if images is None else Part(examples, images)


def accuracies(
    run: Callable[[torch.Tensor], np.ndarray], spec: ArchSpec, interface: Interface, examples: Examples
) -> dict[str, float]:
    """Top-1 accuracy among all of ImageNet's classes, and among those of the data alone.

    Args:
        run: images (n, 3, height, width), normalised, to logits (n, 1000).
        spec: of the network.
        interface: how images are prepared for it.
        examples: of Imagenette.
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
    """A network in PyTorch as `accuracies` takes it."""
    network = network.eval().to(memory_format=torch.channels_last)

    def run(images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            logits: torch.Tensor = network(images.contiguous(memory_format=torch.channels_last))
            return logits.numpy()

    return run
