"""Rounding of scaled layers, channels and pixels to whole numbers: in exact decimals, for numbers or arrays.

Multipliers are counted in millionths, as integers: 80 x 1.20 is 96, where binary floating point gives
96.00000000000001 and a ceiling of 97.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

MILLION = 1_000_000


def millionths(multiplier: ArrayLike) -> Integers:
    """Convert multipliers to integers: 1.04 becomes 1,040,000. Decimals past the sixth are rounded."""
    return np.rint(np.asarray(multiplier, dtype=np.float64) * MILLION).astype(np.int64)


def scale_depth(layers: ArrayLike, depth: ArrayLike) -> Integers:
    """Scale numbers of layers to ceil(layers x depth), as both ScaleNet and EfficientNet do."""
    return -(-np.asarray(layers, dtype=np.int64) * millionths(depth) // MILLION)


def scale_channels(channels: ArrayLike, width: ArrayLike, divisor: int) -> Integers:
    """Scale channel counts to multiples of `divisor`.

    With divisor 1, the exact value is rounded up, ceil(c w), as in ScaleNet. With a larger divisor, it is rounded to
    the nearest multiple, but never below 0.9 of the exact value, as in EfficientNet.
    """
    exact = np.asarray(channels, dtype=np.int64) * millionths(width)
    if divisor == 1:
        return -(-exact // MILLION)
    unit = divisor * MILLION
    rounded: Integers = np.maximum(divisor, (2 * exact + unit) // (2 * unit) * divisor)
    too_low: NDArray[np.bool_] = 10 * rounded * MILLION < 9 * exact
    return rounded + divisor * too_low.astype(np.int64)


def squeeze_channels(before: ArrayLike, hidden: ArrayLike, squeeze: str) -> Integers:
    """A quarter of a layer's input ("input") or expanded ("expanded") channels, at least 1; 0 for "none"."""
    if squeeze == "none":
        return np.zeros_like(np.asarray(hidden))
    reduced: Integers = np.asarray(before if squeeze == "input" else hidden) // 4
    return np.maximum(1, reduced)
