"""What evaluation measures: a meter a task, fed batch by batch, with the same result on one process and on many."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from scalenet_zoo.data import IGNORE, Crop, Person
from scalenet_zoo.decode import find_classes, find_joints, place_joints
from scalenet_zoo.errors import InputError
from scalenet_zoo.labels import Labels
from scalenet_zoo.spec import ArchSpec, Task

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Output

T = TypeVar("T")
Metrics = dict[str, float | dict[str, float | None]]
"""Figures by their names, all shares from 0 to 1; the IoU of each class (None: it occurs nowhere) is a dictionary."""

PRIMARY: Mapping[Task, str] = {"classification": "top1", "segmentation": "miou", "pose": "ap"}
"""The figure that the best network has most of."""

BINS = 15
"""Of the calibration error: confidences from 0 to 1 in equal parts."""
PCK = 0.2
"""How far off a correct joint may be (percentage of correct keypoints), as a share of the torso or the box."""
TORSOS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
"""Joints whose distance is the length of a torso; the second pair stands in where the first is not labelled."""
COCO_FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75", "ar_medium", "ar_large")
"""What COCO's evaluation of keypoints gives, in its order."""


class Meter(Protocol):
    """Measures a network's outputs against what is known about the images."""

    def update(self, output: Tensor, targets: Any) -> None:  # noqa: ANN401
        """Take in a batch: outputs (n, ...) and the targets as `data.evaluation_loader` gives them."""
        ...

    def compute(self) -> Metrics:
        """The figures over all batches of all processes; each process gets them."""
        ...


def make_meter(spec: ArchSpec, labels: Labels, form: "Output" = "raw", device: torch.device | None = None) -> Meter:
    """The meter of a network's task.

    Args:
        spec: of the network.
        labels: of the data; those of joints need sigmas.
        form: what the outputs are: logits or heatmaps, or what an exported file makes of them.
        device: where the outputs lie.
    """
    if spec.task == "classification":
        return Classification(spec.classes, form, device)
    if spec.task == "segmentation":
        return Segmentation(spec.classes, labels.names, form, device)
    return Pose(labels, form)


class CalibrationError(Metric):
    """The expected calibration error: how far confidence and accuracy are apart, averaged over `BINS` bins.

    torchmetrics has it too, but keeps every confidence, of which a segmentation has one a pixel.
    """

    counts: Tensor
    confidences: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2 * BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidences", torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor, void: Tensor | None = None) -> None:
        """Take in decisions.

        Args:
            confidence: how sure the network was, (...).
            correct: whether it was right, (...).
            void: which decisions do not count, (...); none: all do.
        """
        bins = (confidence * BINS).long().clamp_(0, BINS - 1)
        if void is not None:
            bins.masked_fill_(void, BINS)  # one bin more is faster than to pick the others out
        bins, confidence = bins.flatten(), confidence.flatten().double()
        counts = torch.bincount(2 * bins + correct.flatten(), minlength=2 * BINS)  # of each bin: wrong, right
        self.counts += counts[: 2 * BINS]
        self.confidences += torch.bincount(bins, confidence, minlength=BINS)[:BINS]

    def compute(self) -> Tensor:
        """The error."""
        right = self.counts[1::2]
        return (self.confidences - right).abs().sum() / self.counts.sum()


