"""What a network says about pictures: decisions, and rows of them for a table or JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from timm.data import ImageNetInfo

from scalenet_zoo.decode import find_classes, find_joints, place_joints
from scalenet_zoo.errors import WeightsError
from scalenet_zoo.labels import Labels
from scalenet_zoo.spec import ArchSpec, Task

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Output
    from scalenet_zoo.inference import Inference

Row = dict[str, str | int | float]

DECISIONS: Mapping[Task, "Output"] = {"classification": "softmax", "segmentation": "argmax", "pose": "joints"}
"""What `predict` makes of each task's outputs."""


@torch.inference_mode()
def predict(inference: "Inference", pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """Show a network pictures, and read its outputs.

    A classifier sees the middle of a picture, a segmentation network the whole, squeezed to its input's shape; a pose
    network takes the whole picture for a person's box, and sees that as it would in evaluation.

    Args:
        inference: the network.
        pictures: RGB, as many at once as the network may take.

    Returns:
        For each picture, what `describe` takes as `DECISIONS[task]`: probabilities (classes,); the class of each of its
        own pixels (height, width); or joints (joints, 3), which may lie outside. Without a classifier: features.

    Raises:
        WeightsError: outputs are not finite.
    """
    from scalenet_zoo.data import crop_person

    spec = inference.spec
    seen, to_image = list(pictures), [np.eye(2, 3)] * len(pictures)
    if spec.task == "pose":
        size = spec.input.height, spec.input.width
        crops = [crop_person(picture, (0, 0, picture.width, picture.height), size) for picture in pictures]
        seen, to_image = [crop for crop, _ in crops], [matrix for _, matrix in crops]
    output = inference.run(torch.stack([torch.as_tensor(inference.transform(picture)) for picture in seen])).cpu()
    check_finite(spec, bool(output.isfinite().all()))
    if not spec.classes:
        return list(output.float().numpy())
    if spec.task == "classification":
        probabilities = output.double().softmax(1) if inference.form == "raw" else output
        return list(probabilities.numpy())
    if spec.task == "segmentation":
        sizes = [(picture.height, picture.width) for picture in pictures]
        return [find_classes(one, size)[0].numpy() for one, size in zip(output, sizes, strict=True)]
    joints = find_joints(output.float()) if inference.form == "raw" else output
    placed = []
    for one, matrix, picture in zip(joints.double().numpy(), to_image, pictures, strict=True):
        found = place_joints(one, matrix)
        found[:, :2] = (found[:, :2] + 0.5) / picture.size  # pixels' centres have whole numbers
        placed.append(found)
    return placed


def describe(
    spec: ArchSpec,
    output: np.ndarray,
    top: int = 5,
    form: "Output" = "raw",
    names: Sequence[str] = (),
) -> list[Row]:
    """Read one image's output.

    Args:
        spec: of the network.
        output: logits (classes,), or logits or heatmaps (classes, height / 4, width / 4), if raw; probabilities
            (classes,); classes of pixels (height, width); or joints (joints, 3).
        top: rows for a classifier (the likeliest classes) or a segmentation (the largest ones).
        form: which of these the output is.
        names: of the classes or joints; none: `class_names`.

    Returns:
        Classification: class, its name where it is known, probability. Segmentation: class, share of the pixels.
        Pose: joint, x and y as shares of the image's width and height, score.
        Without a classifier: how many features, their mean and deviation.

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
    joints = find_joints(torch.from_numpy(output)[None])[0].numpy() if form == "raw" else output
    return [{"joint": i, **named[i], "x": x, "y": y, "score": score} for i, (x, y, score) in enumerate(joints.tolist())]


def class_names(spec: ArchSpec, cfg: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Names of a network's classes or joints where they are known.

    Args:
        spec: of the network.
        cfg: its `pretrained_cfg`; where that has none, a classifier of 1000 classes has ImageNet's.
    """
    if cfg and len(names := Labels.of(cfg).names) == spec.classes:
        return names
    if spec.task != "classification" or spec.classes != 1000:
        return ()
    info = ImageNetInfo()
    return tuple(str(info.index_to_description(i)).split(",")[0] for i in range(1000))


def check_finite(spec: ArchSpec, finite: bool) -> None:
    """Complain of outputs that are not finite.

    Raises:
        WeightsError: they are not.
    """
    if not finite:
        raise WeightsError(f"{spec.name}: found outputs that are not finite, expected numbers: are its weights whole?")


def row_text(row: Row) -> str:
    """A row of `describe` on one line."""
    return ", ".join(value if isinstance(value, str) else f"{key} {value:.6g}" for key, value in row.items())
