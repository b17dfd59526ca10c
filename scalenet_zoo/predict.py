"""What a network's output says about an image, as rows for a table or JSON."""

import numpy as np
from timm.data import ImageNetInfo

from scalenet_zoo.errors import WeightsError
from scalenet_zoo.spec import ArchSpec

Row = dict[str, str | int | float]


def describe(spec: ArchSpec, output: np.ndarray, top: int = 5) -> list[Row]:
    """Read one image's output.

    Args:
        spec: of the network.
        output: logits (classes,), or logits or heatmaps (classes, height / 4, width / 4).
        top: rows for a classifier (the likeliest classes) or a segmentation (the largest ones).

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
    if spec.task == "classification":
        logits = output.astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [{**_class(spec, int(i)), "probability": float(probabilities[i])} for i in best]
    if spec.task == "segmentation":
        shares = np.bincount(output.argmax(0).ravel(), minlength=spec.classes) / output[0].size
        largest = [int(i) for i in np.argsort(-shares, kind="stable")[:top] if shares[i] > 0]
        return [{**_class(spec, i), "share": float(shares[i])} for i in largest]
    return [{"joint": joint, **_peak(heatmap)} for joint, heatmap in enumerate(output)]


def _peak(heatmap: np.ndarray) -> Row:
    """A heatmap's maximum, moved a quarter pixel towards the higher neighbour (HRNet's decoding)."""
    height, width = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), width)
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) / 4 if 0 < x < width - 1 else 0.0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) / 4 if 0 < y < height - 1 else 0.0
    return {"x": float((x + dx + 0.5) / width), "y": float((y + dy + 0.5) / height), "score": float(heatmap[y, x])}


def _class(spec: ArchSpec, index: int) -> Row:
    """A class, with its name where it is known: ImageNet's for classifiers of 1000 classes."""
    if spec.task != "classification" or spec.classes != 1000:
        return {"class": index}
    return {"class": index, "name": str(ImageNetInfo().index_to_description(index)).split(",")[0]}


def row_text(row: Row) -> str:
    """A row of `describe` on one line."""
    return ", ".join(value if isinstance(value, str) else f"{key} {value:.6g}" for key, value in row.items())
