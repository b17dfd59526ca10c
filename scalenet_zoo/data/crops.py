"""Crops of persons, and heatmaps of their joints: the geometry of top-down pose estimation.

    person's box --_frame--> box enlarged, at the network's aspect ratio --crop_matrix--> matrix --cut--> crop

Coordinates on a crop are shares of its width and height, so they hold for the network's input and its heatmaps alike.
A matrix (2, 3) takes (x, y, 1) to another (x, y).
"""

import math

import numpy as np
from PIL import Image

PADDING = 1.25
"""A crop's size / the size of the person's box."""
STRIDE = 4
"""Pixels of a network's input / pixels of its heatmaps."""

Box = tuple[float, float, float, float]


def crop_person(image: Image.Image, box: Box, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """Cut out what a network looks at to find a person's joints.

    Args:
        image: of any size; what the crop has beyond it is black.
        box: x, y, width and height of the person, in pixels; the whole image if there is nobody else.
        size: height and width of the crop: the network's input.

    Returns:
        The crop, and the matrix from shares of the crop to the image's pixels, as `Crop.to_image` has it.
    """
    to_image = crop_matrix(box, size)
    return cut(image, to_image, size), to_image


def crop_matrix(
    box: Box, size: tuple[int, int], zoom: float = 1.0, turn: float = 0.0, mirrored: bool = False
) -> np.ndarray:
    """The matrix from shares of a crop to the image's pixels, whose centres have whole numbers.

    Args:
        box: as for `crop_person`.
        size: as for `crop_person`.
        zoom: how much larger than usual the person is seen.
        turn: by how many degrees the person is seen turned, clockwise.
        mirrored: the crop has left and right exchanged.
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
    """The crop (height, width) that a matrix describes."""
    height, width = size
    matrix = to_image / [width, height, 1]  # from the crop's pixels
    matrix[:, 2] += 0.5  # Pillow's coordinates begin at the first pixel's corner
    if (shrink := int(math.sqrt(abs(np.linalg.det(matrix[:, :2]))))) > 1:  # large images would alias
        image, matrix = image.reduce(shrink), matrix / shrink
    return image.transform((width, height), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The matrix (2, 3) that undoes another."""
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) through a matrix (2, 3)."""
    moved: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def draw_heatmaps(
    points: np.ndarray, labelled: np.ndarray, size: tuple[int, int], sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian of height 1 at each joint.

    Args:
        points: (joints, 2): x and y as shares of the crop.
        labelled: bool (joints,).
        size: height and width of the heatmaps.
        sigma: the Gaussian's deviation, in pixels of the heatmaps.

    Returns:
        float32 (joints, height, width), and weights, float32 (joints,): 0 for joints that are not labelled or lie
        outside, whose heatmaps are 0.
    """
    height, width = size
    weights = (labelled & ((points >= 0) & (points < 1)).all(1)).astype(np.float32)
    places = np.where(weights[:, None] > 0, points, 0) * [width, height] - 0.5
    across = np.exp(-((np.arange(width) - places[:, :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(height) - places[:, 1:]) ** 2) / (2 * sigma**2))
    maps = weights[:, None, None] * down[:, :, None] * across[:, None, :]
    return maps.astype(np.float32), weights
