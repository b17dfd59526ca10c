"""What a network's latency is made of: terms that a back end's time grows with, summed over the network.

For each kind of operation these are multiply-adds (as counted, and with channels rounded up to a
block of SIMD lanes), elements read and written, weights read, and the call itself. A latency model
weighs them; see `model.py`. `trace_terms` takes them from a trace; `population_terms` and
`multipath_terms` work them out for many networks at once, in NumPy; tests hold them equal to it.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from scalenet_zoo.arch.multipath_cost import BRANCHES
from scalenet_zoo.arch.rounding import squeeze_channels
from scalenet_zoo.arch.spec import FUSION_STEPS, Module, MultipathNetwork
from scalenet_zoo.arch.trace import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.population import Population
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import DenseHead, Input
    from scalenet_zoo.arch.trace import Trace

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
        """A convolution from `before` channels of `read` pixels; a transposed one, if it writes more than it reads."""
        before, channels = np.asarray(before, dtype=float), np.asarray(channels, dtype=float)
        inward, outward = _blocks(before), _blocks(channels)
        weights = before * channels * kernel**2
        applied = np.minimum(read, written)  # how often the weights are
        values = (
            inward * outward * kernel**2 * applied,
            weights * applied,
            np.sqrt(inward) * outward * kernel**2 * applied,
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
    _, width, resolution = population.strategies
    total = _Sum((len(kernels), len(width)))

    def layer(before: Values, size: Values, stride: int, count: Values) -> Values:
        """An MBConv layer without its depthwise convolution; gives its hidden channels."""
        hidden = np.multiply(stage.expand, before)
        squeezed = squeeze_channels(before, hidden, base.squeeze)
        outputs = hidden * np.square(after)
        if stage.expand > 1:
            total.conv(before, hidden, 1, np.square(size), np.square(size), count)
        if base.squeeze != "none":
            total.add("pool", outputs, count=count)
            total.conv(hidden, squeezed, 1, 1, 1, count)
            total.conv(squeezed, hidden, 1, 1, 1, count)
            total.add("elementwise", outputs, count=count)
        total.conv(hidden, channels, 1, np.square(after), np.square(after), count)
        if stride == 1:
            total.add("elementwise", channels * np.square(after), count=count * np.equal(before, channels))
        return hidden

    size = -(-resolution // base.stem.stride)
    before = population.stem
    total.conv(population.in_channels, before, base.stem.kernel, resolution**2, size**2)
    for s, stage in enumerate(base.stages):
        channels = population.channels(stage.channels)
        after = -(-size // stage.stride)
        own = layers[:, s, None]
        count = population.scaled_layers(s)
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


def multipath_terms(
    depth: Integers,
    fusion: NDArray[np.bool_],
    width: int,
    head: DenseHead,
    image: Input,
    classes: int,
) -> Floats:
    """The terms (terms, n) of n multipath networks.

    A block of a branch, and a path between two branches, has the same terms in whichever module it is. They are what
    one more of it adds to a small network; the small network without its blocks is what all networks share.

    Args:
        depth: blocks of each branch, (n, modules, 4), 0 where there is no branch.
        fusion: paths, (n, modules, to, step, from), as `spec.Module` has them.
        width: channels of the highest-resolution branch.
        head: of all networks.
        image: the size of their input.
        classes: classes or joints; 0: the networks have no classifier.
    """

    def small(deeper: int | None = None, path: tuple[int, int] | None = None) -> Floats:
        modules = _small_module(2), _small_module(3), _small_module(BRANCHES, deeper, path)
        return trace_terms(trace(MultipathNetwork(width=width, head=head, modules=modules), image, classes))

    smallest = small()
    block = np.stack([small(deeper=branch) - smallest for branch in range(BRANCHES)], axis=1)  # (terms, 4)
    path = np.zeros((len(TERMS), BRANCHES, BRANCHES))  # (terms, to, from)
    for to, origin in permutations(range(BRANCHES), 2):
        path[:, to, origin] = small(path=(to, origin)) - smallest
    shared = smallest - block @ [3, 3, 2, 1]  # modules that have the branch
    blocks, paths = depth.sum(axis=1), fusion.sum(axis=(1, 3))
    terms: Floats = shared[:, None] + block @ blocks.T + np.tensordot(path, paths, axes=((1, 2), (1, 2)))
    return terms


def _small_module(branches: int, deeper: int | None = None, path: tuple[int, int] | None = None) -> Module:
    """A module with a block on every branch, two on the branch `deeper`, and no path but (to, from) at most."""
    depth = tuple(1 + (branch == deeper) for branch in range(branches))
    fusion = tuple(
        tuple(
            tuple(int(to == origin or (not step and (to, origin) == path)) for origin in range(branches))
            if step < depth[to]
            else (0,) * branches
            for step in range(FUSION_STEPS)
        )
        for to in range(branches)
    )
    return Module(depth=depth, fusion=fusion)
