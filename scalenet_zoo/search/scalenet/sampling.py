"""Base models drawn under limits, by dynamic programming instead of blind rejection.

Under a fixed strategy, a base model's MACs and parameters are sums over its layers, and so is most of its predicted
latency. What a layer adds depends on its stage, its kernel and whether it is the first of the stage. So the
distribution of the cost of the remaining layers is known at every layer, as a histogram, and each choice is drawn with
the probability that it has among the base models within the limit. Costs are rounded to the bins of the histogram, and
the limit is widened by the largest possible rounding error; the few draws outside the true limit are drawn again. The
result is exactly the prior (depths uniform, then kernels uniform) restricted to the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.scalenet.limits import in_words

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Constraint, Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.spaces.scalenet import Space

COST_BINS = 2**16
"""Number of bins of the histograms, up to the upper end of the limit."""
MOST_MISSES = 200_000
"""The most draws in a row that may be discarded."""


class FeasibleSampler:
    """Draws base models that keep the limits of stage 0.

    The first of the limits on MACs, parameters and latency is met by dynamic programming, the others by rejection.

    Args:
        bounds: the limits.

    Attributes:
        drawn: number of base models drawn so far.
        wasted: how many of them were discarded.

    Raises:
        BudgetError: no base model keeps the first limit.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.drawn = self.wasted = 0
        self._sample: Callable[[np.random.Generator, int], Integers] = bounds.space.sample
        if limits := bounds.constraints[0]:
            self._sample = _Walk(bounds, limits[0]).sample

    def draw(self, rng: np.random.Generator, count: int) -> Integers:
        """Draw independent base models, (count, stages, layers).

        Raises:
            BudgetError: the limits contradict each other, or nearly so.
        """
        space = self.bounds.space
        kept = np.zeros((0, len(space.stages), space.longest), dtype=np.int64)
        batch, misses = count, 0
        closest: tuple[float, Integers] = (np.inf, kept)
        while len(kept) < count:
            bases = self._sample(rng, batch)
            violation = self.bounds.violation(bases, [space.unscaled])
            good = violation == 0.0
            self.drawn += batch
            self.wasted += int(batch - good.sum())
            kept = np.concatenate([kept, bases[good]])
            if not good.any():
                misses += batch
                closest = min(
                    closest, (float(violation.min()), bases[violation.argmin()][None]), key=lambda pair: pair[0]
                )
                if misses >= MOST_MISSES:
                    raise BudgetError(self._contradiction(closest[1]))
            else:
                misses = 0
            batch = int(np.clip((count - len(kept)) * batch / max(1, good.sum()), 1, 10_000))
        return kept[:count]

    def _contradiction(self, closest: Integers) -> str:
        limits = self.bounds.constraints[0]
        population = self.bounds.population(closest, [self.bounds.space.unscaled])
        has = (f"{each.measure_name} {each.format(float(each.measure(population)[0, 0]))}" for each in limits)
        return (
            f"limits: found no base model with {' and '.join(map(in_words, limits))} among {MOST_MISSES:,} drawn,"
            f" expected wider limits; the closest has {' and '.join(has)}"
        )


