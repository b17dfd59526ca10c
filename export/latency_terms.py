"""What a network's latency is made of: terms that a back end's time grows with, summed over the network.

For each kind of operation these are multiply-adds (as counted, and with channels rounded up to a
block of SIMD lanes), elements read and written, weights read, and the call itself. A latency model
weighs them; see `latency_model.py`. `trace_terms` takes them from a trace, `population_terms` works
them out for many networks at once, in NumPy; tests hold the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scalenet_zoo.cost import squeeze_channels
from scalenet_zoo.rounding import scale_depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.cost import Population, Trace

    Floats = NDArray[np.float64]
    Values = float | NDArray[Any]  # one network's, or those of many

BLOCK = 16
"""Channels that a back end computes together: lanes of AVX-512 in fp32, or rows of a tensor core in fp16."""

CACHES = (2**19, 2**22)
"""Elements that are taken to fit into a core's own cache, and into one that cores share: 2 and 16 MiB in fp32."""

_CONV = ("blocks", "macs", "slim", "read", "written", "far", "farther", "weights", "calls")
_KINDS: dict[str, tuple[str, ...]] = {
    "widen": _CONV,  # 1x1, to more channels
    "narrow": _CONV,  # 1x1, to fewer
    "dense": _CONV,  # k x k
    "depthwise": ("k0", "k1", "k2", "rows", "strided", "far", "farther", "calls"),
    "pool": ("elements", "calls"),
    "elementwise": ("elements", "calls"),
    "resize": ("elements", "calls"),
    "concat": ("elements", "calls"),
    "linear": ("weights", "calls"),
    "graph": ("image", "output", "calls"),
}

TERMS = tuple(f"{kind}.{term}" for kind, terms in _KINDS.items() for term in terms)
"""Names of the terms, in the order of every array of them."""

KIND_SLICES = {
    kind: slice(TERMS.index(f"{kind}.{terms[0]}"), TERMS.index(f"{kind}.calls") + 1) for kind, terms in _KINDS.items()
}
"""Where each kind's terms are."""


class _Sum:
    """Terms (terms, ...) added up; every argument is a number or an array that broadcasts to the rest of the shape."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.terms = np.zeros((len(TERMS), *shape))

    def add(self, kind: str, *values: Values, count: Values = 1) -> None:
        """Add an operation so many times."""
        for i, value in enumerate((*values, 1.0), start=KIND_SLICES[kind].start):
            self.terms[i] += np.multiply(value, count)

    def conv(
        self,
        before: Values,
        channels: Values,
        kernel: int,
        read: Values,
        written: Values,
        count: Values = 1,
    ) -> None:
        """A convolution from `before` channels of `read` pixels."""
        before, channels = np.asarray(before, dtype=float), np.asarray(channels, dtype=float)
        inward, outward = _blocks(before), _blocks(channels)
        weights = before * channels * kernel**2
        values = (
            inward * outward * kernel**2 * written,
            weights * written,
            np.sqrt(inward) * outward * kernel**2 * written,
            inward * read,
            outward * written,
            *_beyond_caches(inward * read + outward * written),
            weights,
        )
        if kernel > 1:
            self.add("dense", *values, count=count)
        else:
            self.add("widen", *values, count=count * (channels >= before))
            self.add("narrow", *values, count=count * (channels < before))

    def depthwise(self, channels: Values, kernel: Values, read: Values, written: Values, count: Values = 1) -> None:
        """A depthwise convolution."""
        kernel = np.asarray(kernel, dtype=float)
        blocks = _blocks(channels)
        outputs = blocks * written
        strided = blocks * np.where(np.asarray(read) > written, read, 0)
        rows = blocks * np.sqrt(written) * kernel
        far = _beyond_caches(blocks * read + outputs)
        self.add("depthwise", outputs, outputs * kernel, outputs * kernel**2, rows, strided, *far, count=count)


def _blocks(channels: Values) -> Floats:
    """Channels, rounded up to whole blocks."""
    whole: Floats = np.ceil(np.asarray(channels) / BLOCK) * BLOCK
    return whole


def _beyond_caches(elements: Values) -> tuple[Floats, Floats]:
    """Elements of an operation's tensors that a cache near the core, or one shared by cores, has no room for."""
    near, shared = (np.maximum(0.0, np.asarray(elements) - size) for size in CACHES)
    return near, shared


def trace_terms(trace: Trace) -> Floats:
    """The terms (terms,) of what a trace lists."""
    total = _Sum()
    for op in trace.ops:
        (before, height, width), (channels, *after) = trace.shapes[op.inputs[0]], trace.shapes[op.output]
        read, written = height * width, after[0] * after[1]
        if op.kind == "conv" and op.groups > 1:
            total.depthwise(channels, op.kernel, read, written)
        elif op.kind == "conv":
            total.conv(before, channels, op.kernel, read, written)
        elif op.kind == "linear":
            total.add("linear", before * channels)
        else:
            total.add(op.kind, before * read if op.kind == "pool" else channels * written)
    image, output = (float(np.prod(trace.shapes[i])) for i in (0, trace.output))
    total.add("graph", image, output)
    return total.terms


def population_terms(population: Population) -> Floats:
    """The terms (terms, N, M) of N base models under M strategies."""
    base, kernels, layers = population.family.base, population.kernels, population.layers
    depth, width, resolution = population.strategies
    total = _Sum((len(kernels), len(width)))

    def layer(before: Values, size: Values, stride: int, count: Values) -> Values:
        """An MBConv layer without its depthwise convolution; gives its hidden channels."""
        hidden = np.multiply(stage.expand, before)
        squeezed = squeeze_channels(before, hidden, base.squeeze)
        outputs = hidden * np.square(after)
        if stage.expand > 1:
            total.conv(before, hidden, 1, np.square(size), np.square(size), count)
        total.add("pool", outputs, count=count)
        total.conv(hidden, squeezed, 1, 1, 1, count)
        total.conv(squeezed, hidden, 1, 1, 1, count)
        total.add("elementwise", outputs, count=count)
        total.conv(hidden, channels, 1, np.square(after), np.square(after), count)
        if stride == 1:
            total.add("elementwise", channels * np.square(after), count=count * np.equal(before, channels))
        return hidden

    size = -(-resolution // base.stem.stride)
    before = population.channels(base.stem.channels)
    total.conv(population.in_channels, before, base.stem.kernel, resolution**2, size**2)
    for s, stage in enumerate(base.stages):
        channels = population.channels(stage.channels)
        after = -(-size // stage.stride)
        own = layers[:, s, None]
        count = scale_depth(own, depth)  # (N, M)
        hidden = layer(before, size, stage.stride, 1)
        total.depthwise(hidden, kernels[:, s, :1], size**2, after**2)
        hidden = layer(channels, after, 1, count - 1)
        for i in range(1, kernels.shape[2]):
            total.depthwise(hidden, kernels[:, s, i : i + 1], after**2, after**2, (i < own) & (i < count))
        last = np.take_along_axis(kernels[:, s], own - 1, axis=1)
        total.depthwise(hidden, last, after**2, after**2, np.maximum(count - own, 0))
        before, size = channels, after
    head = population.head
    total.conv(before, head, 1, size**2, size**2)
    total.add("pool", head * size**2)
    if population.class_count:
        total.add("linear", head * population.class_count)
    total.add("graph", population.in_channels * resolution**2, population.class_count or head)
    return total.terms
