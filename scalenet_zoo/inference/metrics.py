"""The meters of evaluation, one per task. They take batch after batch; the number of processes changes no result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.distributed import all_gather
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.examples import IGNORE, Crop, People, Person, Region, View
from scalenet_zoo.inference import oks
from scalenet_zoo.inference.decode import find_joints, pixel_classes, place_joints
from scalenet_zoo.inference.grouping import FoundPeople, group_people

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Output

_T = TypeVar("_T")
Metrics = dict[str, float | dict[str, float | None]]
"""Metrics by name, all of them shares from 0 to 1; `iou` holds the IoU of each class (None: it does not occur)."""

PRIMARY: Mapping[Task, str] = {"classification": "top1", "segmentation": "miou", "pose": "ap"}
"""The metric of each task that decides which network is best."""

CALIBRATION_BINS = 15
"""The number of bins of the calibration error, which divide the confidences from 0 to 1 into equal intervals."""
PCK = 0.2
"""The largest error of a correct joint (percentage of correct keypoints), as a share of the torso or the box."""
TORSOS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
"""The joints whose distance is the length of the torso; the second pair is used if the first is not labelled."""


class Meter(Protocol):
    """A meter that compares a network's outputs with the targets."""

    def update(self, output: Tensor, targets: Any) -> None:  # noqa: ANN401
        """Add a batch: outputs (n, ...) and the targets of `data.evaluation_loader`."""
        ...

    def compute(self) -> Metrics:
        """Compute the metrics over all batches of all processes; every process gets the same."""
        ...

    def only_class(self) -> int | None:
        """Return the only class of all images or pixels; None: there are several. Every process gets the same."""
        ...


def make_meter(
    spec: ArchSpec,
    labels: Labels,
    form: "Output" = "raw",
    device: torch.device | None = None,
    truth: dict[str, Any] | None = None,
    own: int | None = None,
) -> Meter:
    """Make the meter of a network's task.

    Args:
        spec: the spec of the network.
        labels: the labels of the data; labels of joints need sigmas.
        form: the form of the outputs: raw (logits or heatmaps), or the form in which an exported file returns them.
        device: the device of the outputs.
        truth: the annotations of the images, if a detector found the boxes, see `Pose`.
        own: the number of the data's classes, which come first among the network's; None: the data have them all.
    """
    if spec.task == "classification":
        return Classification(spec.classes, form, device, own)
    if spec.task == "segmentation":
        return Segmentation(spec.classes, labels.names, form, device, own)
    if spec.bottom_up:
        return BottomUp(labels)
    return Pose(labels, form, truth)


class CalibrationError(Metric):
    """The expected calibration error: the gap between confidence and accuracy, averaged over `CALIBRATION_BINS` bins.

    Each bin counts by its number of decisions. This class stores only sums, while the metric in torchmetrics stores
    every confidence, and a segmentation has one per pixel.
    """

    counts: Tensor
    confidences: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2 * CALIBRATION_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidences", torch.zeros(CALIBRATION_BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor, void: Tensor | None = None) -> None:
        """Add a batch of decisions.

        Args:
            confidence: the confidence of each decision, (...).
            correct: whether each decision is correct, (...).
            void: which decisions to ignore, (...); None: none of them.
        """
        bins = (confidence * CALIBRATION_BINS).long().clamp_(0, CALIBRATION_BINS - 1)
        if void is not None:
            bins.masked_fill_(void, CALIBRATION_BINS)  # an extra bin is faster than selecting the others
        bins, confidence = bins.flatten(), confidence.flatten().double()
        counts = torch.bincount(
            2 * bins + correct.flatten(), minlength=2 * CALIBRATION_BINS
        )  # for each bin: wrong, right
        self.counts += counts[: 2 * CALIBRATION_BINS]
        self.confidences += torch.bincount(bins, confidence, minlength=CALIBRATION_BINS)[:CALIBRATION_BINS]

    def compute(self) -> Tensor:
        """Compute the error, a scalar from 0 to 1."""
        right = self.counts[1::2]
        return (self.confidences - right).abs().sum() / self.counts.sum()


