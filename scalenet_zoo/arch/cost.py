"""What a network costs, in closed form and exact integers: MACs, parameters, peak activation memory.

`trace` walks a spec and lists the operations that the built network executes, in their order, under
the names of its modules; every figure is a sum or a sweep over that list. `population_cost` costs
many mbconv base models under many scaling strategies at once, in NumPy.

MACs are multiply-adds of convolutions and linear layers, as in both papers; batch norm, activations,
pooling and additions cost none. Parameters include biases and batch norm's weight and bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from scalenet_zoo.arch.rounding import scale_channels, scale_depth
from scalenet_zoo.core.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import Input, Layer, MBConvNetwork, Module, MultipathNetwork

STEM_CHANNELS = 64
"""Multipath: channels of the stem's two convolutions."""
BOTTLENECKS = 4
"""Multipath: bottleneck blocks of the first stage."""
BOTTLENECK_CHANNELS = 256
"""Multipath: channels that the first stage ends with."""
UPSCALED_BLOCKS = 4
"""Multipath: residual blocks at stride 2 of the head bottom_up."""


@dataclass(frozen=True, slots=True)
class Op:
    """One executed operation.

    Attributes:
        name: the path of its module in the built network; empty for an addition or the like.
        kind: `elementwise` may write over an input of the same shape that nobody needs any more.
        inputs: indices of the tensors read.
        output: index of the tensor written, in `Trace.shapes`.
        kernel: of a convolution.
        groups: of a convolution.
    """

    name: str
    kind: Literal["conv", "linear", "pool", "resize", "concat", "elementwise"]
    inputs: tuple[int, ...]
    output: int
    macs: int = 0
    params: int = 0
    kernel: int = 0
    groups: int = 1


