"""The Pareto front: the networks for which no other is at least as accurate in less time."""

from collections.abc import Sequence

import numpy as np


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Find the Pareto front, the cheapest point first: each point costs more than the one before it, and is better.

    Args:
        costs: milliseconds or MACs of n points; less is better.
        values: their accuracies; more is better.

    Returns:
        The positions of the points on the front; of equal points, that of the first.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i))
    kept: list[int] = []
    for i in order:
        if not kept or values[i] > values[kept[-1]]:
            kept.append(i)
    return kept


def near_front(costs: Sequence[float], values: Sequence[float], error: Sequence[float]) -> list[int]:
    """Find the points that may be on the Pareto front, given how far off their costs may be.

    Args:
        costs: predicted milliseconds of n points.
        values: their accuracies.
        error: the largest share by which each cost may be off, below 1; 0: the cost is exact.

    Returns:
        The positions of these points, in order.
    """
    low = np.array(costs) * (1 - np.array(error))
    high = np.array(costs) * (1 + np.array(error))
    of = np.array(values)
    return [i for i in range(len(costs)) if not np.any((high < low[i]) & (of >= of[i]))]
