"""What evaluation measures: a meter a task, fed batch by batch, with the same result on one process and on many."""

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
"""Figures by their names, all shares from 0 to 1; the IoU of each class (None: it occurs nowhere) is a dictionary."""

PRIMARY: Mapping[Task, str] = {"classification": "top1", "segmentation": "miou", "pose": "ap"}
"""The figure that the best network has most of."""

CALIBRATION_BINS = 15
"""Of the calibration error: confidences from 0 to 1 in equal parts."""
PCK = 0.2
"""How far off a correct joint may be (percentage of correct keypoints), as a share of the torso or the box."""
TORSOS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
"""Joints whose distance is the length of a torso; the second pair stands in where the first is not labelled."""


class Meter(Protocol):
    """Measures a network's outputs against what is known about the images."""

    def update(self, output: Tensor, targets: Any) -> None:  # noqa: ANN401
        """Take in a batch: outputs (n, ...) and the targets as `data.evaluation_loader` gives them."""
        ...

    def compute(self) -> Metrics:
        """The figures over all batches of all processes; each process gets them."""
        ...

    def only_class(self) -> int | None:
        """The class of all images or pixels, if they are of one; each process gets it."""
        ...


def make_meter(
    spec: ArchSpec,
    labels: Labels,
    form: "Output" = "raw",
    device: torch.device | None = None,
    truth: dict[str, Any] | None = None,
    own: int | None = None,
) -> Meter:
    """The meter of a network's task.

    Args:
        spec: of the network.
        labels: of the data; those of joints need sigmas.
        form: what the outputs are: logits or heatmaps, or what an exported file makes of them.
        device: where the outputs lie.
        truth: of persons whom a detector found, see `Pose`.
        own: how many classes the data have, which come first among the network's; None: all of them.
    """
    if spec.task == "classification":
        return Classification(spec.classes, form, device, own)
    if spec.task == "segmentation":
        return Segmentation(spec.classes, labels.names, form, device, own)
    if spec.bottom_up:
        return BottomUp(labels)
    return Pose(labels, form, truth)


class CalibrationError(Metric):
    """The expected calibration error: how far confidence and accuracy are apart, averaged over `BINS` bins.

    torchmetrics has it too, but keeps every confidence, of which a segmentation has one a pixel.
    """

    counts: Tensor
    confidences: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2 * CALIBRATION_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidences", torch.zeros(CALIBRATION_BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor, void: Tensor | None = None) -> None:
        """Take in decisions.

        Args:
            confidence: how sure the network was, (...).
            correct: whether it was right, (...).
            void: which decisions do not count, (...); none: all do.
        """
        bins = (confidence * CALIBRATION_BINS).long().clamp_(0, CALIBRATION_BINS - 1)
        if void is not None:
            bins.masked_fill_(void, CALIBRATION_BINS)  # one bin more is faster than to pick the others out
        bins, confidence = bins.flatten(), confidence.flatten().double()
        counts = torch.bincount(
            2 * bins + correct.flatten(), minlength=2 * CALIBRATION_BINS
        )  # of each bin: wrong, right
        self.counts += counts[: 2 * CALIBRATION_BINS]
        self.confidences += torch.bincount(bins, confidence, minlength=CALIBRATION_BINS)[:CALIBRATION_BINS]

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
        own: how many classes the data have, which come first; of fewer than all there is also the accuracy of the
            decision among them alone. None: all.
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
        """Take in outputs (n, classes) and classes (n,)."""
        self.seen |= set(targets.tolist())  # while they lie in the CPU's memory
        if wrong := [one for one in self.seen if not 0 <= one < self.classes]:
            raise InputError(f"found the class {wrong[0]} in the data, expected 0 to {self.classes - 1}")
        output, targets = output.float(), targets.to(output.device, non_blocking=True)
        for accuracy in self.accuracies.values():
            accuracy.update(output, targets)
        if self.own < self.classes:
            self.among_own.update(output[:, : self.own].argmax(1), targets)
        confidence, found = (output.softmax(1) if self.form == "raw" else output).max(1)
        self.calibration.update(confidence, found == targets)

    def compute(self) -> Metrics:
        """`top1`, `top5`, `ece`; and `top1_of_these`, among the data's classes, if the network has more."""
        parts: dict[str, Metric] = {**self.accuracies, "ece": self.calibration}
        if self.own < self.classes:
            parts["top1_of_these"] = self.among_own
        return {name: float(part.compute()) for name, part in parts.items()}

    def only_class(self) -> int | None:  # noqa: D102
        seen = {one for share in all_gather(self.seen) for one in share}
        return seen.pop() if len(seen) == 1 else None


