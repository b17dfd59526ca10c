"""The score of a multipath network with a supernet's weights, after its batch-norm statistics are estimated again.

It is the metric that `evaluate` reports for the same network: mean IoU for segmentation; for pose, average precision
(AP) by object keypoint similarity, or the share of correct keypoints (PCK).
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.inference.metrics import Metrics, Pose, Segmentation, coco_figures, correct_keypoints
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.search.scalenas.config import Metric, ScaleNASScoring
from scalenet_zoo.search.scoring import Calibrated
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.zoo.interface import Interface


def score_topology(
    supernet: ScaleNASSupernet,
    spec: ArchSpec,
    training: CachedImages,
    validation: CachedImages,
    settings: ScaleNASScoring,
    labels: Labels,
    interface: Interface | None = None,
) -> float:
    """Score a network, 0 to 1, with a supernet's weights.

    Args:
        supernet: the supernet, which is not changed.
        spec: the network's spec.
        training: images that its batch-norm statistics are estimated from.
        validation: images that it is judged by.
        settings: metric, batch size and number type; the numbers of images in it are not used.
        labels: labels of the data; for AP, joints need sigmas.
        interface: how images are normalised; None: as for any network of the spec.

    Raises:
        InputError: the metric cannot be computed on the validation images.
        WeightsError: the network's outputs are not finite.
    """
    network = Calibrated(supernet.extract(spec), spec, training, settings, interface=interface)
    return figure(network, spec, validation, settings, labels)


def figure(
    network: Calibrated, spec: ArchSpec, validation: CachedImages, settings: ScaleNASScoring, labels: Labels
) -> float:
    """Compute the metric, 0 to 1, of a network; arguments and errors are those of `score_topology`."""
    metric = settings.metric_of(spec.task)
    finite = torch.ones((), dtype=torch.bool, device=network.device)
    meter = _meter(spec, labels, network.device)
    for images, targets in validation.batches(settings.batch_size):
        output = network(images)
        finite &= output.isfinite().all()
        if isinstance(meter, Pose):
            meter.update(output, targets)
            continue
        for logits, mask in zip(output, targets, strict=True):
            meter.update(_classes(logits, mask), [mask])
    check_finite(spec, bool(finite))
    figures = _compute(meter, metric)
    found = next((value for name, value in figures.items() if name.startswith(metric)), None)
    if not isinstance(found, float):
        raise InputError(f"scoring.metric: found no {metric} for the validation images, expected labelled images")
    return found


def _classes(logits: Tensor, mask: Tensor) -> Tensor:
    """The classes of the pixels, (1, height, width), at the size of the mask; probabilities are not needed."""
    size = (mask.shape[0], mask.shape[1])
    logits = F.interpolate(logits[None].float().contiguous(), size, mode="bilinear", align_corners=False)
    return logits.max(1).indices  # `argmax` takes seven times as long on a CPU


def _meter(spec: ArchSpec, labels: Labels, device: torch.device) -> Pose | Segmentation:
    if spec.task == "pose":
        return Pose(labels)
    meter = Segmentation(spec.classes, labels.names, "argmax", device)
    meter.confusion.distributed_available_fn = lambda: False  # other processes score other networks
    return meter


def _compute(meter: Pose | Segmentation, metric: Metric) -> Metrics:
    """The metrics on the images of this process alone."""
    if isinstance(meter, Pose):
        return (
            coco_figures(meter.found, meter.labels.sigmas)
            if metric == "ap"
            else correct_keypoints(meter.found, meter.labels.names)
        )
    return meter.compute()
