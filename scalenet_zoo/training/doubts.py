"""What speaks against a network that was just trained, and what helps: told, since figures alone may look like success.

Few steps leave batch norm's running statistics, which evaluation uses, near where they began; a network whose answer is
the same whatever it sees may still score as well as guessing does.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples, Part, known_targets
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.inference.prepare import prepare_inference

FEW_STEPS = 100
"""Steps after which batch norm's statistics have long settled: 0.003% of them are what they began with."""
_MOMENTUM = 0.1
"""Share of a step's own statistics in the running ones; torch's and all networks' of the zoo."""
_SAMPLE = 16
"""Images whose predictions are compared."""

_REMEDY = (
    "more epochs, another lr or a trained network to begin with may help, or statistics of batch norm estimated anew"
    " (scalenet_zoo.networks.batch_norm)"
)


def doubts(network: nn.Module, validation: Examples | Stream, metric: str, best: float, steps: int) -> Iterator[str]:
    """What speaks against a network, one line each.

    Args:
        network: as training left it.
        validation: what it was evaluated on.
        metric: the task's.
        best: its best value.
        steps: of training.
    """
    if steps < FEW_STEPS:
        left = (1 - _MOMENTUM) ** steps
        settled = (
            f", and {left:.0%} of batch norm's running statistics are what they began with" if left > 0.005 else ""
        )
        yield (
            f"found {steps} step{'s' if steps > 1 else ''} of training, expected some {FEW_STEPS} or more{settled}:"
            " more epochs, smaller batches or a trained network to begin with may help"
        )
    level = guessing(validation)
    if best <= level:
        yield f"found the best {metric} {best:.3g}, no better than guessing ({level:.3g}): {_REMEDY}"
    elif is_blind(network, validation):
        yield f"found predictions that do not depend on the image: {_REMEDY}"


def guessing(validation: Examples | Stream) -> float:
    """The value of the task's metric that whoever does not look at the images reaches.

    Of classification: the share of the most frequent class, where it is known, and twice the deviation that so many
    images have by chance. Of segmentation: one class everywhere. Of pose: none.
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
    """Whether a network answers the same to different images: the same class, map of classes, or places of joints."""
    if isinstance(validation, Stream):
        return False
    training = network.training
    network.eval()
    try:
        inference = prepare_inference(network)
        loader = evaluation_loader(Part(validation, _SAMPLE), inference.transform, inference.spec, _SAMPLE, workers=0)
        batch = next(iter(loader))
        if len(batch["image"]) < 2 or (validation.task == "classification" and len(batch["target"].unique()) < 2):
            return False
        with torch.inference_mode():
            output = inference.run(batch["image"])
    finally:
        network.train(training)
    joints = validation.task == "pose"
    answers = output[:, : inference.spec.classes].flatten(2).argmax(2) if joints else output.argmax(1)
    return bool((answers == answers[:1]).float().mean() > 0.999)
