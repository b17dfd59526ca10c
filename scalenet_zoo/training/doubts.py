"""Doubts about a newly trained network, with remedies. Its figures alone may look like success.

After few steps, batch norm's running statistics, which evaluation uses, are still near their initial values. A network
that gives the same answer for every image may still score as well as guessing does.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from scalenet_zoo.data.examples import Examples, Part, known_targets
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.networks.modes import evaluation_mode

FEW_STEPS = 100
"""Steps after which batch norm's statistics have settled: their initial values then have a weight of 0.003%."""
_MOMENTUM = 0.1
"""The weight of one step's statistics in the running statistics: the default of torch and of all zoo networks."""
_SAMPLE = 16
"""The number of images whose predictions are compared."""

_REMEDY = (
    "more epochs, another lr, pretrained weights or re-estimated batch-norm statistics"
    " (scalenet_zoo.networks.batch_norm) may help"
)


def doubts(network: nn.Module, validation: Examples | Stream, metric: str, best: float, steps: int) -> Iterator[str]:
    """Yield each doubt about a network, as one line.

    Args:
        network: the trained network.
        validation: the examples that it was evaluated on.
        metric: the name of the task's metric.
        best: the best value of the metric.
        steps: the number of training steps.
    """
    if steps < FEW_STEPS:
        left = (1 - _MOMENTUM) ** steps
        settled = (
            f", and {left:.0%} of batch norm's running statistics are still initial values" if left > 0.005 else ""
        )
        yield (
            f"found {steps} step{'s' if steps > 1 else ''} of training, expected about {FEW_STEPS} or more{settled}:"
            " more epochs, smaller batches or pretrained weights may help"
        )
    level = guessing(validation)
    if best <= level:
        yield f"found the best {metric} {best:.3g}, no better than guessing ({level:.3g}): {_REMEDY}"
    elif is_blind(network, validation):
        yield f"found predictions that do not depend on the image: {_REMEDY}"


def guessing(validation: Examples | Stream) -> float:
    """Return the value of the task's metric that guessing reaches, without looking at the images.

    For classification, this is the share of the most frequent class plus twice its standard error. If the targets are
    not known, the share is 1 / classes. For segmentation and for streams, the value is 1 / classes. For pose, it is 0,
    and so it is if the number of classes is unknown or all images have the same class.
    """
    classes = len(validation.labels.names)
    if validation.task == "pose" or not classes:
        return 0.0
    if validation.task == "segmentation" or isinstance(validation, Stream):
        return 1 / classes
    targets = known_targets(validation)
    share = 1 / classes if targets is None else float(np.bincount(targets).max() / len(targets))
    return share + 2 * float(np.sqrt(share * (1 - share) / len(validation))) if share < 1 else 0.0


def is_blind(network: nn.Module, validation: Examples | Stream) -> bool:
    """Tell whether a network gives different images the same class, the same map of classes, or the same joints.

    Streams are not checked: for them, the answer is False.
    """
    if isinstance(validation, Stream):
        return False
    with evaluation_mode(network):
        inference = prepare_inference(network)
        loader = evaluation_loader(Part(validation, _SAMPLE), inference.transform, inference.spec, _SAMPLE, workers=0)
        batch = next(iter(loader))
        if len(batch["image"]) < 2 or (validation.task == "classification" and len(batch["target"].unique()) < 2):
            return False
        with torch.inference_mode():
            output = inference.run(batch["image"])
    joints = validation.task == "pose"
    answers = output[:, : inference.spec.classes].flatten(2).argmax(2) if joints else output.argmax(1)
    return bool((answers == answers[:1]).float().mean() > 0.999)