class _Walk:
    """A walk through the layers in order, each choice conditioned on the limit.

    Histograms hold the share of base models, under the prior, by the cost of their remaining layers in bins.
    `below[s][j, x]` is the share whose j further layers of stage s and all later stages cost less than x bins.
    """

    def __init__(self, bounds: Bounds, limit: Constraint) -> None:
        self.space = space = bounds.space
        fixed, first, more = _layer_costs(space, lambda bases: self._measure(bounds, limit, bases))
        # If costs are not exactly sums, the limit is widened by the largest difference seen.
        probe = space.sample(np.random.default_rng(0), 500)
        slack = float(np.abs(_add_up(space, probe, fixed, first, more) - self._measure(bounds, limit, probe)).max())

        longest = [max(stage.depths) for stage in space.stages]
        most = sum(float(a.max() + (layers - 1) * b.max()) for a, b, layers in zip(first, more, longest, strict=True))
        top = min(limit.budget + slack - fixed, most)
        unit = top / COST_BINS if top > 0 else 1.0
        self.first = [np.rint(costs / unit).astype(np.int64) for costs in first]
        self.more = [np.rint(costs / unit).astype(np.int64) for costs in more]
        slack = slack / unit + sum(longest) / 2  # rounding moves each layer by half a bin at most
        size = COST_BINS + sum(longest) + int(np.ceil(slack)) + 2
        self.low = int(np.clip(np.floor((limit.floor - fixed) / unit - slack), 0, size))
        self.high = int(np.clip(np.ceil((limit.budget - fixed) / unit + slack), -1, size - 1))

        after = np.zeros(size)
        after[0] = 1.0
        self.below: list[Floats] = []
        for stage, first_costs, more_costs in zip(
            reversed(space.stages), reversed(self.first), reversed(self.more), strict=True
        ):
            shares = [after]
            for _ in range(max(stage.depths) - 1):
                shares.append(_mix(shares[-1], more_costs))
            after = np.mean([_mix(shares[depth - 1], first_costs) for depth in stage.depths], axis=0)
            self.below.insert(0, np.pad(np.cumsum(shares, axis=1), ((0, 0), (1, 0))))
        if not after[self.low : self.high + 1].any():
            raise BudgetError(
                f"limits: found no base model of the space {space.name} with {in_words(limit)}, expected a wider limit"
            )

    @staticmethod
    def _measure(bounds: Bounds, limit: Constraint, bases: Integers) -> Floats:
        return limit.measure(bounds.population(bases, [bounds.space.unscaled]))[:, 0]

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """Draw base models, (count, stages, layers), within the widened limit."""
        kernels = np.zeros((count, len(self.space.stages), self.space.longest), dtype=np.int64)
        spent = np.zeros(count, dtype=np.int64)
        for s, stage in enumerate(self.space.stages):
            depths, choices = np.asarray(stage.depths), np.asarray(stage.kernels)
            pairs = np.repeat(depths, len(choices)), np.tile(np.arange(len(choices)), len(depths))
            pair = _choose(rng, self._share(s, pairs[0] - 1, spent[:, None] + self.first[s][pairs[1]]))
            depth, choice = pairs[0][pair], pairs[1][pair]
            kernels[:, s, 0] = choices[choice]
            spent += self.first[s][choice]
            for i in range(1, depths[-1]):
                there = np.flatnonzero(depth > i)
                share = self._share(s, depth[there, None] - 1 - i, spent[there, None] + self.more[s])
                choice = _choose(rng, share)
                kernels[there, s, i] = choices[choice]
                spent[there] += self.more[s][choice]
        return kernels

    def _share(self, s: int, layers: Integers, spent: Integers) -> Floats:
        """The share of continuations, with `layers` more layers of stage s and all later stages, within the limit."""
        below, last = self.below[s], self.below[s].shape[1] - 1
        layers = np.broadcast_to(layers, spent.shape)
        share: Floats = (
            below[layers, np.clip(self.high + 1 - spent, 0, last)] - below[layers, np.clip(self.low - spent, 0, last)]
        )
        return share


def _layer_costs(space: Space, measure: Callable[[Integers], Floats]) -> tuple[float, list[Floats], list[Floats]]:
    """Split the cost of base models by layers.

    Returns:
        The cost that all base models share; for each stage the cost that its first layer adds, by kernel; and for each
        stage the cost that a further layer adds, by kernel.
    """
    reference = np.zeros((1, len(space.stages), max(2, space.longest)), dtype=np.int64)
    reference[0, :, 0] = [stage.kernels[0] for stage in space.stages]
    changed = []
    for s, stage in enumerate(space.stages):
        for layer in (0, 1):
            bases = np.repeat(reference, len(stage.kernels), axis=0)
            bases[:, s, layer] = stage.kernels
            changed.append(bases)
    costs = measure(np.concatenate([reference, *changed]))
    added = np.split(costs[1:] - costs[0], np.cumsum([len(bases) for bases in changed])[:-1])
    lowest = [float(costs.min()) for costs in added[::2]]  # may be negative: a larger kernel may take less time
    first = [costs - low for costs, low in zip(added[::2], lowest, strict=True)]
    return float(costs[0]) + sum(lowest), first, [np.maximum(0.0, costs) for costs in added[1::2]]


def _add_up(space: Space, bases: Integers, fixed: float, first: list[Floats], more: list[Floats]) -> Floats:
    """Add up the costs of base models (n, stages, layers) over their layers, (n,)."""
    total = np.full(len(bases), fixed)
    for s, stage in enumerate(space.stages):
        place = np.searchsorted(stage.kernels, bases[:, s])
        total += first[s][place[:, 0]] + np.where(bases[:, s, 1:] > 0, more[s][place[:, 1:]], 0.0).sum(axis=1)
    return total


def _mix(share: Floats, costs: Integers) -> Floats:
    """Add a layer to the histogram; its kernels are equally likely, and costs past the end are dropped."""
    mixed = np.zeros_like(share)
    for cost in costs[costs < len(share)]:
        mixed[cost:] += share[: len(share) - cost]
    mixed /= len(costs)
    return mixed


def _choose(rng: np.random.Generator, share: Floats) -> Integers:
    """Draw a column for each row of shares (n, options), which need not add up to 1."""
    steps = np.cumsum(share, axis=1)
    chosen: Integers = (steps > rng.random((len(share), 1)) * steps[:, -1:]).argmax(axis=1)
    return chosen
