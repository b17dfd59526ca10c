"""The terms of a network's latency: quantities with which a back end's time grows, summed over the network.

For each kind of operation, these are multiply-adds (as counted, and with channels rounded up to a block of SIMD lanes),
elements read and written, weights read, and the call itself. Integer kernels go from pixel to pixel, with all channels
of a pixel side by side; int8 has extra terms for this. Activations and quantisation need no terms of their own: their
time grows with the elements that a layer writes, since all layers of a family have the same activation. A latency model
weighs the terms; see `model.py`.

`trace_terms` takes the terms from a trace; `population_terms` and `multipath_terms` compute them for many networks at
once, in NumPy. Tests check that the results are equal.
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
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scalenet_zoo.arch.population import Population
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import DenseHead, Input
    from scalenet_zoo.arch.trace import Trace
    from scalenet_zoo.core.backends import Precision

    Floats = NDArray[np.float64]
    Values = float | NDArray[Any]  # the value of one network, or an array for many

BLOCK = 16
"""Channels that a back end computes together: the lanes of AVX-512 in fp32, or the rows of a tensor core in fp16."""

CACHES = (2**19, 2**22)
"""The assumed sizes, in elements, of a core's own cache and of the cache that cores share: 2 and 16 MiB in fp32."""

_CONV = ("blocks", "macs", "slim", "read", "written", "far", "farther", "weights", "calls")
_KINDS: dict[str, tuple[str, ...]] = {
    "widen": _CONV,  # 1x1, to more channels
    "narrow": _CONV,  # 1x1, to fewer
    "dense": _CONV,  # k x k
    "depthwise": ("k0", "k1", "k2", "rows", "strided", "far", "farther", "points", "left", "calls"),
    "pool": ("elements", "calls"),
    "elementwise": ("elements", "gated", "calls"),
    "resize": ("elements", "calls"),
    "concat": ("elements", "calls"),
    "linear": ("weights", "calls"),
    "graph": ("image", "output", "calls"),
}

KINDS = tuple(_KINDS)
"""The names of the kinds of operations."""

INT8_TERMS = tuple(f"{kind}.{term}" for kind, terms in _KINDS.items() for term in terms)
"""The names of the terms for int8, in the order of every array of terms."""

_INT8_ALONE = ("depthwise.points", "depthwise.left", "elementwise.gated")
"""The terms that only int8 has: kernel positions over all pixels, the same times the channels beyond whole blocks, and
the pixels of gated tensors."""

TERMS = tuple(term for term in INT8_TERMS if term not in _INT8_ALONE)
"""The names of the terms for fp32 and fp16, in the order of every array of terms."""


def terms_of(precision: Precision) -> tuple[str, ...]:
    """List the names of the terms for a precision, in the order of every array of terms."""
    return INT8_TERMS if precision == "int8" else TERMS


def kind_slices(terms: Sequence[str]) -> tuple[slice, ...]:
    """Find the slice of each of `KINDS` in the terms of a precision."""
    ends = [terms.index(f"{kind}.calls") + 1 for kind in KINDS]
    return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


_STARTS = {kind: part.start for kind, part in zip(KINDS, kind_slices(INT8_TERMS), strict=True)}
_FLOAT_ROWS = [INT8_TERMS.index(term) for term in TERMS]


