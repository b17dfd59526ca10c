"""Crops of persons and heatmaps of their joints: the geometry of top-down pose estimation.

    person's box --_frame--> box enlarged, at the network's aspect ratio --crop_matrix--> matrix --cut--> crop

Coordinates on a crop are shares of its width and height, so they apply to the network's input and to its heatmaps. A
matrix (2, 3) maps (x, y, 1) to another (x, y).
"""

import math

import numpy as np
from PIL import Image

PADDING = 1.25
"""Ratio of a crop's size to the size of the person's box."""
STRIDE = 4
"""Pixels of a network's input per pixel of its heatmaps, in each direction."""

Box = tuple[float, float, float, float]


def crop_person(image: Image.Image, box: Box, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """Cut out the part of an image in which a network finds a person's joints.

    Args:
        image: an image of any size; parts of the crop outside of it are black.
        box: x, y, width and height of the person, in pixels; the whole image if the person is alone in it.
        size: height and width of the crop: the network's input.

    Returns:
        The crop, and the matrix from shares of the crop to the image's pixels, as in `Crop.to_image`.
    """
    to_image = crop_matrix(box, size)
    return cut(image, to_image, size), to_image


def crop_matrix(
    box: Box, size: tuple[int, int], zoom: float = 1.0, turn: float = 0.0, mirrored: bool = False
) -> np.ndarray:
    """Return the matrix from shares of a crop to the image's pixels, whose centres have integer coordinates.

    Args:
        box: as for `crop_person`.
        size: as for `crop_person`.
        zoom: the person's size in the crop, relative to the usual size.
        turn: the clockwise rotation of the person in the crop, in degrees.
        mirrored: whether left and right are exchanged in the crop.

    Returns:
        float64 (2, 3).
    """
    x, y, width, height = box
    aspect = size[1] / size[0]
    width, height = max(width, height * aspect), max(height, width / aspect)
    width, height = width * PADDING / zoom, height * PADDING / zoom
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    axes = np.array([[cos * width, sin * height], [-sin * width, cos * height]])
    if mirrored:
        axes[:, 0] *= -1
    centre = np.array([x + box[2] / 2, y + box[3] / 2]) - 0.5
    return np.column_stack([axes, centre - axes.sum(1) / 2])


def cut(image: Image.Image, to_image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Cut out the crop that a matrix describes.

    Args:
        image: the image.
        to_image: (2, 3), from shares of the crop to the image's pixels.
        size: height and width of the crop.
    """
    height, width = size
    matrix = to_image / [width, height, 1]  # now from the crop's pixels
    matrix[:, 2] += 0.5  # Pillow's coordinates begin at the first pixel's corner
    if (shrink := int(math.sqrt(abs(np.linalg.det(matrix[:, :2]))))) > 1:  # avoids aliasing in large images
        image, matrix = image.reduce(shrink), matrix / shrink
    return image.transform((width, height), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a matrix (2, 3), again as (2, 3)."""
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) with a matrix (2, 3)."""
    moved: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def draw_heatmaps(
    points: np.ndarray, labelled: np.ndarray, size: tuple[int, int], sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one heatmap per joint: a Gaussian of height 1 at the joint's position.

    Args:
        points: (joints, 2): x and y as shares of the crop.
        labelled: bool (joints,): whether each joint is labelled.
        size: height and width of the heatmaps.
        sigma: standard deviation of the Gaussian, in pixels of the heatmaps.

    Returns:
        Heatmaps, float32 (joints, height, width), and weights, float32 (joints,). Joints that are not labelled or lie
        outside of the crop have weight 0 and an empty heatmap.
    """
    height, width = size
    weights = (labelled & ((points >= 0) & (points < 1)).all(1)).astype(np.float32)
    places = np.where(weights[:, None] > 0, points, 0) * [width, height] - 0.5
    across = np.exp(-((np.arange(width) - places[:, :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(height) - places[:, 1:]) ** 2) / (2 * sigma**2))
    maps = weights[:, None, None] * down[:, :, None] * across[:, None, :]
    return maps.astype(np.float32), weights
