"""Decoding of outputs: heatmaps become joints, and logits become the classes of pixels."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def find_joints(heatmaps: Tensor) -> Tensor:
    """Find the maximum of each heatmap, moved a quarter pixel towards the higher neighbour (HRNet's decoding).

    Args:
        heatmaps: (n, joints, h, w).

    Returns:
        (n, joints, 3): x and y as shares of the heatmap's width and height, and the score.
    """
    height, width = heatmaps.shape[-2:]
    index = heatmaps.flatten(2).argmax(2, keepdim=True)
    x = index % width
    y = (index - x) / width
    dx, dy, score = (values.flatten(2).gather(2, index) for values in (*quarter_steps(heatmaps), heatmaps))
    return torch.cat([(x + dx + 0.5) / width, (y + dy + 0.5) / height, score], dim=2)


def quarter_steps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the steps of a quarter pixel towards the higher neighbours.

    Args:
        heatmaps: (n, joints, h, w).

    Returns:
        The steps to the right and the steps down, both (n, joints, h, w): -0.25, 0 or 0.25 pixels.
    """
    right = F.pad((heatmaps[..., 2:] - heatmaps[..., :-2]).sign(), (1, 1)) / 4
    down = F.pad((heatmaps[..., 2:, :] - heatmaps[..., :-2, :]).sign(), (0, 0, 1, 1)) / 4
    return right, down


def place_joints(joints: np.ndarray, to_image: np.ndarray) -> np.ndarray:
    """Convert joints of a crop to joints of the image.

    Args:
        joints: (joints, 3): x and y as shares of the crop's width and height, and the score.
        to_image: (2, 3): the matrix of `data.Crop`.

    Returns:
        float64 (joints, 3): x and y in pixels of the image, and the score.
    """
    homogeneous = np.concatenate([joints[:, :2], np.ones((len(joints), 1))], axis=1)
    return np.concatenate([homogeneous @ to_image.T, joints[:, 2:]], axis=1)


def resize_output(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the output of a segmentation network to the size of an image.

    Args:
        output: logits (classes, h, w), or classes (h, w), which are not interpolated.
        size: height and width of the image.

    Returns:
        float32 (classes, height, width), or (height, width) for classes.
    """
    if output.ndim == 2:
        return F.interpolate(output[None, None].float(), size, mode="nearest-exact")[0, 0]
    return F.interpolate(output[None].float().contiguous(), size, mode="bilinear", align_corners=False)[0]


def pixel_classes(output: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Compute the class of each pixel of an image.

    Args:
        output: logits or classes, as for `resize_output`.
        size: height and width of the image.

    Returns:
        The classes (height, width), and their confidences from 0 to 1 (height, width); None: the output holds classes,
        which have no confidence.
    """
    resized = resize_output(output, size)
    if output.ndim == 2:
        return resized.long(), None
    confidence, classes = resized.softmax(0).max(0)
    return classes, confidence