class Classification:
    """Top-1 and top-5 accuracy (for more than five classes), and the calibration error.

    Args:
        classes: the number of classes.
        form: raw (logits) or softmax.
        device: the device of the outputs.
        own: the number of the data's classes, which come first; if the network has more, the meter also measures the
            accuracy of decisions among these classes. None: the data have all classes.
    """

    def __init__(
        self, classes: int, form: "Output" = "raw", device: torch.device | None = None, own: int | None = None
    ) -> None:
        self.classes, self.form, self.own = classes, form, own or classes
        self.seen: set[int] = set()
        self.accuracies = {
            f"top{k}": MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False).to(device or "cpu")
            for k in (1, 5)
            if k == 1 or classes > k
        }
        self.among_own = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device or "cpu")
        self.calibration = CalibrationError().to(device or "cpu")

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Add outputs (n, classes) and classes (n,).

        Raises:
            InputError: a class is not one of the network's.
        """
        self.seen |= set(targets.tolist())  # while they are still in the CPU's memory
        if wrong := [one for one in self.seen if not 0 <= one < self.classes]:
            raise InputError(f"data: found the class {wrong[0]}, expected 0 to {self.classes - 1}")
        output, targets = output.float(), targets.to(output.device, non_blocking=True)
        for accuracy in self.accuracies.values():
            accuracy.update(output, targets)
        if self.own < self.classes:
            self.among_own.update(output[:, : self.own].argmax(1), targets)
        confidence, found = (output.softmax(1) if self.form == "raw" else output).max(1)
        self.calibration.update(confidence, found == targets)

    def compute(self) -> Metrics:
        """Compute `top1`, `top5`, `ece`, and, if the network has more classes than the data, `top1_of_these`."""
        parts: dict[str, Metric] = {**self.accuracies, "ece": self.calibration}
        if self.own < self.classes:
            parts["top1_of_these"] = self.among_own
        return {name: float(part.compute()) for name, part in parts.items()}

    def only_class(self) -> int | None:  # noqa: D102
        seen = {one for share in all_gather(self.seen) for one in share}
        return seen.pop() if len(seen) == 1 else None


class Segmentation:
    """Intersection over union of each class, their mean, the share of correct pixels, and the calibration error.

    Logits are resized to the pixels of the masks. If a file returns classes (argmax), there is no confidence and no
    calibration error, and the classes are resized without interpolation.

    Args:
        classes: the number of classes.
        names: the names of the classes; empty: numbers.
        form: raw (logits) or argmax.
        device: the device of the outputs.
        own: the number of the data's classes, which come first; only these have an IoU. None: the data have them all.
    """

    def __init__(
        self,
        classes: int,
        names: Sequence[str] = (),
        form: "Output" = "raw",
        device: torch.device | None = None,
        own: int | None = None,
    ) -> None:
        self.classes, self.form, self.own = classes, form, own or classes
        self.names = names if len(set(names)) == self.own else [str(i) for i in range(self.own)]
        self.confusion = MulticlassConfusionMatrix(classes + 1, validate_args=False).to(device or "cpu")
        self.calibration = CalibrationError().to(device or "cpu")

    def update(self, output: Tensor, targets: Sequence[Tensor]) -> None:
        """Add logits (n, classes, h, w) or classes (n, h, w), and masks (height, width) of any sizes."""
        for one, mask in zip(output, targets, strict=True):
            found, confidence = pixel_classes(one, (mask.shape[0], mask.shape[1]))
            truth = mask.to(output.device, non_blocking=True)
            void = truth == IGNORE
            truth = truth.masked_fill(void, self.classes)
            self.confusion.update(found, truth)
            if confidence is not None:
                self.calibration.update(confidence, found == truth, void)

    def compute(self) -> Metrics:
        """Compute `miou` over the classes in masks or outputs, `pixel_accuracy`, `ece`, and the `iou` of each class.

        Raises:
            InputError: all masks are void.
        """
        confusion = self.confusion.compute()[:-1, :-1].double()  # without the void class, which comes last
        same = confusion.diagonal()
        union = (confusion.sum(0) + confusion.sum(1) - same)[: self.own]
        same = same[: self.own]
        if not union.any():
            raise InputError("masks: found no pixel of a class, expected some: all masks are void")
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

    def only_class(self) -> int | None:  # noqa: D102
        seen = self.confusion.compute()[:-1].sum(1).nonzero().flatten().tolist()  # rows are the masks' classes
        return int(seen[0]) if len(seen) == 1 else None


@dataclass(frozen=True)
class FoundPerson:
    """A person in a box, and the joints that a network found.

    Attributes:
        person: the person in the whole image.
        joints: float64 (joints, 3): x and y in pixels of the image, and the score.
        crop_area: the area of the crop that the network saw, in the image's pixels.
    """

    person: Person
    joints: np.ndarray
    crop_area: float

    def order(self) -> tuple[object, ...]:
        """Return the key that persons are sorted by, so that the order of processes does not matter."""
        return self.person.image_id, self.person.id, self.person.box, self.joints.ravel().tolist()


class Pose:
    """COCO's average precision and recall by object keypoint similarity (OKS), and PCK@0.2.

    If the boxes are the data set's own, every person has a box, and a person's score is the mean score of its joints.
    PCK is the share of labelled joints with an error of at most 0.2 of the torso's length; for joints without shoulders
    and hips, the unit is the box's larger side. PCK leaves out persons whose torso is not labelled. If a detector found
    the boxes, the meter computes only COCO's figures, see `detected_figures`.

    Args:
        labels: the labels of the joints, with sigmas.
        form: raw (heatmaps) or joints.
        truth: the annotations of the images, if a detector found the boxes, see `data.pose.Persons`.
    """

    def __init__(self, labels: Labels, form: "Output" = "raw", truth: dict[str, Any] | None = None) -> None:
        self.labels, self.form, self.truth = labels, form, truth
        self.found: list[FoundPerson] = []

    def update(self, output: Tensor, targets: Sequence[Crop]) -> None:
        """Add heatmaps (n, joints, h, w) or joints (n, joints, 3), and crops."""
        joints = find_joints(output.float().contiguous()) if self.form == "raw" else output
        for crop, shares in zip(targets, joints.double().cpu().numpy(), strict=True):
            area = abs(float(np.linalg.det(crop.to_image[:, :2])))
            self.found.append(FoundPerson(crop.person, place_joints(shares, crop.to_image), area))

    def compute(self) -> Metrics:
        """Compute `ap`, `ar` and their variants for the sizes that occur, and `pck_torso` or `pck_box`."""
        found = sorted((one for share in all_gather(self.found) for one in share), key=FoundPerson.order)
        if self.truth:
            return detected_figures(found, self.truth, self.labels.sigmas)
        return coco_figures(found, self.labels.sigmas) | correct_keypoints(found, self.labels.names)

    def only_class(self) -> None:
        """Return None: joints are not classes."""


def coco_figures(found: Sequence[FoundPerson], sigmas: Sequence[float]) -> Metrics:
    """Compute COCO's figures for persons in the data set's own boxes, with one detection per person."""
    persons = [one.person for one in found]
    annotations = [_annotation(person.image_id, person, person.keypoints) for person in persons]
    truth = _document({person.image_id for person in persons}, annotations)
    detections = [_detection(one.person.image_id, one.joints, float(one.joints[:, 2].mean())) for one in found]
    return {**oks.oks_figures(truth, detections, sigmas)}


def _document(images: Iterable[int], annotations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Make the document of true persons for `oks.oks_figures`, with annotation ids from 1."""
    return {
        "images": [{"id": image} for image in images],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }


