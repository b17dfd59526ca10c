"""Limits of a search: how they are written, which networks are feasible, and limits that cannot be kept."""

from typing import Any

import numpy as np
import pytest

from scalenet_zoo.core.errors import BudgetError, SpecError
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.spaces.scalenet import Space
from tests.helpers.searching import SMALL, Machine, bounds, limits

BASES = SMALL.sample(np.random.default_rng(0), 200)


@pytest.mark.parametrize("written", ["900K", ["900K"], ["900K", None, "4M"]])
def test_a_single_value_limits_the_base_model(written: Any) -> None:
    amounts = limits(macs=written).amounts("macs", [0, 1, 2])
    assert amounts[0] == 900_000
    assert amounts.get(2) == (4_000_000 if len(written) == 3 else None)
    assert 1 not in amounts
    assert limits().amounts("macs", [0, 1, 2]) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"macs": 306_000_000}, "limits: macs: found 306000000, expected a quantity with its unit, such as 306M or"),
        ({"macs": "306"}, "limits: macs: found '306', expected a positive number with a unit K, M, G or T"),
        (
            {"latency": "4M", "backend": "ort-cpu"},
            "limits: latency: found '4M', expected a positive number with",
        ),
        ({"latency": "4ms"}, "limits: latency: found no back end, expected one in `backend`"),
        ({"macs": ["1M", 2]}, r"limits: macs: found \['1M', 2\], expected a quantity"),
        ({"tolerance": 1.5}, "limits: tolerance: found 1.5, expected less than 1"),
        ({"flops": "1M"}, "limits: flops: found '1M', expected no such field"),
    ],
)
def test_what_cannot_be_read(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        limits(**values)
    assert "\n" not in str(caught.value)


def test_base_models_keep_all_limits() -> None:
    given = limits(macs="900K", tolerance=0.1, params="36K", latency="0.9ms", backend="ort-cpu")
    judged = Bounds(SMALL, 10, given, Machine())
    cost = SMALL.population(BASES, [SMALL.unscaled], 10).cost
    ms = Machine().predict(SMALL.population(BASES, [SMALL.unscaled], 10))[:, 0]
    macs, params = cost.macs[:, 0], cost.params[:, 0]
    expected = (macs >= 810_000) & (macs <= 990_000) & (params <= 36_000) & (ms <= 0.9)
    assert 0 < expected.sum() < ((macs >= 810_000) & (macs <= 990_000)).sum()
    np.testing.assert_array_equal(judged.feasible(BASES, [SMALL.unscaled]), expected)
    violation = judged.violation(BASES, [SMALL.unscaled])
    assert (violation >= 0).all()
    assert violation[macs.argmax()] > violation[macs.argsort()[-50]]  # farther away is worse


def test_scaled_networks_keep_the_limits_of_their_stage_and_the_growth_rule() -> None:
    judged = bounds(limits(macs=["900K", "1.9M"], tolerance=0.2, growth=0.1))
    strategy = SMALL.scalings(1)[3]
    base_macs, macs = SMALL.population(BASES, [SMALL.unscaled, strategy], 10).cost.macs.T
    grown = np.abs(macs - 2 * base_macs) <= 0.1 * 2 * base_macs
    expected = (np.abs(base_macs - 900_000) <= 180_000) & (macs <= 1_900_000) & grown
    assert 0 < expected.sum() < len(BASES)
    np.testing.assert_array_equal(judged.feasible(BASES, [SMALL.unscaled, strategy]), expected)


def test_admissible_strategies_are_those_of_the_definition() -> None:
    judged = bounds(limits(params=[None, "75K"], growth=0.25))
    few = BASES[:5]
    base_macs = SMALL.population(few, [SMALL.unscaled], 10).cost.macs[:, 0]
    expected = []
    for strategy in SMALL.scalings(1):
        specs = [SMALL.spec(base, strategy, 10) for base in few]
        off = np.mean([abs(spec.cost.macs - 2 * macs) for spec, macs in zip(specs, base_macs, strict=True)])
        params = np.mean([spec.cost.params for spec in specs])
        if off <= 0.25 * 2 * base_macs.mean() and params <= 75_000:
            expected.append(strategy)
    assert 0 < len(expected) < len(SMALL.scalings(1))
    assert judged.admissible(1, few) == expected
    assert bounds(limits(growth=None)).admissible(1, few) == SMALL.scalings(1)


def test_a_base_model_under_a_strategy_is_judged_as_the_strategy_for_it() -> None:
    judged = bounds()
    for base in BASES[judged.feasible(BASES, [SMALL.unscaled])][:10]:
        every = SMALL.scalings(1) + SMALL.scalings(2)
        admissible = judged.admissible(1, base[None]) + judged.admissible(2, base[None])
        assert [strategy for strategy in every if judged.feasible(base[None], [strategy]).all()] == admissible


def test_a_model_of_latency_can_be_replaced() -> None:
    judged = Bounds(SMALL, 10, limits(latency="1ms", backend="ort-cpu"), Machine())
    slower = judged.with_model(Machine(speed=0.6e6))
    assert slower.feasible(BASES, [SMALL.unscaled]).sum() < judged.feasible(BASES, [SMALL.unscaled]).sum()
    unjudged = Bounds(SMALL, 10, limits(latency="1ms", backend="ort-cpu"))  # not applied yet
    assert unjudged.feasible(BASES, [SMALL.unscaled]).all()


def test_an_empty_population_is_accepted() -> None:
    assert bounds().violation(BASES[:0], [SMALL.unscaled]).shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"macs": "300K"},
            r"limits.macs: found at most 324K for stage 0, expected 426\.1K or more, as the smallest network"
            " of the space small has",
        ),
        ({"params": "1K"}, r"limits.params: found at most 1K for stage 0, expected \S+ or more"),
        (
            {"latency": "10us", "backend": "ort-cpu"},
            "limits.latency: found at most 0.01ms for stage 0, expected",
        ),
        ({"macs": [None, "500K"]}, "limits.macs: found at most 500K for stage 1, expected .* or more"),
        (
            {"macs": "9M"},
            "limits.macs: found at least 8.28M for stage 0, expected 1.*M or less, as the largest network",
        ),
        (
            {"macs": ["1M", "1.5M"]},
            r"limits.macs: found at most 1.5M for stage 1, expected 1.546M or more, as the base model's limit and"
            " growth 0.16, the default, require",
        ),
        ({"macs": ["1M"] * 4}, "limits.macs: found 4 limits, expected at most 3, one per stage of the space"),
    ],
)
def test_limits_that_cannot_be_kept(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message) as caught:
        Bounds(SMALL, 10, limits(**values), Machine())
    assert "\n" not in str(caught.value)


def test_no_admissible_strategy_names_the_closest() -> None:
    far = SMALL.model_dump(mode="json")
    far["scaling"][1]["resolution"] = [64]
    space = Space.from_values(far, "far")
    with pytest.raises(
        BudgetError, match="stage 1: found no strategy with 2 times the base models' MACs, give or take"
    ):
        bounds(space=space).some_admissible(1, BASES)
    with pytest.raises(BudgetError, match="the closest has depth 1.1, width 1.1, resolution 64, [0-9.]+% beyond"):
        bounds(space=space).some_admissible(1, BASES)
    assert bounds().some_admissible(1, BASES)
