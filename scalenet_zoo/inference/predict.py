"""The decisions of a network about pictures, and rows that describe them in a table or JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from scalenet_zoo.arch.labels import Labels, imagenet_labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import InputError, WeightsError
from scalenet_zoo.inference.decode import find_joints, pixel_classes, place_joints

if TYPE_CHECKING:
    from scalenet_zoo.data.crops import Box
    from scalenet_zoo.export.metadata import Output
    from scalenet_zoo.inference.prepare import Inference

Row = dict[str, str | int | float]

DECISIONS: Mapping[Task, "Output"] = {"classification": "softmax", "segmentation": "argmax", "pose": "joints"}
"""The form of the decisions that `predict` reports for each task."""
BATCH = 8
"""The number of crops or tiles per batch, if the network takes batches of this size."""


@torch.inference_mode()
def predict_pictures(
    inference: "Inference", pictures: Sequence[Image.Image], boxes: "Sequence[Sequence[Box]] | None" = None
) -> list[np.ndarray]:
    """Run a network on pictures, and return its decisions.

    A classifier sees the centre of a picture. A segmentation network sees the whole picture, squeezed to the shape of
    its input (`tiling.segment` shows it tiles at the picture's own resolution instead). A pose network sees each
    person's box, as in evaluation; if it finds several people, it sees the whole picture, as large as its input allows.

    Args:
        inference: the network.
        pictures: RGB, at most as many as the network takes at once.
        boxes: the boxes of the persons in each picture, for a pose network; None: the whole picture is one person.

    Returns:
        One decision per picture, in the form `DECISIONS[task]`: probabilities (classes,); the class of each of the
        picture's own pixels (height, width); or joints (persons, joints, 3), which may lie outside the picture. A
        network without a classifier returns features.

    Raises:
        InputError: boxes are given to a network that finds several people.
        WeightsError: outputs are not finite.
    """
    from scalenet_zoo.data.crops import crop_person

    spec = inference.spec
    if spec.bottom_up and spec.classes:
        if boxes is not None:
            raise InputError(f"{spec.name}: found boxes of persons, expected none: it finds the persons itself")
        return _find_people(inference, pictures)
    if spec.task == "pose":
        whole: list[Box] = [(0, 0, *picture.size) for picture in pictures]
        if spec.classes:
            return _find_persons(inference, pictures, [[box] for box in whole] if boxes is None else boxes)
        size = spec.input.height, spec.input.width
        pictures = [crop_person(picture, box, size)[0] for picture, box in zip(pictures, whole, strict=True)]
    output = inference.run(torch.stack([torch.as_tensor(inference.transform(picture)) for picture in pictures])).cpu()
    check_finite(spec, bool(output.isfinite().all()))
    if not spec.classes:
        return list(output.float().numpy())
    if spec.task == "classification":
        probabilities = output.double().softmax(1) if inference.form == "raw" else output
        return list(probabilities.numpy())
    sizes = [(picture.height, picture.width) for picture in pictures]
    return [pixel_classes(one, size)[0].numpy() for one, size in zip(output, sizes, strict=True)]


def _find_people(inference: "Inference", pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """Find the joints (people, joints, 3) of all people in each picture, the most certain first."""
    from scalenet_zoo.data.people import fit_image
    from scalenet_zoo.inference.grouping import group_people

    spec = inference.spec
    size = spec.input.height, spec.input.width
    everybody = []
    step = inference.batch_size(BATCH)
    for start in range(0, len(pictures), step):
        batch = pictures[start : start + step]
        seen = [fit_image(picture, size) for picture in batch]
        output = inference.run(torch.stack([torch.as_tensor(inference.transform(image)) for image, _ in seen])).cpu()
        check_finite(spec, bool(output.isfinite().all()))
        for picture, (_, to_image), found in zip(batch, seen, group_people(output, spec.classes), strict=True):
            placed = place_joints(found.joints.reshape(-1, 3), to_image)
            placed[:, :2] = (placed[:, :2] + 0.5) / picture.size  # the centres of pixels have integer coordinates
            everybody.append(placed.reshape(found.joints.shape))
    return everybody


def _find_persons(
    inference: "Inference", pictures: Sequence[Image.Image], boxes: "Sequence[Sequence[Box]]"
) -> list[np.ndarray]:
    """Find the joints (persons, joints, 3) in each picture, from one crop per box; a batch may mix pictures."""
    from scalenet_zoo.data.crops import crop_person

    spec = inference.spec
    size = spec.input.height, spec.input.width
    persons = [(place, box) for place, some in enumerate(boxes) for box in some]
    found: list[list[np.ndarray]] = [[] for _ in pictures]
    step = inference.batch_size(BATCH)
    for start in range(0, len(persons), step):
        batch = persons[start : start + step]
        crops = [crop_person(pictures[place], box, size) for place, box in batch]
        output = inference.run(torch.stack([torch.as_tensor(inference.transform(crop)) for crop, _ in crops])).cpu()
        check_finite(spec, bool(output.isfinite().all()))
        joints = find_joints(output.float()) if inference.form == "raw" else output
        for (place, _), (_, to_image), one in zip(batch, crops, joints.double().numpy(), strict=True):
            placed = place_joints(one, to_image)
            placed[:, :2] = (placed[:, :2] + 0.5) / pictures[
                place
            ].size  # the centres of pixels have integer coordinates
            found[place].append(placed)
    return [np.array(persons_).reshape(-1, spec.classes, 3) for persons_ in found]


def describe_output(
    spec: ArchSpec,
    output: np.ndarray,
    top: int = 5,
    form: "Output" = "raw",
    names: Sequence[str] = (),
) -> list[Row]:
    """Describe the output for one image.

    Args:
        spec: the spec of the network.
        output: if raw, logits (classes,), logits or heatmaps (classes, height / 4, width / 4), or heatmaps and tags of
            several people (3 classes, height / 2, width / 2); otherwise probabilities (classes,), classes of pixels
            (height, width), joints of one person (joints, 3), or joints of several (persons, joints, 3).
        top: the number of rows for a classifier (the likeliest classes) or a segmentation (the largest areas).
        form: the form of the output.
        names: the names of the classes or joints; empty: `class_names`.

    Returns:
        Classification: the class, its name if it is known, and its probability. Segmentation: the class and its share
        of the pixels. Pose: the person, if there may be several; the joint, x and y as shares of the image's width and
        height, and the score. Without a classifier: the number of features, their mean and standard deviation.

    Raises:
        WeightsError: the output is not finite.
    """
    check_finite(spec, bool(np.isfinite(output).all()))
    if not spec.classes:
        return [{"features": output.size, "mean": float(output.mean()), "deviation": float(output.std())}]
    named: list[Row] = [{"name": name} for name in names or class_names(spec)] or [{}] * spec.classes
    if spec.task == "classification":
        probabilities = output.astype(np.float64)
        if form == "raw":
            probabilities = np.exp(probabilities - probabilities.max())
            probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [{"class": int(i), **named[i], "probability": float(probabilities[i])} for i in best]
    if spec.task == "segmentation":
        pixels = (output.argmax(0) if form == "raw" else output).ravel()
        shares = np.bincount(pixels, minlength=spec.classes) / pixels.size
        largest = [int(i) for i in np.argsort(-shares, kind="stable")[:top] if shares[i] > 0]
        return [{"class": i, **named[i], "share": float(shares[i])} for i in largest]
    joints = output
    if form == "raw":
        joints = _joints(spec, torch.from_numpy(output)[None])
    numbered: list[tuple[Row, Any]] = [({"person": i}, one) for i, one in enumerate(joints)]
    return [
        {**person, "joint": i, **named[i], "x": x, "y": y, "score": score}
        for person, found in (numbered if joints.ndim == 3 else [({}, joints)])
        for i, (x, y, score) in enumerate(found.tolist())
    ]


def _joints(spec: ArchSpec, output: torch.Tensor) -> np.ndarray:
    """Find the joints in one image's raw output: (joints, 3), or (people, joints, 3) for several people."""
    from scalenet_zoo.inference.grouping import group_people

    if spec.bottom_up:
        return group_people(output, spec.classes)[0].joints
    joints: np.ndarray = find_joints(output)[0].numpy()
    return joints


def class_names(spec: ArchSpec, labels: Labels | None = None) -> tuple[str, ...]:
    """Return the names of a network's classes or joints; empty: they are not known.

    Args:
        spec: the spec of the network.
        labels: the network's own labels; without labels, a classifier of 1000 classes has ImageNet's names.
    """
    if labels is not None and len(labels.names) == spec.classes:
        return labels.names
    return imagenet_labels().names if (spec.task, spec.classes) == ("classification", 1000) else ()


def check_finite(spec: ArchSpec, finite: bool) -> None:
    """Refuse outputs that are not finite.

    Args:
        spec: the spec of the network.
        finite: whether all of its outputs are finite.

    Raises:
        WeightsError: the outputs are not finite.
    """
    if not finite:
        raise WeightsError(
            f"{spec.name}: found outputs that are not finite, expected finite numbers: are the weights damaged?"
        )


def row_text(row: Row) -> str:
    """Write a row of `describe_output` on one line."""
    return ", ".join(value if isinstance(value, str) else f"{key} {value:.6g}" for key, value in row.items())