def _annotation(image_id: int, place: Person | Region, keypoints: np.ndarray, crowd: bool = False) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.astype(np.float64).ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "bbox": list(place.box),
        "area": place.area,
        "iscrowd": int(crowd),
    }


def _detection(image_id: int, joints: np.ndarray, score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "keypoints": joints.ravel().tolist(), "score": score}


class BottomUp:
    """COCO's average precision and recall by object keypoint similarity, for people found in whole images.

    By COCO's rules, people found in a crowd, or at a person without labelled joints, are neither right nor wrong, and
    only the 20 most certain people of an image count.

    Args:
        labels: the labels of the joints, with sigmas.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.found: list[tuple[People, FoundPeople]] = []

    def update(self, output: Tensor, targets: Sequence[View]) -> None:
        """Add heatmaps and tags (n, 3 joints, h, w), and the people of the images."""
        for view, found in zip(targets, group_people(output, len(self.labels.names)), strict=True):
            joints = place_joints(found.joints.reshape(-1, 3), view.to_image).reshape(found.joints.shape)
            self.found.append((view.people, FoundPeople(joints, found.scores)))

    def compute(self) -> Metrics:
        """Compute `ap`, `ar` and their variants for the sizes that occur.

        Raises:
            InputError: no image shows a person with a labelled joint.
        """
        images = sorted((one for share in all_gather(self.found) for one in share), key=lambda one: one[0].image_id)
        nothing = np.zeros((len(self.labels.names), 3))
        annotations = [
            *(_annotation(who.image_id, person, person.keypoints) for who, _ in images for person in who.persons),
            *(_annotation(who.image_id, place, nothing, place.crowd) for who, _ in images for place in who.unlabelled),
        ]
        if not any(annotation["num_keypoints"] for annotation in annotations):
            raise InputError(f"data: found no persons with labelled joints in {len(images)} images, expected some")
        detections = [
            _detection(who.image_id, joints, float(score))
            for who, found in images
            for joints, score in zip(found.joints, found.scores, strict=True)
        ]
        truth = _document((who.image_id for who, _ in images), annotations)
        return {**oks.oks_figures(truth, detections, self.labels.sigmas)}

    def only_class(self) -> None:
        """Return None: joints are not classes."""


def detected_figures(found: Sequence[FoundPerson], truth: dict[str, Any], sigmas: Sequence[float]) -> Metrics:
    """Compute COCO's figures for persons in a detector's boxes, by HRNet's protocol (TPAMI 2020).

    A person's score is the score of the box times the mean score of the visible joints. If a person is found twice, the
    detection with the higher score stays.
    """
    images: dict[int, list[FoundPerson]] = {}
    for one in found:
        images.setdefault(one.person.image_id, []).append(one)
    detections = []
    for image, persons in images.items():
        joints = np.stack([one.joints for one in persons])
        scores = np.array([oks.person_score(one.joints, one.person.score) for one in persons])
        areas = np.array([one.crop_area for one in persons])
        detections += [
            {**_detection(image, joints[i], float(scores[i])), "category_id": truth["categories"][0]["id"]}
            for i in oks.oks_nms(joints, scores, areas, sigmas)
        ]
    return {**oks.oks_figures(truth, detections, sigmas)}


def correct_keypoints(found: Sequence[FoundPerson], names: Sequence[str]) -> Metrics:
    """Compute the share of labelled joints that are close enough (PCK).

    Returns:
        The share as `pck_torso` or `pck_box`, named after its unit of distance; empty if no joint has a label and unit.
    """
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