class _Sum:
    """A sum of terms (terms, ...); every argument is a number or an array that broadcasts to the rest of the shape."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.terms = np.zeros((len(INT8_TERMS), *shape))

    def of(self, precision: Precision) -> Floats:
        """Return the terms of a precision."""
        return self.terms if precision == "int8" else self.terms[_FLOAT_ROWS]

    def add(self, kind: str, *values: Values, count: Values = 1) -> None:
        """Add an operation `count` times."""
        for i, value in enumerate((*values, 1.0), start=_STARTS[kind]):
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
        """Add a convolution from `before` channels of `read` pixels; if `written` is larger, it is transposed."""
        before, channels = np.asarray(before, dtype=float), np.asarray(channels, dtype=float)
        inward, outward = _blocks(before), _blocks(channels)
        weights = before * channels * kernel**2
        applied = np.minimum(read, written)  # how often the weights are applied
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
        """Add a depthwise convolution."""
        kernel = np.asarray(kernel, dtype=float)
        blocks = _blocks(channels)
        outputs = blocks * written
        strided = blocks * np.where(np.asarray(read) > written, read, 0)
        rows = blocks * np.sqrt(written) * kernel
        far = _beyond_caches(blocks * read + outputs)
        points = np.multiply(written, kernel**2)
        values = (rows, strided, *far, points, points * np.mod(channels, BLOCK))
        self.add("depthwise", outputs, outputs * kernel, outputs * kernel**2, *values, count=count)

    def elementwise(self, elements: Values, count: Values = 1) -> None:
        """Add a sum of two tensors."""
        self.add("elementwise", elements, 0.0, count=count)

    def gate(self, channels: Values, pixels: Values, count: Values = 1) -> None:
        """Add a product of a tensor with one value per channel; with one pixel, it is a product of equal shapes."""
        self.add("elementwise", channels * pixels, np.where(np.greater(pixels, 1), pixels, 0), count=count)


def _blocks(channels: Values) -> Floats:
    """Round channels up to whole blocks."""
    whole: Floats = np.ceil(np.asarray(channels) / BLOCK) * BLOCK
    return whole


def _beyond_caches(elements: Values) -> tuple[Floats, Floats]:
    """Count the elements of an operation's tensors that do not fit into the core's cache, and into the shared one."""
    near, shared = (np.maximum(0.0, np.asarray(elements) - size) for size in CACHES)
    return near, shared


def trace_terms(trace: Trace, precision: Precision = "fp32") -> Floats:
    """Sum the terms (terms,) of a trace, in the order of `terms_of`."""
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
        elif op.kind == "elementwise" and trace.shapes[op.inputs[1]][1:] != tuple(after):
            total.gate(channels, written)
        elif op.kind == "elementwise":
            total.elementwise(channels * written)
        else:
            total.add(op.kind, before * read if op.kind == "pool" else channels * written)
    image, output = (float(np.prod(trace.shapes[i])) for i in (0, trace.output))
    total.add("graph", image, output)
    return total.of(precision)


def population_terms(population: Population, precision: Precision = "fp32") -> Floats:
    """Compute the terms (terms, N, M) of N base models under M strategies."""
    base, kernels, layers = population.family.base, population.kernels, population.layers
    _, width, resolution = population.strategies
    total = _Sum((len(kernels), len(width)))

    def layer(before: Values, size: Values, stride: int, count: Values) -> Values:
        """Add an MBConv layer without its depthwise convolution; return its hidden channels."""
        hidden = np.multiply(stage.expand, before)
        squeezed = squeeze_channels(before, hidden, base.squeeze)
        outputs = hidden * np.square(after)
        if stage.expand > 1:
            total.conv(before, hidden, 1, np.square(size), np.square(size), count)
        if base.squeeze != "none":
            total.add("pool", outputs, count=count)
            total.conv(hidden, squeezed, 1, 1, 1, count)
            total.conv(squeezed, hidden, 1, 1, 1, count)
            total.gate(hidden, np.square(after), count)
        total.conv(hidden, channels, 1, np.square(after), np.square(after), count)
        if stride == 1:
            total.elementwise(channels * np.square(after), count * np.equal(before, channels))
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
    return total.of(precision)


def multipath_terms(
    depth: Integers,
    fusion: NDArray[np.bool_],
    width: int,
    head: DenseHead,
    image: Input,
    classes: int,
    precision: Precision = "fp32",
) -> Floats:
    """Compute the terms (terms, n) of n multipath networks.

    A block of a branch has the same terms in every module, and so has a path between two branches. These terms are the
    difference that one more block or path makes to a small network. The small network without its blocks is the part
    that all networks share.

    Args:
        depth: blocks of each branch, (n, modules, 4), 0 if there is no branch.
        fusion: paths, (n, modules, to, step, from), as in `spec.Module`.
        width: channels of the highest-resolution branch.
        head: the head of all networks.
        image: the size of their input.
        classes: classes or joints; 0: the networks have no classifier.
        precision: the precision of the networks.
    """

    def small(deeper: int | None = None, path: tuple[int, int] | None = None) -> Floats:
        modules = _small_module(2), _small_module(3), _small_module(BRANCHES, deeper, path)
        return trace_terms(trace(MultipathNetwork(width=width, head=head, modules=modules), image, classes), precision)

    smallest = small()
    block = np.stack([small(deeper=branch) - smallest for branch in range(BRANCHES)], axis=1)  # (terms, 4)
    path = np.zeros((len(smallest), BRANCHES, BRANCHES))  # (terms, to, from)
    for to, origin in permutations(range(BRANCHES), 2):
        path[:, to, origin] = small(path=(to, origin)) - smallest
    shared = smallest - block @ [3, 3, 2, 1]  # the number of modules with each branch
    blocks, paths = depth.sum(axis=1), fusion.sum(axis=(1, 3))
    terms: Floats = shared[:, None] + block @ blocks.T + np.tensordot(path, paths, axes=((1, 2), (1, 2)))
    return terms


def _small_module(branches: int, deeper: int | None = None, path: tuple[int, int] | None = None) -> Module:
    """Make a module with one block per branch, two on the branch `deeper`, and no path but `path` (to, from)."""
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
