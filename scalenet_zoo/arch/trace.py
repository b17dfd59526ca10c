"""The operations that a network executes on one image, and their cost in exact integers.

`trace` walks a spec and lists the operations of the built network in order, under the names of its modules. MACs and
parameters are sums over that list; peak activation memory is a sweep over it. `population.py` computes the cost of
many networks at once.

MACs are multiply-adds of convolutions and linear layers, as in both papers; batch norm, activations, pooling and
additions count as none. Parameters include biases and batch norm's weight and bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalenet_zoo.arch.spec import Input, Layer, MBConvNetwork, Module, MultipathNetwork

STEM_CHANNELS = 64
"""Multipath: channels of the stem's two convolutions."""
BOTTLENECKS = 4
"""Multipath: bottleneck blocks of the first stage."""
BOTTLENECK_CHANNELS = 256
"""Multipath: output channels of the first stage."""
UPSCALED_BLOCKS = 4
"""Multipath: residual blocks at stride 2 in the head `bottom_up`."""


class Op(NamedTuple):
    """One executed operation.

    Attributes:
        name: the path of its module in the built network; empty for an addition or the like.
        kind: what it does; `elementwise` may overwrite an input of the same shape that no later operation reads.
        inputs: indices of the tensors that it reads, in `Trace.shapes`.
        output: index of the tensor that it writes, in `Trace.shapes`.
        macs: multiply-adds.
        params: trainable parameters.
        kernel: kernel size of a convolution; 0 for other kinds.
        groups: groups of a convolution.
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
    """The operations of a network on one image, and the shapes of their tensors.

    Attributes:
        shapes: (channels, height, width) of each tensor; tensor 0 is the image.
        ops: the operations, in the order in which they run.
        output: index of the network's output, in `shapes`.
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
        """The operations that the output depends on: all but those on dead ends."""
        needed = {self.output}
        live = []
        for op in reversed(self.ops):
            if op.output in needed:
                live.append(op)
                needed.update(op.inputs)
        return live[::-1]

    @cached_property
    def peak_activation_bytes(self) -> int:
        """The most bytes that the tensors of one fp32 image take at any moment.

        This assumes a runtime that folds batch norm and activations into the operation before them, frees a tensor
        after its last reader, and runs elementwise operations in place where it can.
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
        """Add a "same"-padded convolution and the batch norm that follows it; return its output's index."""
        before, height, width = self.shapes[x]
        height, width = -(-height // stride), -(-width // stride)
        weights = before // groups * channels * kernel**2
        params = weights + (2 * norm + bias) * channels
        op = Op(name, "conv", (x,), len(self.shapes), weights * height * width, params, kernel, groups)
        return self._add(op, (channels, height, width))

    def upconv(self, name: str, x: int, channels: int) -> int:
        """Add a 4x4 transposed convolution that doubles height and width, and the batch norm that follows it.

        The count multiplies the kernel's weights by the input values. Published counts of HigherHRNet multiply them by
        the output values, which gives four times as much.
        """
        before, height, width = self.shapes[x]
        weights = before * channels * 4**2
        op = Op(name, "conv", (x,), len(self.shapes), weights * height * width, weights + 2 * channels, kernel=4)
        return self._add(op, (channels, 2 * height, 2 * width))

    def linear(self, name: str, x: int, channels: int) -> int:
        """Add a linear layer with bias; return its output's index."""
        weights = self.shapes[x][0] * channels
        return self._add(Op(name, "linear", (x,), len(self.shapes), weights, weights + channels), (channels, 1, 1))

    def pool(self, x: int) -> int:
        """Add a global average pool; return its output's index."""
        return self._add(Op("", "pool", (x,), len(self.shapes)), (self.shapes[x][0], 1, 1))

    def elementwise(self, x: int, y: int) -> int:
        """Add a sum or product of x and y, in the shape of x; return its output's index."""
        return self._add(Op("", "elementwise", (x, y), len(self.shapes)), self.shapes[x])

    def resize(self, x: int, like: int) -> int:
        """Add upsampling to the height and width of `like`; if x has them already, add nothing and return x."""
        if self.shapes[x][1:] == self.shapes[like][1:]:
            return x
        return self._add(Op("", "resize", (x,), len(self.shapes)), (self.shapes[x][0], *self.shapes[like][1:]))

    def concat(self, xs: list[int]) -> int:
        """Add a concatenation along the channels; return its output's index."""
        shape = (sum(self.shapes[x][0] for x in xs), *self.shapes[xs[0]][1:])
        return self._add(Op("", "concat", tuple(xs), len(self.shapes)), shape)

    def _add(self, op: Op, shape: tuple[int, int, int]) -> int:
        self.ops.append(op)
        self.shapes.append(shape)
        return op.output


def trace(network: MBConvNetwork | MultipathNetwork, image: Input, classes: int) -> Trace:
    """List the operations that a network executes on one image.

    Args:
        network: the network part of a spec.
        image: the size of its input.
        classes: the number of classes or joints; 0: the network has no classifier.
    """
    result = Trace([(image.channels, image.height, image.width)])
    if network.type == "mbconv":
        result.output = _trace_mbconv(result, network, classes)
    else:
        result.output = _trace_multipath(result, network, classes)
    return result


def trace_layers(layers: Sequence[Layer], shape: tuple[int, int, int]) -> Trace:
    """List the operations of consecutive MBConv layers on a tensor of a shape (channels, height, width)."""
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
    if layer.expands(before):
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