class Classification:
    """Top-1 and top-5 accuracy (of more than five classes), and the calibration error.

    Args:
        classes: how many.
        form: raw (logits) or softmax.
        device: where the outputs lie.
    """

    def __init__(self, classes: int, form: "Output" = "raw", device: torch.device | None = None) -> None:
        self.classes, self.form = classes, form
        self.accuracies = {
            f"top{k}": MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False).to(device or "cpu")
            for k in (1, 5)
            if k == 1 or classes > k
        }
        self.calibration = CalibrationError().to(device or "cpu")

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Take in outputs (n, classes) and classes (n,)."""
        largest = int(targets.max())  # while they lie in the CPU's memory
        if largest >= self.classes:
            raise InputError(f"found the class {largest} in the data, expected at most {self.classes - 1}")
        output, targets = output.float(), targets.to(output.device, non_blocking=True)
        for accuracy in self.accuracies.values():
            accuracy.update(output, targets)
        confidence, found = (output.softmax(1) if self.form == "raw" else output).max(1)
        self.calibration.update(confidence, found == targets)

    def compute(self) -> Metrics:
        """`top1`, `top5`, `ece`."""
        return {name: float(part.compute()) for name, part in {**self.accuracies, "ece": self.calibration}.items()}


class Segmentation:
    """Intersection over union of each class, their mean, the share of correct pixels, and the calibration error.

    Pixels are those of the masks: logits are resized to them. Where a file gives classes (argmax) there is no
    confidence, so no calibration error, and the classes are resized as they are.

    Args:
        classes: how many.
        names: of the classes; numbers stand in.
        form: raw (logits) or argmax.
        device: where the outputs lie.
    """

    def __init__(
        self, classes: int, names: Sequence[str] = (), form: "Output" = "raw", device: torch.device | None = None
    ) -> None:
        self.classes, self.form = classes, form
        self.names = names if len(set(names)) == classes else [str(i) for i in range(classes)]
        self.confusion = MulticlassConfusionMatrix(classes + 1, validate_args=False).to(device or "cpu")
        self.calibration = CalibrationError().to(device or "cpu")

    def update(self, output: Tensor, targets: Sequence[Tensor]) -> None:
        """Take in logits (n, classes, h, w) or classes (n, h, w), and masks (height, width) of any sizes."""
        for one, mask in zip(output, targets, strict=True):
            found, confidence = find_classes(one, (mask.shape[0], mask.shape[1]))
            truth = mask.to(output.device, non_blocking=True)
            void = truth == IGNORE
            truth = truth.masked_fill(void, self.classes)
            self.confusion.update(found, truth)
            if confidence is not None:
                self.calibration.update(confidence, found == truth, void)

    def compute(self) -> Metrics:
        """`miou`, over the classes that occur in masks or outputs; `pixel_accuracy`; `ece`; `iou` of each class.

        Raises:
            InputError: all masks are void.
        """
        confusion = self.confusion.compute()[:-1, :-1].double()  # without void, which stands last
        same = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - same
        if not union.any():
            raise InputError("found no pixel of a class, expected some: all masks are void")
        overlap = (same / union).tolist()
        metrics: Metrics = {
            "miou": float((same / union)[union > 0].mean()),
            "pixel_accuracy": float(same.sum() / confusion.sum()),
        }
        if self.form != "argmax":
            metrics["ece"] = float(self.calibration.compute())
        metrics["iou"] = {
            name: value if known else None
            for name, value, known in zip(self.names, overlap, (union > 0).tolist(), strict=True)
        }
        return metrics


@dataclass(frozen=True)
class FoundPerson:
    """A person, and the joints that a network found: float64 (joints, 3), x and y in pixels of the image, score."""

    person: Person
    joints: np.ndarray

    def order(self) -> tuple[object, ...]:
        """By which persons are sorted, so that the order of processes does not count."""
        return self.person.image_id, self.person.id, self.person.box, self.joints.ravel().tolist()


class Pose:
    """COCO's average precision and recall by object keypoint similarity (OKS), and PCK@0.2.

    A person's score is the mean of its joints'. Where boxes are the data set's own, as here, no person is missed for
    want of a box. PCK is the share of labelled joints that are at most 0.2 of the torso's length off, or, where the
    joints have no shoulders and hips, 0.2 of the box's larger side; persons whose torso is not labelled are left out
    of it.

    Args:
        labels: of the joints, with sigmas.
        form: raw (heatmaps) or joints.
    """

    def __init__(self, labels: Labels, form: "Output" = "raw") -> None:
        self.labels, self.form = labels, form
        self.found: list[FoundPerson] = []

    def update(self, output: Tensor, targets: Sequence[Crop]) -> None:
        """Take in heatmaps (n, joints, h, w) or joints (n, joints, 3), and crops."""
        joints = find_joints(output.float().contiguous()) if self.form == "raw" else output
        for crop, shares in zip(targets, joints.double().cpu().numpy(), strict=True):
            self.found.append(FoundPerson(crop.person, place_joints(shares, crop.to_image)))

    def compute(self) -> Metrics:
        """`ap`, `ar` and their variants, without those for sizes that nobody has; `pck_torso` or `pck_box`."""
        found = sorted((one for share in gather(self.found) for one in share), key=FoundPerson.order)
        return coco_figures(found, self.labels.sigmas) | correct_keypoints(found, self.labels.names)


def coco_figures(found: Sequence[FoundPerson], sigmas: Sequence[float]) -> Metrics:
    """COCO's figures for persons that were found, one detection a person."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in {one.person.image_id for one in found}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": number,  # from 1: the evaluation takes 0 for no match
                "image_id": one.person.image_id,
                "category_id": 1,
                "keypoints": one.person.keypoints.astype(np.float64).ravel().tolist(),
                "num_keypoints": int((one.person.keypoints[:, 2] > 0).sum()),
                "bbox": list(one.person.box),
                "area": one.person.area,
                "iscrowd": 0,
            }
            for number, one in enumerate(found, 1)
        ],
    }
    detections = [
        {
            "image_id": one.person.image_id,
            "category_id": 1,
            "keypoints": one.joints.ravel().tolist(),
            "score": float(one.joints[:, 2].mean()),
        }
        for one in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(COCO_FIGURES, evaluation.stats, strict=True) if value >= 0}


def correct_keypoints(found: Sequence[FoundPerson], names: Sequence[str]) -> Metrics:
    """The share of labelled joints that are near enough (PCK), named after what near is measured by."""
    truth = np.stack([one.person.keypoints for one in found]).astype(np.float64)
    labelled = truth[..., 2] > 0
    torsos = [[names.index(joint) for joint in pair] for pair in TORSOS if set(pair) <= set(names)]
    if torsos:
        lengths = np.zeros(len(found))
        for pair in torsos:
            length = np.linalg.norm(truth[:, pair[0], :2] - truth[:, pair[1], :2], axis=1) * labelled[:, pair].all(1)
            lengths = np.where(lengths > 0, lengths, length)
    else:
        lengths = np.array([max(one.person.box[2:]) for one in found])
    off = np.linalg.norm(np.stack([one.joints[:, :2] for one in found]) - truth[..., :2], axis=2)
    counted = labelled & (lengths > 0)[:, None]
    if not counted.any():
        return {}
    return {"pck_torso" if torsos else "pck_box": float((off <= PCK * lengths[:, None])[counted].mean())}


def gather(share: T) -> list[T]:
    """What each process has, for all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [share]
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)
    return shares
