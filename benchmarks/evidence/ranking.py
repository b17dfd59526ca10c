"""How well a supernet's scores rank networks: Kendall's tau by stage, its mean over stages, and intervals.

All intervals are 95% percentile intervals of a bootstrap that draws networks, stage by stage, with replacement. Two
ways to score the same networks are compared on the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from benchmarks.significance import RESAMPLES


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: np.ndarray) -> "Estimate":
        """The figure of all networks, with the interval of its resamples."""
        low, high = np.percentile(resampled, [2.5, 97.5])
        return cls(value, float(low), float(high))

    def __str__(self) -> str:
        """The figure, with its interval in brackets."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def resamples(count: int, seed: int) -> np.ndarray:
    """Draw places of networks with replacement, one row per resample; no row repeats a single network."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(count, size=(RESAMPLES, count))
    alone = (drawn == drawn[:, :1]).all(axis=1)
    drawn[alone] = np.arange(count)
    return drawn


def taus(xs: np.ndarray, ys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compute Kendall's tau-b for each row of places; it is 0 where all values of a row are equal.

    Args:
        xs: scores, one per network.
        ys: accuracies of the same networks.
        places: rows of indices into both.
    """
    by_x, by_y = (np.sign(each[:, None] - each[None]).astype(np.int8) for each in (xs, ys))
    pairs = places[:, :, None], places[:, None, :]
    dx, dy = by_x[pairs].astype(float), by_y[pairs].astype(float)
    untied = np.sqrt((dx**2).sum((1, 2)) * (dy**2).sum((1, 2)))
    found = np.zeros(len(places))
    np.divide((dx * dy).sum((1, 2)), untied, out=found, where=untied > 0)
    return found


@dataclass(frozen=True)
class Ranking:
    """How well scores rank the networks of each stage.

    Attributes:
        values: tau within each stage, (stages,).
        draws: tau of each resample of a stage's networks, (stages, resamples).
    """

    values: np.ndarray
    draws: np.ndarray

    @property
    def stages(self) -> list[Estimate]:
        """Tau within each stage."""
        return [Estimate.of(float(value), draws) for value, draws in zip(self.values, self.draws, strict=True)]

    @property
    def mean(self) -> Estimate:
        """The mean of the stages' taus."""
        return Estimate.of(float(self.values.mean()), self.draws.mean(axis=0))

    def minus(self, other: "Ranking") -> Estimate:
        """The difference to the mean tau of other scores of the same networks."""
        return Ranking(self.values - other.values, self.draws - other.draws).mean


def rank(scores: Sequence[np.ndarray], reached: Sequence[np.ndarray]) -> Ranking:
    """Compute how well scores rank networks, stage by stage.

    Args:
        scores: one array per stage, one score per network.
        reached: the stand-alone accuracies of the same networks.
    """
    pairs = list(zip(scores, reached, strict=True))
    values = [taus(xs, ys, np.arange(len(xs))[None])[0] for xs, ys in pairs]
    draws = [taus(xs, ys, resamples(len(xs), stage)) for stage, (xs, ys) in enumerate(pairs)]
    return Ranking(np.array(values), np.array(draws))


def mean_ranking(rankings: Sequence[Ranking]) -> Ranking:
    """The mean over supernets that differ only in their seed."""
    values, draws = ([getattr(ranking, name) for ranking in rankings] for name in ("values", "draws"))
    return Ranking(np.mean(values, axis=0), np.mean(draws, axis=0))


def agreement(scores: Sequence[Sequence[np.ndarray]]) -> float:
    """The mean tau between the scores of two supernets, over all pairs of supernets and all stages.

    Args:
        scores: for each supernet, one array per stage, one score per network.
    """
    pairs = [stage for ours, theirs in combinations(scores, 2) for stage in zip(ours, theirs, strict=True)]
    return fmean(float(taus(xs, ys, np.arange(len(xs))[None])[0]) for xs, ys in pairs)
