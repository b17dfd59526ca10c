"""The cost of many multipath networks at once, in NumPy; it equals the cost that `trace` gives for each.

The cost of a multipath network is a fixed part, plus the same cost for each block on a branch and for each path between
two branches, in whichever module they are. The trace of one small network gives these costs, so no second formula is
needed; the cost of a population then takes two counts and two products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.arch.spec import FUSION_STEPS, Module, MultipathNetwork
from scalenet_zoo.arch.trace import trace
from scalenet_zoo.core.errors import BudgetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import DenseHead, Input

BRANCHES = 4


@dataclass(frozen=True, slots=True)
class MultipathCost:
    """Costs of n networks.

    Attributes:
        macs: int64 of shape (n,).
        params: int64 of shape (n,).
    """

    macs: Integers
    params: Integers


def multipath_cost(
    depth: Integers,
    fusion: NDArray[np.bool_],
    width: int,
    head: DenseHead,
    image: Input,
    classes: int,
) -> MultipathCost:
    """Compute the cost of n multipath networks.

    Args:
        depth: blocks of each branch, (n, modules, 4); 0 where there is no branch.
        fusion: paths, (n, modules, to, step, from), as in `spec.Module`.
        width: channels of the highest-resolution branch.
        head: the head of all networks.
        image: the size of their input.
        classes: the number of classes or joints; 0: the networks have no classifier.

    Raises:
        BudgetError: a cost does not fit in 64 bits.
    """
    fixed, block, path = _unit_costs(width, head, image, classes)
    if max(fixed + depth.shape[1] * FUSION_STEPS * (block.sum(axis=0) + path.sum(axis=(0, 1)))) >= 2**63:
        raise BudgetError("cost: found 2^63 or more, expected a number that fits in 64 bits")
    blocks, paths = depth.sum(axis=1, dtype=np.int64), fusion.sum(axis=(1, 3), dtype=np.int64)
    total = (
        fixed.astype(np.int64)
        + np.tensordot(blocks, block.astype(np.int64), axes=1)
        + np.tensordot(paths, path.astype(np.int64), axes=2)
    )
    return MultipathCost(macs=total[:, 0], params=total[:, 1])


def _unit_costs(
    width: int, head: DenseHead, image: Input, classes: int
) -> tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.object_]]:
    """Read the unit costs, [MACs, parameters] as Python integers, off the trace of a small network.

    Returns:
        The cost of everything but the modules, (2,); of a block on each branch, (4, 2); of each path, (to, from, 2).
    """
    full = tuple(
        Module(depth=(1,) * branches, fusion=(((1,) * branches, *[(0,) * branches] * (FUSION_STEPS - 1)),) * branches)
        for branches in range(2, BRANCHES + 1)
    )
    fixed, block, path = (np.zeros((*shape, 2), dtype=object) for shape in ((), (BRANCHES,), (BRANCHES, BRANCHES)))
    for op in trace(MultipathNetwork(width=width, head=head, modules=full), image, classes).ops:
        cost = np.array([op.macs, op.params], dtype=object)
        match op.name.split("."):
            case ["stage4", _, "blocks", branch, *_]:
                block[int(branch)] += cost
            case ["stage4", _, "paths", _, ends, *_]:
                origin, to = map(int, ends.split("_to_"))
                path[to, origin] += cost
            case [_, _, "blocks" | "paths", *_]:  # the same units, in stages with fewer branches
                pass
            case _:
                fixed += cost
    return fixed, block, path
