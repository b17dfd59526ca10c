"""Which networks are worth a look: no other is at least as accurate in less time."""

from collections.abc import Sequence

import numpy as np


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The points that no other beats, the cheapest first: each costs more than the one before, and is better.

    Args:
        costs: milliseconds or MACs; less is better.
        values: accuracies; more is better.

    Returns:
        Their positions; of equal points the first.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i))
    kept: list[int] = []
    for i in order:
        if not kept or values[i] > values[kept[-1]]:
            kept.append(i)
    return kept


def near_front(costs: Sequence[float], values: Sequence[float], error: Sequence[float]) -> list[int]:
    """The points that may be on the front, if costs may be off by a share of each.

    Args:
        costs: milliseconds, predicted.
        values: accuracies.
        error: the largest share by which each cost may be off, below 1; 0: it is known.

    Returns:
        Their positions, in order.
    """
    low = np.array(costs) * (1 - np.array(error))
    high = np.array(costs) * (1 + np.array(error))
    of = np.array(values)
    return [i for i in range(len(costs)) if not np.any((high < low[i]) & (of >= of[i]))]
