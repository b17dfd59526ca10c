"""Bring a drawing of a digit into the form of scikit-learn's digits, which a network trained on these can read.

In that data set every digit is white on black, fills the height of 8 x 8 pixels, and has strokes of similar
thickness, which cover 24% to 38% of the pixels. A user's drawing has another background, margins and other strokes.
"""

import numpy as np
from PIL import Image

SIDE = 8
"""Height and width of the data set's images in pixels. Images of this size already have its form."""
INK = 0.24
"""Share of the pixels that strokes cover: that of the data set's thinnest digits. A network trained on the data set
reads more drawn sevens with this share than with the data set's mean, 0.3."""
_FINE = 64
"""Height of the digit, in pixels, when its strokes get their thickness."""


def frame_digit(image: Image.Image) -> Image.Image:
    """Find the digit in a drawing, and return it white on black, cut out, with strokes of the data set's thickness.

    Args:
        image: a drawing of any size, light on dark or dark on light, with the background at its border.

    Returns:
        RGB, `SIDE` x `SIDE`: the image itself if it has that size; black if nothing is drawn.
    """
    if image.size == (SIDE, SIDE):
        return image
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    if not ink.max() > 0:
        return Image.new("RGB", (SIDE, SIDE))
    digit = _cut(ink > ink.max() / 2)
    size = max(1, round(digit.shape[1] * _FINE / digit.shape[0])), _FINE
    scaled = np.asarray(Image.fromarray(digit).convert("L").resize(size, Image.Resampling.BOX)) > 0
    fine = _cut(_with_thickness(np.pad(scaled, _FINE // 4)))
    side = max(fine.shape)
    rows, columns = ((side - length) // 2 for length in fine.shape)
    square = np.zeros((side, side), dtype=np.uint8)
    square[rows : rows + fine.shape[0], columns : columns + fine.shape[1]] = 255 * fine
    return Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGB")


def _cut(drawn: np.ndarray) -> np.ndarray:
    """Cut a bitmap (height, width) down to the rows and columns in which something is drawn."""
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _with_thickness(drawn: np.ndarray) -> np.ndarray:
    """Grow or shrink the strokes of a bitmap until they cover `INK` of the square around the digit."""
    from scipy.ndimage import distance_transform_edt

    outside: np.ndarray = distance_transform_edt(~drawn) - distance_transform_edt(drawn)
    count = min(round(INK * _FINE**2), outside.size)
    thick: np.ndarray = outside <= np.partition(outside.ravel(), count - 1)[count - 1]
    return thick
