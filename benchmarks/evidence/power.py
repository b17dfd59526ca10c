"""How large a study must be: noise of accuracies, and numbers of networks and of pairs for a power of 0.8.

Networks differ in truth, and trainings of one network differ by their seed. All tests are two-sided at 0.05.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

POWER, LEVEL = 0.8, 0.05
MOST = 60
"""The largest number of networks, or of pairs, that is considered."""
SPREAD = ("SD of pairs, points", "pairs for 1 point")
"""The columns of `spread_of`."""


def deviations(reached: np.ndarray) -> tuple[float, float]:
    """Estimate the standard deviations of networks in truth, and of seeds, from accuracies (networks, seeds)."""
    seeds = reached.shape[1]
    within = float(reached.var(axis=1, ddof=1).mean())
    between = float(reached.mean(axis=1).var(ddof=1)) - within / seeds
    return math.sqrt(max(0.0, between)), math.sqrt(within)


def expected_tau(truth: float, networks: float, seed: float, seeds: int) -> float:
    """Kendall's tau between scores and mean accuracies over seeds, if all are normal variates.

    Args:
        truth: tau between the scores and the true accuracies.
        networks: the standard deviation of networks in truth.
        seed: the standard deviation of seeds.
        seeds: number of seeds.
    """
    noise = seed**2 / seeds
    reliable = networks**2 / (networks**2 + noise) if networks or noise else 1.0
    return 2 / math.pi * math.asin(math.sin(math.pi / 2 * truth) * math.sqrt(reliable))


def least_concordance(count: int) -> int:
    """The least number of concordant minus discordant pairs of `count` networks with p < 0.05, by the exact test."""
    chances = np.ones(1)  # of each number of discordant pairs, if all orders are equally likely
    for size in range(2, count + 1):
        chances = np.convolve(chances, np.full(size, 1 / size))
    pairs = count * (count - 1) // 2
    enough = np.flatnonzero(np.cumsum(chances) <= LEVEL / 2)
    return pairs - 2 * int(enough[-1]) if len(enough) else pairs + 1


def networks_needed(tau: float, times: int = 4000) -> int | None:
    """Number of networks that shows this tau with a power of 0.8, by simulation; None if it exceeds 60."""
    rng, r = np.random.default_rng(0), math.sin(math.pi / 2 * tau)
    xs, noise = rng.standard_normal((2, times, MOST))
    ys = r * xs + math.sqrt(1 - r**2) * noise
    concordance = np.zeros(times)
    for count in range(2, MOST + 1):
        last = count - 1
        pairs = np.sign(xs[:, :last] - xs[:, last:count]) * np.sign(ys[:, :last] - ys[:, last:count])
        concordance += pairs.sum(axis=1)
        if (abs(concordance) >= least_concordance(count)).mean() >= POWER:
            return count
    return None


def pairs_needed(difference: float, deviation: float) -> int | None:
    """Number of pairs with which a paired t-test shows a difference with a power of 0.8; None if it exceeds 60."""
    for pairs in range(2, MOST + 1):
        limit, shift = student.ppf(1 - LEVEL / 2, pairs - 1), difference / deviation * math.sqrt(pairs)
        if nct.sf(limit, pairs - 1, shift) + nct.cdf(-limit, pairs - 1, shift) >= POWER:
            return pairs
    return None


def spread_of(pairs: Sequence[Sequence[float]]) -> list[str]:
    """The cells of a spread: the standard deviation of the pairs' differences, and how many pairs show 1 point."""
    deviation = float(np.subtract(*zip(*pairs, strict=True)).std(ddof=1))
    return [f"{deviation:.2f}", shown(pairs_needed(1.0, deviation))]


def shown(number: int | None) -> str:
    """A number of networks or pairs, as tables show it."""
    return f"over {MOST}" if number is None else str(number)
