"""What a network's output says about an image, as rows for a table or JSON."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from timm.data import ImageNetInfo

from scalenet_zoo.errors import WeightsError
from scalenet_zoo.spec import ArchSpec

Row = dict[str, str | int | float]


def describe(
    spec: ArchSpec,
    output: np.ndarray,
    top: int = 5,
    form: Literal["raw", "softmax", "argmax", "joints"] = "raw",
    names: Sequence[str] = (),
) -> list[Row]:
    """Read one image's output.

    Args:
        spec: of the network.
        output: logits (classes,), or logits or heatmaps (classes, height / 4, width / 4), if raw; probabilities
            (classes,); classes of pixels (height / 4, width / 4); or joints (joints, 3).
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
    if not np.isfinite(output).all():
        raise WeightsError(f"{spec.name}: found outputs that are not finite, expected numbers: are its weights whole?")
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
    joints = map(_peak, output) if form == "raw" else ({"x": x, "y": y, "score": s} for x, y, s in output.tolist())
    return [{"joint": i, **named[i], **joint} for i, joint in enumerate(joints)]


def class_names(spec: ArchSpec) -> tuple[str, ...]:
    """Names of a network's classes where they are known: ImageNet's for classifiers of 1000 classes."""
    if spec.task != "classification" or spec.classes != 1000:
        return ()
    info = ImageNetInfo()
    return tuple(str(info.index_to_description(i)).split(",")[0] for i in range(1000))


def _peak(heatmap: np.ndarray) -> Row:
    """A heatmap's maximum, moved a quarter pixel towards the higher neighbour (HRNet's decoding)."""
    height, width = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), width)
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) / 4 if 0 < x < width - 1 else 0.0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) / 4 if 0 < y < height - 1 else 0.0
    return {"x": float((x + dx + 0.5) / width), "y": float((y + dy + 0.5) / height), "score": float(heatmap[y, x])}


def row_text(row: Row) -> str:
    """A row of `describe` on one line."""
    return ", ".join(value if isinstance(value, str) else f"{key} {value:.6g}" for key, value in row.items())
