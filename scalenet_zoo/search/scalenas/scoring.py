"""Scores of multipath networks: what a supernet's weights reach with batch-norm statistics estimated anew.

    topology --extract--> network --batch norm of training images--> validation images --> mIoU, AP or PCK
                                                                                                |
    scores.jsonl, one line a network: what was scored once costs nothing any more <-------------+

A score is the figure that `evaluate` gives for the same network: mean IoU of segmentation; average precision (AP) by
object keypoint similarity, or the share of correct keypoints (PCK), of pose.
"""

import time

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.inference.metrics import Metrics, Pose, Segmentation, coco_figures, correct_keypoints
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.search.scoring import BaseScorer, Calibrated
from scalenet_zoo.search.settings import Metric, MultipathScoring
from scalenet_zoo.spaces.scalenas import Topologies
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet


def score_topology(
    supernet: ScaleNASSupernet,
    spec: ArchSpec,
    training: CachedImages,
    validation: CachedImages,
    settings: MultipathScoring,
    labels: Labels,
) -> float:
    """The score, 0 to 1, of a network with a supernet's weights.

    Args:
        supernet: stays as it is.
        spec: of the network.
        training: images that its batch-norm statistics are estimated from.
        validation: images that it is judged by.
        settings: the figure, size of batches, type; not how many images.
        labels: of the data; joints need sigmas.

    Raises:
        InputError: the validation images have no such figure.
        WeightsError: outputs are not finite.
    """
    metric = settings.metric_of(spec.task)
    network = Calibrated(supernet.extract(spec), spec, training, settings)
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
        raise InputError(f"scoring.metric: found no {metric} of the validation images, expected labelled ones")
    return found


def _classes(logits: Tensor, mask: Tensor) -> Tensor:
    """The classes (1, height, width) of the pixels at the size of the mask; no probabilities: nobody asks for them."""
    size = (mask.shape[0], mask.shape[1])
    logits = F.interpolate(logits[None].float().contiguous(), size, mode="bilinear", align_corners=False)
    return logits.max(1).indices  # argmax takes seven times as long on a CPU


def _meter(spec: ArchSpec, labels: Labels, device: torch.device) -> Pose | Segmentation:
    if spec.task == "pose":
        return Pose(labels)
    meter = Segmentation(spec.classes, labels.names, "argmax", device)
    meter.confusion.distributed_available_fn = lambda: False  # other processes score other networks
    return meter


def _compute(meter: Pose | Segmentation, metric: Metric) -> Metrics:
    """The figures of this process's images alone."""
    if isinstance(meter, Pose):
        return (
            coco_figures(meter.found, meter.labels.sigmas)
            if metric == "ap"
            else correct_keypoints(meter.found, meter.labels.names)
        )
    return meter.compute()


class MultipathScorer(BaseScorer[ScaleNASSupernet, MultipathScoring]):
    """Scores topologies by a supernet; see `BaseScorer` for the arguments."""

    @property
    def task(self) -> Task:
        """Of the networks."""
        return self.supernet.space.head

    @property
    def images_each(self) -> int:
        """Images that pass forward to score one network."""
        return len(self.training) + len(self.validation)

    def score(self, topologies: Topologies) -> list[float]:
        """The figure, 0 to 1, of each of n topologies.

        Raises:
            InputError: too many images are broken, or the data are unfit.
            WeightsError: outputs are not finite.
            OutputError: scores or images cannot be written.
        """
        start = time.monotonic()
        space, classes = self.supernet.space, self.supernet.classes
        keys = [(name, space.input.height) for name in space.keys(topologies)]
        new = {key: space.spec(topologies[n], classes) for n, key in enumerate(keys) if key not in self.scores}
        if new:
            self._score_new(new)
        self.seconds += time.monotonic() - start
        return [self.scores[key] for key in keys]

    def _judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        return score_topology(self.supernet, spec, training, validation, self.settings, self.validation.labels)