class Segmentation:
    """Intersection over union of each class, their mean, the share of correct pixels, and the calibration error.

    Pixels are those of the masks: logits are resized to them. Where a file gives classes (argmax) there is no
    confidence, so no calibration error, and the classes are resized as they are.

    Args:
        classes: how many.
        names: of the classes; numbers stand in.
        form: raw (logits) or argmax.
        device: where the outputs lie.
        own: how many classes the data have, which come first and alone have an IoU; None: all.
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
        """Take in logits (n, classes, h, w) or classes (n, h, w), and masks (height, width) of any sizes."""
        for one, mask in zip(output, targets, strict=True):
            found, confidence = pixel_classes(one, (mask.shape[0], mask.shape[1]))
            truth = mask.to(output.device, non_blocking=True)
            void = truth == IGNORE
            truth = truth.masked_fill(void, self.classes)
            self.confusion.update(found, truth)
            if confidence is not None:
                self.calibration.update(confidence, found == truth, void)

    def compute(self) -> Metrics:
        """`miou`, over the data's classes that occur in masks or outputs; `pixel_accuracy`; `ece`; `iou` of each class.

        Raises:
            InputError: all masks are void.
        """
        confusion = self.confusion.compute()[:-1, :-1].double()  # without void, which stands last
        same = confusion.diagonal()
        union = (confusion.sum(0) + confusion.sum(1) - same)[: self.own]
        same = same[: self.own]
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

    def only_class(self) -> int | None:  # noqa: D102
        seen = self.confusion.compute()[:-1].sum(1).nonzero().flatten().tolist()  # rows are of the masks
        return int(seen[0]) if len(seen) == 1 else None


@dataclass(frozen=True)
class FoundPerson:
    """A person in a box, and what a network found.

    Attributes:
        person: in the whole image.
        joints: float64 (joints, 3): x and y in pixels of the image, score.
        crop_area: of what the network saw, in the image's pixels.
    """

    person: Person
    joints: np.ndarray
    crop_area: float

    def order(self) -> tuple[object, ...]:
        """By which persons are sorted, so that the order of processes does not count."""
        return self.person.image_id, self.person.id, self.person.box, self.joints.ravel().tolist()


class Pose:
    """COCO's average precision and recall by object keypoint similarity (OKS), and PCK@0.2.

    Where boxes are the data set's own, a person's score is the mean of its joints', and no person is missed for want of
    a box. PCK is the share of labelled joints that are at most 0.2 of the torso's length off, or, where the
    joints have no shoulders and hips, 0.2 of the box's larger side; persons whose torso is not labelled are left out
    of it. Where a detector found the boxes, there are COCO's figures alone, see `detected_figures`.

    Args:
        labels: of the joints, with sigmas.
        form: raw (heatmaps) or joints.
        truth: of persons whom a detector found, see `data.pose.Persons`.
    """

    def __init__(self, labels: Labels, form: "Output" = "raw", truth: dict[str, Any] | None = None) -> None:
        self.labels, self.form, self.truth = labels, form, truth
        self.found: list[FoundPerson] = []

    def update(self, output: Tensor, targets: Sequence[Crop]) -> None:
        """Take in heatmaps (n, joints, h, w) or joints (n, joints, 3), and crops."""
        joints = find_joints(output.float().contiguous()) if self.form == "raw" else output
        for crop, shares in zip(targets, joints.double().cpu().numpy(), strict=True):
            area = abs(float(np.linalg.det(crop.to_image[:, :2])))
            self.found.append(FoundPerson(crop.person, place_joints(shares, crop.to_image), area))

    def compute(self) -> Metrics:
        """`ap`, `ar` and their variants, without those for sizes that nobody has; `pck_torso` or `pck_box`."""
        found = sorted((one for share in all_gather(self.found) for one in share), key=FoundPerson.order)
        if self.truth:
            return detected_figures(found, self.truth, self.labels.sigmas)
        return coco_figures(found, self.labels.sigmas) | correct_keypoints(found, self.labels.names)

    def only_class(self) -> None:
        """None: joints are no classes."""


def coco_figures(found: Sequence[FoundPerson], sigmas: Sequence[float]) -> Metrics:
    """COCO's figures for persons in their own boxes, one detection a person."""
    persons = [one.person for one in found]
    annotations = [_annotation(person.image_id, person, person.keypoints) for person in persons]
    truth = _document({person.image_id for person in persons}, annotations)
    detections = [_detection(one.person.image_id, one.joints, float(one.joints[:, 2].mean())) for one in found]
    return {**oks.oks_figures(truth, detections, sigmas)}


def _document(images: Iterable[int], annotations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The truth as `oks.oks_figures` takes it, annotations with ids from 1."""
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
    """COCO's average precision and recall, by object keypoint similarity, of people that were found in whole images.

    By COCO's rules whoever is found in a crowd, or is a person without labelled joints, counts neither way, and the 20
    surest people of an image count.

    Args:
        labels: of the joints, with sigmas.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.found: list[tuple[People, FoundPeople]] = []

    def update(self, output: Tensor, targets: Sequence[View]) -> None:
        """Take in heatmaps and tags (n, 3 joints, h, w) and what the images show."""
        for view, found in zip(targets, group_people(output, len(self.labels.names)), strict=True):
            joints = place_joints(found.joints.reshape(-1, 3), view.to_image).reshape(found.joints.shape)
            self.found.append((view.people, FoundPeople(joints, found.scores)))

    def compute(self) -> Metrics:
        """`ap`, `ar` and their variants, without those for sizes that nobody has.

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
            raise InputError(f"found no persons with labelled joints in {len(images)} images, expected some")
        detections = [
            _detection(who.image_id, joints, float(score))
            for who, found in images
            for joints, score in zip(found.joints, found.scores, strict=True)
        ]
        truth = _document((who.image_id for who, _ in images), annotations)
        return {**oks.oks_figures(truth, detections, self.labels.sigmas)}

    def only_class(self) -> None:
        """None: joints are no classes."""


def detected_figures(found: Sequence[FoundPerson], truth: dict[str, Any], sigmas: Sequence[float]) -> Metrics:
    """COCO's figures for persons in a detector's boxes, by HRNet's protocol (TPAMI 2020).

    A person's score is the box's times the mean of its visible joints'; of persons found twice the better one stays.
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
