"""Base models drawn under limits: they have the right distribution, and few draws are wasted."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.scalenet import Space
from tests.helpers.searching import LIMITS, SMALL, Machine, bounds, limits

SCALENET = Space.load("scalenet")


def every_base(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """All base models of a space (n, stages, layers), and their probabilities under the prior (n,)."""
    choices = [
        [
            (kernels + (0,) * (space.longest - depth), 1 / len(stage.depths) / len(stage.kernels) ** depth)
            for depth in stage.depths
            for kernels in product(stage.kernels, repeat=depth)
        ]
        for stage in space.stages
    ]
    rows, shares = zip(*(zip(*stages, strict=True) for stages in product(*choices)), strict=True)
    return np.array(rows), np.prod(shares, axis=1)


def check_distribution(judged: Bounds, drawn: np.ndarray) -> None:
    """Drawn base models against the prior restricted to the limits, over all of the space."""
    bases, shares = every_base(judged.space)
    assert shares.sum() == pytest.approx(1)
    good = judged.feasible(bases, [judged.space.unscaled])
    bases, shares = bases[good], shares[good] / shares[good].sum()
    place = {base.tobytes(): i for i, base in enumerate(bases)}
    counts = np.bincount([place[base.tobytes()] for base in drawn], minlength=len(bases))  # KeyError: infeasible
    # Cells of equal expectation, by likelihood and cost, so that each is large enough for the test.
    macs = judged.population(bases, [judged.space.unscaled]).cost.macs[:, 0]
    cells = (np.cumsum(shares[np.lexsort((macs, shares))]) * 60).astype(int).clip(0, 59)
    order = np.lexsort((macs, shares))
    found, expected = (np.bincount(cells, weights=values[order]) for values in (counts, shares * len(drawn)))
    assert chisquare(found, expected).pvalue > 1e-3
    by_depth = (np.count_nonzero(bases, axis=2) * [0, 1, 10]).sum(axis=1)  # the depths of the second and third stage
    _, cells = np.unique(by_depth, return_inverse=True)
    found, expected = (np.bincount(cells, weights=values) for values in (counts, shares * len(drawn)))
    assert chisquare(found, expected).pvalue > 1e-3


def test_without_limits_the_prior_is_drawn() -> None:
    sampler = FeasibleSampler(bounds(limits()))
    check_distribution(sampler.bounds, sampler.draw(np.random.default_rng(0), 30_000))
    assert sampler.wasted == 0


@pytest.mark.parametrize(
    "given",
    [
        LIMITS,
        limits(macs="1.2M", tolerance=0.02),
        limits(params="30K"),
        limits(macs="900K", params="34K"),
        limits(latency="0.8ms", backend="ort-cpu"),
    ],
    ids=["macs", "narrow", "params", "both", "latency"],
)
def test_draws_are_the_prior_under_the_limits(given: Limits) -> None:
    judged = Bounds(SMALL, 10, given, Machine())
    sampler = FeasibleSampler(judged)
    drawn = sampler.draw(np.random.default_rng(1), 30_000)
    check_distribution(judged, drawn)
    assert sampler.drawn - sampler.wasted >= len(drawn)


def test_blind_rejection_gives_the_same_distribution() -> None:
    rng = np.random.default_rng(2)
    blind = SMALL.sample(rng, 60_000)
    check_distribution(bounds(), blind[bounds().feasible(blind, [SMALL.unscaled])])


def test_hardly_any_draw_is_wasted_on_the_papers_space() -> None:
    judged = Bounds(SCALENET, 1000, limits(macs="306M"))
    sampler = FeasibleSampler(judged)
    drawn = sampler.draw(np.random.default_rng(0), 5000)
    assert judged.feasible(drawn, [SCALENET.unscaled]).all()
    assert sampler.wasted < 0.005 * sampler.drawn
    blind = SCALENET.sample(np.random.default_rng(0), 5000)
    assert judged.feasible(blind, [SCALENET.unscaled]).mean() < 0.2  # what the sampler saves


def test_same_seed_same_base_models() -> None:
    first, second, other = (FeasibleSampler(bounds()).draw(np.random.default_rng(seed), 50) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(-0.9, 0.9), st.floats(0.005, 0.5))
def test_whatever_is_drawn_is_feasible(seed: int, off: float, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    there = SMALL.population(SMALL.sample(rng, 1), [SMALL.unscaled], 10).cost.macs[0, 0]
    thousands = round(there / 1000 / (1 + off * tolerance), 1)  # at least one base model is within the tolerance
    given = limits(macs=f"{thousands}K", tolerance=tolerance)
    drawn = FeasibleSampler(bounds(given)).draw(rng, 20)
    assert drawn.shape == (20, 3, 3)
    macs = SMALL.population(drawn, [SMALL.unscaled], 10).cost.macs[:, 0]
    assert (np.abs(macs / (thousands * 1000) - 1) <= tolerance + 1e-12).all()
    assert (SMALL.decode(SMALL.encode(drawn)) == drawn).all()


def test_a_space_of_one_base_model() -> None:
    values = SMALL.model_dump(mode="json")
    for stage in values["stages"]:
        stage["depths"], stage["kernels"] = stage["depths"][:1], [3]
    space = Space.from_values(values, "one")
    macs = space.population(space.sample(np.random.default_rng(0), 1), [space.unscaled], 10).cost.macs[0, 0]
    judged = bounds(limits(macs=f"{macs / 1000}K", tolerance=1e-6), space)
    drawn = FeasibleSampler(judged).draw(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(drawn, np.repeat(space.sample(np.random.default_rng(1), 1), 3, axis=0))


def test_no_base_model_has_exactly_this_cost() -> None:
    with pytest.raises(BudgetError, match=r"found no base model of the space small with macs 426\.\dK to 426\.\dK"):
        FeasibleSampler(bounds(limits(macs="426.5K", tolerance=1e-5)))


def test_limits_that_contradict_each_other() -> None:
    cost = SMALL.population(SMALL.sample(np.random.default_rng(0), 2000), [SMALL.unscaled], 10).cost
    least = int(cost.params[cost.macs > 1_300_000].min())
    message = "limits: found no base model with macs .* and params of at most .* among 200,000 drawn, expected wider"
    with pytest.raises(BudgetError, match=message) as caught:
        FeasibleSampler(bounds(limits(macs="1.4M", tolerance=0.05, params=f"{least * 0.8 / 1000:.3f}K"))).draw(
            np.random.default_rng(0), 5
        )
    assert "\n" not in str(caught.value)