@dataclass
class Trace:
    """The operations of a network for one image, and the shapes (channels, height, width) of their tensors.

    Tensor 0 is the image, `output` what the network gives.
    """

    shapes: list[tuple[int, int, int]]
    ops: list[Op] = field(default_factory=list)
    output: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(op.macs for op in self.ops)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(op.params for op in self.ops)

    @property
    def live_ops(self) -> list[Op]:
        """The operations that the output needs: all but those on dead ends."""
        needed = {self.output}
        live = []
        for op in reversed(self.ops):
            if op.output in needed:
                live.append(op)
                needed.update(op.inputs)
        return live[::-1]

    @cached_property
    def peak_activation_bytes(self) -> int:
        """Bytes that the tensors of one fp32 image take at the worst moment.

        Assumed is a runtime that folds batch norm and activations into the operation before, frees a
        tensor after its last reader, and does elementwise operations in place where it can.
        """
        last_reader = {tensor: step for step, op in enumerate(self.ops) for tensor in op.inputs}
        live = {0}
        peak = 0
        for step, op in enumerate(self.ops):
            dying = {tensor for tensor in op.inputs if last_reader[tensor] == step}
            in_place = op.kind == "elementwise" and any(self.shapes[t] == self.shapes[op.output] for t in dying)
            needed = sum(map(self._elements, live)) + (0 if in_place else self._elements(op.output))
            peak = max(peak, needed)
            live = (live - dying) | {op.output}
        return 4 * peak

    def _elements(self, tensor: int) -> int:
        channels, height, width = self.shapes[tensor]
        return channels * height * width

    def conv(
        self,
        name: str,
        x: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        bias: bool = False,
    ) -> int:
        """A "same"-padded convolution, with the batch norm that follows it."""
        before, height, width = self.shapes[x]
        height, width = -(-height // stride), -(-width // stride)
        weights = before // groups * channels * kernel**2
        params = weights + (2 * norm + bias) * channels
        op = Op(name, "conv", (x,), len(self.shapes), weights * height * width, params, kernel, groups)
        return self._add(op, (channels, height, width))

    def upconv(self, name: str, x: int, channels: int) -> int:
        """A 4x4 transposed convolution that doubles height and width, with the batch norm that follows it.

        Each value read is multiplied with the whole kernel. Published counts of HigherHRNet take it times each value
        written, which is four times as much.
        """
        before, height, width = self.shapes[x]
        weights = before * channels * 4**2
        op = Op(name, "conv", (x,), len(self.shapes), weights * height * width, weights + 2 * channels, kernel=4)
        return self._add(op, (channels, 2 * height, 2 * width))

    def linear(self, name: str, x: int, channels: int) -> int:
        """A linear layer with bias."""
        weights = self.shapes[x][0] * channels
        return self._add(Op(name, "linear", (x,), len(self.shapes), weights, weights + channels), (channels, 1, 1))

    def pool(self, x: int) -> int:
        """A global average pool."""
        return self._add(Op("", "pool", (x,), len(self.shapes)), (self.shapes[x][0], 1, 1))

    def elementwise(self, x: int, y: int) -> int:
        """The sum or product of x and y, of the shape of x."""
        return self._add(Op("", "elementwise", (x, y), len(self.shapes)), self.shapes[x])

    def resize(self, x: int, like: int) -> int:
        """Upsampling to the height and width of another tensor; nothing is done when x has them."""
        if self.shapes[x][1:] == self.shapes[like][1:]:
            return x
        return self._add(Op("", "resize", (x,), len(self.shapes)), (self.shapes[x][0], *self.shapes[like][1:]))

    def concat(self, xs: list[int]) -> int:
        """Tensors joined along their channels."""
        shape = (sum(self.shapes[x][0] for x in xs), *self.shapes[xs[0]][1:])
        return self._add(Op("", "concat", tuple(xs), len(self.shapes)), shape)

    def _add(self, op: Op, shape: tuple[int, int, int]) -> int:
        self.ops.append(op)
        self.shapes.append(shape)
        return op.output


def trace(network: MBConvNetwork | MultipathNetwork, image: Input, classes: int) -> Trace:
    """List what a network executes on one image.

    Args:
        network: the network part of a spec.
        image: the size of its input.
        classes: classes or joints; 0: the network has no classifier.
    """
    result = Trace([(image.channels, image.height, image.width)])
    if network.type == "mbconv":
        result.output = _trace_mbconv(result, network, classes)
    else:
        result.output = _trace_multipath(result, network, classes)
    return result


def trace_layers(layers: Sequence[Layer], shape: tuple[int, int, int]) -> Trace:
    """List what some MBConv layers in a row execute on a tensor of a shape (channels, height, width)."""
    result = Trace([shape])
    for i, layer in enumerate(layers):
        result.output = _trace_layer(result, str(i), result.output, layer)
    return result


def _trace_mbconv(t: Trace, network: MBConvNetwork, classes: int) -> int:
    x = t.conv("stem", 0, network.stem.channels, network.stem.kernel, network.stem.stride)
    for s, stage in enumerate(network.stages):
        for i, layer in enumerate(stage):
            x = _trace_layer(t, f"stages.{s}.{i}", x, layer)
    x = t.pool(t.conv("head", x, network.head.channels, 1))
    return t.linear("classifier", x, classes) if classes else x


def _trace_layer(t: Trace, name: str, x: int, layer: Layer) -> int:
    shortcut = x
    before = t.shapes[x][0]
    if layer.hidden != before:
        x = t.conv(f"{name}.expand", x, layer.hidden, 1)
    x = t.conv(f"{name}.depthwise", x, layer.hidden, layer.kernel, layer.stride, groups=layer.hidden)
    if layer.squeeze:
        gate = t.conv(f"{name}.squeeze.reduce", t.pool(x), layer.squeeze, 1, norm=False, bias=True)
        x = t.elementwise(x, t.conv(f"{name}.squeeze.expand", gate, layer.hidden, 1, norm=False, bias=True))
    x = t.conv(f"{name}.project", x, layer.channels, 1)
    if layer.stride == 1 and layer.channels == before:
        x = t.elementwise(x, shortcut)
    return x


def _trace_multipath(t: Trace, network: MultipathNetwork, classes: int) -> int:
    x = t.conv("stem.0", 0, STEM_CHANNELS, 3, 2)
    x = t.conv("stem.1", x, STEM_CHANNELS, 3, 2)
    for i in range(BOTTLENECKS):
        x = _trace_bottleneck(t, f"stage1.{i}", x)

    channels = [network.width * 2**branch for branch in range(4)]
    xs = [t.conv("transition2.0", x, channels[0], 3), t.conv("transition2.1", x, channels[1], 3, 2)]
    position = 0
    for module in network.modules:
        branches = len(module.depth)
        if branches > len(xs):
            xs.append(t.conv(f"transition{branches}", xs[-1], channels[branches - 1], 3, 2))
            position = 0
        xs = _trace_module(t, f"stage{branches}.{position}", module, xs, channels)
        position += 1

    if network.head == "segmentation":
        x = t.concat([t.resize(x, xs[0]) for x in xs])
        x = t.conv("head", x, t.shapes[x][0], 1, bias=True)
    else:
        x = xs[0]
    if not classes:
        return x
    if network.head == "bottom_up":
        return _trace_bottom_up(t, x, classes)
    return t.conv("classifier", x, classes, 1, norm=False, bias=True)


def _trace_bottom_up(t: Trace, x: int, joints: int) -> int:
    channels = t.shapes[x][0]
    coarse = t.conv("classifier.coarse", x, 2 * joints, 1, norm=False, bias=True)
    x = t.upconv("classifier.upscale", t.concat([x, coarse]), channels)
    for i in range(UPSCALED_BLOCKS):
        x = _trace_block(t, f"classifier.blocks.{i}", x)
    fine = t.conv("classifier.fine", x, joints, 1, norm=False, bias=True)
    return t.concat([fine, t.resize(coarse, fine)])


def _trace_block(t: Trace, name: str, x: int) -> int:
    channels = t.shapes[x][0]
    y = t.conv(f"{name}.conv1", x, channels, 3)
    return t.elementwise(t.conv(f"{name}.conv2", y, channels, 3), x)


def _trace_bottleneck(t: Trace, name: str, x: int) -> int:
    shortcut = x
    x = t.conv(f"{name}.conv1", x, BOTTLENECK_CHANNELS // 4, 1)
    x = t.conv(f"{name}.conv2", x, BOTTLENECK_CHANNELS // 4, 3)
    x = t.conv(f"{name}.conv3", x, BOTTLENECK_CHANNELS, 1)
    if t.shapes[shortcut][0] != BOTTLENECK_CHANNELS:
        shortcut = t.conv(f"{name}.shortcut", shortcut, BOTTLENECK_CHANNELS, 1)
    return t.elementwise(x, shortcut)


def _trace_module(t: Trace, name: str, module: Module, xs: list[int], channels: list[int]) -> list[int]:
    branches = range(len(module.depth))
    for step in range(max(module.depth)):
        xs = list(xs)
        for branch in branches:
            if step < module.depth[branch]:
                xs[branch] = _trace_block(t, f"{name}.blocks.{branch}.{step}", xs[branch])
        fused = []
        for to in branches:
            y = xs[to]
            for origin in branches:
                if origin != to and module.fusion[to][step][origin]:
                    path = f"{name}.paths.{step}.{origin}_to_{to}.convs"
                    y = t.elementwise(y, _trace_path(t, path, xs[origin], origin, to, channels, like=xs[to]))
            fused.append(y)
        xs = fused
    return xs


def _trace_path(t: Trace, name: str, x: int, origin: int, to: int, channels: list[int], like: int) -> int:
    if origin > to:  # to a higher resolution
        return t.resize(t.conv(f"{name}.0", x, channels[to], 1), like)
    for i in range(to - origin):  # each convolution halves the resolution; the last one changes the channels
        last = i == to - origin - 1
        x = t.conv(f"{name}.{i}", x, channels[to if last else origin], 3, 2)
    return x


@dataclass(frozen=True, slots=True)
class PopulationCost:
    """Costs of N base models under M scaling strategies.

    Attributes:
        macs: int64 of shape (N, M).
        params: int64 of shape (N, M).
        peak_activation_bytes: int64 of shape (N, M).
    """

    macs: Integers
    params: Integers
    peak_activation_bytes: Integers


@dataclass
class Population:
    """N base models under M scaling strategies of a family.

    Attributes:
        family: the space's fixed parts: stem, channels, strides and expansions of the stages, head.
        kernels: (N, stages, layers), 0 where a stage has no such layer; the kernels of `family.base` are not used.
        depth: depth multipliers, (M,); these three may also be given as single numbers.
        width: width multipliers, (M,).
        resolution: pixels of the square input, (M,).
        divisor: of the channels; None: the family's.
        classes: None: the family's.
        in_channels: of the image.
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
        """Layers of the base models' stages, (N, stages)."""
        layers: Integers = np.count_nonzero(self.kernels, axis=-1)
        return layers

    def channels(self, base: int) -> Integers:
        """Channels of the base model, scaled: (M,)."""
        return scale_channels(base, self.strategies[1], self.family.divisor if self.divisor is None else self.divisor)

    @property
    def head(self) -> Integers:
        """Channels of the head, (M,) or of no axis."""
        base = self.family.base.head.channels
        return self.channels(base) if self.family.scales_head else np.asarray(base)

    @property
    def class_count(self) -> int:
        """Classes of the networks."""
        return self.family.classes if self.classes is None else self.classes

    @cached_property
    def cost(self) -> PopulationCost:
        """What they cost; see `population_cost`."""
        return population_cost(self)


def population_cost(population: Population) -> PopulationCost:
    """Cost N base models under M strategies, equal to the trace of each, without a loop over either.

    A layer costs a + b k^2, where a and b depend on the strategy and on whether the layer is the first
    of its stage; so a stage costs a sum over its layer count and its kernels' squares.

    Raises:
        BudgetError: a cost does not fit 64 bits.
    """
    base, kernels, layers = population.family.base, population.kernels, population.layers
    in_channels, classes = population.in_channels, population.class_count
    depth, width, resolution = population.strategies

    size = -(-resolution // base.stem.stride)
    before = population.channels(base.stem.channels)
    stem_weights = in_channels * base.stem.kernel**2 * before
    macs = np.broadcast_to(stem_weights * size**2, (len(kernels), len(width))).copy()
    params = np.broadcast_to(stem_weights + 2 * before, macs.shape).copy()
    peak = np.broadcast_to(in_channels * resolution**2 + before * size**2, macs.shape).copy()
    for s, stage in enumerate(base.stages):
        channels = population.channels(stage.channels)
        after = -(-size // stage.stride)
        first = _layer_cost(before, channels, size, after, stage.expand, base.squeeze)
        rest = _layer_cost(channels, channels, after, after, stage.expand, base.squeeze)
        count = scale_depth(layers[:, s, None], depth)  # (N, M)
        widest = float(max(before.max(), channels.max()))
        if stage.expand * widest**2 * float(size.max()) ** 2 * int(count.max()) > 2.0**58:
            raise BudgetError(f"stage {s}: found a cost near 2^63, expected one that fits 64 bits")
        squares = _cumulative_squares(kernels[:, s], layers[:, s], int(count.max()))
        first_square = squares[:, :1]
        rest_squares = np.take_along_axis(squares, count - 1, axis=1) - first_square
        for total, (a, b), (a_rest, b_rest) in ((macs, first[0], rest[0]), (params, first[1], rest[1])):
            total += a + b * first_square + (count - 1) * a_rest + rest_squares * b_rest
        first_peak = _layer_peak(before, channels, size, stage.stride, stage.expand, base.squeeze)
        rest_peak = _layer_peak(channels, channels, after, 1, stage.expand, base.squeeze)
        np.maximum(peak, np.where(count > 1, np.maximum(first_peak, rest_peak), first_peak), out=peak)
        before, size = channels, after
    head = population.head
    macs += before * head * size**2 + head * classes
    params += before * head + 2 * head + (head + 1) * classes
    for live in ((before + head) * size**2, head * (size**2 + 1), head + classes):  # head, pool, classifier
        np.maximum(peak, live, out=peak)
    return PopulationCost(macs, params, 4 * peak)


def _layer_cost(
    before: Integers, channels: Integers, size: Integers, after: Integers, expand: int, squeeze: str
) -> tuple[tuple[Integers, Integers], tuple[Integers, Integers]]:
    """((a, b) of the MACs, (a, b) of the parameters) of an MBConv layer with a kernel of a + b k^2."""
    hidden = expand * before
    squeezed = squeeze_channels(before, hidden, squeeze)
    expansion = before * hidden if expand > 1 else 0 * before
    gate = 2 * hidden * squeezed
    projection = hidden * channels
    macs = expansion * size**2 + gate + projection * after**2, hidden * after**2
    norms = 2 * ((2 * hidden if expand > 1 else hidden) + channels)
    params = expansion + gate + squeezed + hidden + projection + norms, hidden
    return macs, params


def _layer_peak(
    before: Integers, channels: Integers, size: Integers, stride: int, expand: int, squeeze: str
) -> Integers:
    """Elements that live at the worst moment of an MBConv layer, by the rules of `Trace.peak_activation_bytes`."""
    hidden, after = expand * before, -(-size // stride)
    squeezed = squeeze_channels(before, hidden, squeeze)
    x, expanded, filtered, y = before * size**2, hidden * size**2, hidden * after**2, channels * after**2
    kept: Integers = np.where((stride == 1) & (before == channels), x, 0)  # for the shortcut
    peak: Integers = np.maximum(x + expanded, expanded + filtered + kept) if expand > 1 else x + filtered
    later: Integers = kept + filtered + np.maximum(hidden + squeezed, y)
    return np.maximum(peak, later)


def _cumulative_squares(kernels: Integers, layers: Integers, longest: int) -> Integers:
    """Sums of k^2 over a stage's first 1, 2, ... `longest` layers, the last choice repeated: (N, longest)."""
    position = np.minimum(np.arange(longest), layers[:, None] - 1)
    return np.cumsum(np.take_along_axis(kernels.astype(np.int64), position, axis=1) ** 2, axis=1)


def squeeze_channels(before: ArrayLike, hidden: ArrayLike, squeeze: str) -> Integers:
    """A quarter of a layer's input ("input") or expanded ("expanded") channels, at least 1."""
    reduced: Integers = np.asarray(before if squeeze == "input" else hidden) // 4
    return np.maximum(1, reduced)
