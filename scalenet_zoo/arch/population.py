"""The cost of many mbconv networks at once, in NumPy; it equals the cost that `trace` gives for each.

`Population` holds base models under scaling strategies; `multipath_cost.py` does the same for multipath networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.arch.rounding import scale_channels, scale_depth, squeeze_channels
from scalenet_zoo.core.errors import BudgetError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.rounding import Integers


@dataclass(frozen=True, slots=True)
class PopulationCost:
    """Costs of N base models under M scaling strategies.

    Attributes:
        macs: int64 of shape (N, M).
        params: int64 of shape (N, M).
    """

    macs: Integers
    params: Integers


@dataclass
class Population:
    """N base models under M scaling strategies of a family.

    Attributes:
        family: the fixed parts: stem, channels, strides and expansions of the stages, and head. The kernels of
            `family.base` are not used.
        kernels: the kernel of each layer, (N, stages, layers); 0 where a stage has no such layer.
        depth: depth multipliers, (M,) or one number.
        width: width multipliers, (M,) or one number.
        resolution: pixels along a side of the square input, (M,) or one number.
        divisor: channels are multiples of it; None: the family's divisor.
        classes: the number of classes; None: the family's.
        in_channels: channels of the image.
    """

    family: Family
    kernels: Integers
    depth: ArrayLike
    width: ArrayLike
    resolution: ArrayLike
    divisor: int | None = None
    classes: int | None = None
    in_channels: int = 3

    @cached_property
    def strategies(self) -> tuple[NDArray[np.float64], NDArray[np.float64], Integers]:
        """Depth, width and resolution, each (M,)."""
        depth, width, resolution = np.broadcast_arrays(*map(np.atleast_1d, (self.depth, self.width, self.resolution)))
        return depth.astype(np.float64), width.astype(np.float64), resolution.astype(np.int64)

    @property
    def layers(self) -> Integers:
        """The number of layers in each stage of the base models, (N, stages)."""
        layers: Integers = np.count_nonzero(self.kernels, axis=-1)
        return layers

    def channels(self, base: int) -> Integers:
        """Scale a channel count of the base model, (M,)."""
        return scale_channels(base, self.strategies[1], self.family.divisor if self.divisor is None else self.divisor)

    @property
    def stem(self) -> Integers:
        """Channels of the stem, (M,)."""
        base = self.family.base.stem.channels
        return self.channels(base) if self.family.scales_stem else np.full(len(self.strategies[1]), base)

    def scaled_layers(self, stage: int) -> Integers:
        """The number of layers in a stage after scaling, (N, M)."""
        depth = self.strategies[0]
        scales = self.family.base.stages[stage].scales_depth
        return scale_depth(self.layers[:, stage, None], depth if scales else np.ones_like(depth))

    @property
    def head(self) -> Integers:
        """Channels of the head, (M,), or one number without an axis if width does not apply to the head."""
        base = self.family.base.head.channels
        return self.channels(base) if self.family.scales_head else np.asarray(base)

    @property
    def class_count(self) -> int:
        """Classes of the networks."""
        return self.family.classes if self.classes is None else self.classes

    @cached_property
    def cost(self) -> PopulationCost:
        """MACs and parameters of the networks; see `population_cost`."""
        return population_cost(self)

    @cached_property
    def peak_activation_bytes(self) -> Integers:
        """The most bytes that a network's tensors take at any moment, as `Trace.peak_activation_bytes`, (N, M)."""
        base, resolution = self.family.base, self.strategies[2]
        before, size = self.stem, -(-resolution // base.stem.stride)
        live = self.in_channels * resolution**2 + before * size**2
        peak = np.broadcast_to(live, self.cost.macs.shape).copy()  # fits 64 bits if the costs do
        for s, stage in enumerate(base.stages):
            channels, after = self.channels(stage.channels), -(-size // stage.stride)
            first = _layer_peak(before, channels, size, stage.stride, stage.expand, base.squeeze)
            rest = _layer_peak(channels, channels, after, 1, stage.expand, base.squeeze)
            has_more = self.scaled_layers(s) > 1
            np.maximum(peak, np.where(has_more, np.maximum(first, rest), first), out=peak)
            before, size = channels, after
        head = self.head
        for live in ((before + head) * size**2, head * (size**2 + 1), head + self.class_count):
            np.maximum(peak, live, out=peak)  # of head, pool and classifier
        return 4 * peak


def population_cost(population: Population) -> PopulationCost:
    """Compute the cost of N base models under M strategies, without a loop over either.

    A layer with kernel k costs a + b k^2, where a and b depend on the strategy and on whether the layer is the first
    of its stage. So the cost of a stage follows from its number of layers and the sum of its squared kernels.

    Raises:
        BudgetError: a cost does not fit 64 bits.
    """
    base, kernels, layers = population.family.base, population.kernels, population.layers
    in_channels, classes = population.in_channels, population.class_count
    _, width, resolution = population.strategies

    size = -(-resolution // base.stem.stride)
    before = population.stem
    stem_weights = in_channels * base.stem.kernel**2 * before
    macs = np.broadcast_to(stem_weights * size**2, (len(kernels), len(width))).copy()
    params = np.broadcast_to(stem_weights + 2 * before, macs.shape).copy()
    for s, stage in enumerate(base.stages):
        channels = population.channels(stage.channels)
        after = -(-size // stage.stride)
        first = _layer_cost(before, channels, size, after, stage.expand, base.squeeze)
        rest = _layer_cost(channels, channels, after, after, stage.expand, base.squeeze)
        count = population.scaled_layers(s)  # (N, M)
        widest = float(max(before.max(), channels.max()))
        if stage.expand * widest**2 * float(size.max()) ** 2 * int(count.max()) > 2.0**58:
            raise BudgetError(f"stage {s}: found a cost near 2^63, expected one that fits in 64 bits")
        squares = _cumulative_squares(kernels[:, s], layers[:, s], int(count.max()))
        first_square = squares[:, :1]
        rest_squares = np.take_along_axis(squares, count - 1, axis=1) - first_square
        for total, (a, b), (a_rest, b_rest) in ((macs, first[0], rest[0]), (params, first[1], rest[1])):
            total += a + b * first_square + (count - 1) * a_rest + rest_squares * b_rest
        before, size = channels, after
    head = population.head
    macs += before * head * size**2 + head * classes
    params += before * head + 2 * head + (head + 1) * classes
    return PopulationCost(macs, params)


def _layer_cost(
    before: Integers, channels: Integers, size: Integers, after: Integers, expand: int, squeeze: str
) -> tuple[tuple[Integers, Integers], tuple[Integers, Integers]]:
    """The MACs' (a, b) and the parameters' (a, b) of an MBConv layer that costs a + b k^2 with kernel k."""
    hidden = expand * before
    squeezed = squeeze_channels(before, hidden, squeeze)
    expansion = before * hidden if expand > 1 else 0 * before
    gate = 2 * hidden * squeezed
    biases = squeezed + hidden if squeeze != "none" else 0 * hidden
    projection = hidden * channels
    macs = expansion * size**2 + gate + projection * after**2, hidden * after**2
    norms = 2 * ((2 * hidden if expand > 1 else hidden) + channels)
    params = expansion + gate + biases + projection + norms, hidden
    return macs, params


def _layer_peak(
    before: Integers, channels: Integers, size: Integers, stride: int, expand: int, squeeze: str
) -> Integers:
    """The most elements that live at once within an MBConv layer, by the rules of `Trace.peak_activation_bytes`."""
    hidden, after = expand * before, -(-size // stride)
    squeezed = squeeze_channels(before, hidden, squeeze)
    x, expanded, filtered, y = before * size**2, hidden * size**2, hidden * after**2, channels * after**2
    kept: Integers = np.where((stride == 1) & (before == channels), x, 0)  # for the shortcut
    peak: Integers = np.maximum(x + expanded, expanded + filtered + kept) if expand > 1 else x + filtered
    gate = hidden + squeezed if squeeze != "none" else 0 * hidden
    later: Integers = kept + filtered + np.maximum(gate, y)
    return np.maximum(peak, later)


def _cumulative_squares(kernels: Integers, layers: Integers, longest: int) -> Integers:
    """Sums of k^2 over a stage's first 1, 2, ... `longest` layers, where the last choice repeats, (N, longest)."""
    position = np.minimum(np.arange(longest), layers[:, None] - 1)
    return np.cumsum(np.take_along_axis(kernels.astype(np.int64), position, axis=1) ** 2, axis=1)
