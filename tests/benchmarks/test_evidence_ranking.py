"""Tau, its intervals and the tables of scores are what SciPy and simple cases give."""

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from benchmarks.evidence.answers import Answers, Scored
from benchmarks.evidence.ranking import mean_ranking, rank, resamples, taus
from benchmarks.evidence.tables import RESULTS, ranks, samplers, ways


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_taus_are_scipys(pairs: list[tuple[int, int]]) -> None:
    xs, ys = np.array(pairs, dtype=float).T
    places = resamples(len(pairs), 0)[:20]
    for place, found in zip(places, taus(xs, ys, places), strict=True):
        expected = kendalltau(xs[place], ys[place]).statistic
        assert found == pytest.approx(0.0 if math.isnan(expected) else expected, abs=1e-9)


def test_an_interval_holds_the_true_tau() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        xs = rng.standard_normal((3, 20))
        ys = math.sin(math.pi / 4) * xs + math.sqrt(0.5) * rng.standard_normal((3, 20))  # tau 0.5
        mean = rank(list(xs), list(ys)).mean
        inside += mean.low <= 0.5 <= mean.high
    assert inside >= 55  # a bootstrap of tau is on the safe side: networks drawn twice are ties


def test_scores_are_compared_on_the_same_networks() -> None:
    rng = np.random.default_rng(0)
    reached = [rng.standard_normal(9) for _ in range(3)]
    perfect, reverse = rank(reached, reached), rank([-each for each in reached], reached)
    assert [each.value for each in perfect.stages] == [1.0, 1.0, 1.0]
    assert (perfect.mean.low, perfect.mean.high) == (1.0, 1.0)
    assert perfect.minus(reverse).value == 2.0
    assert perfect.minus(perfect).high == 0.0
    assert mean_ranking([perfect, reverse]).mean.value == 0.0


@pytest.fixture
def found() -> Answers:
    """The committed accuracies, and scores that are made of them."""
    committed = Answers.load(RESULTS)
    alone = {name: row for name, row in committed.rows.items() if name.startswith("alone/")}
    keys = [key for keys in committed.drawn.values() for key in keys]
    reached = dict(zip(keys, committed.accuracies(keys).mean(axis=1) / 100, strict=True))
    rng = np.random.default_rng(0)
    noise = {key: float(rng.standard_normal()) for key in keys}
    middle = fmean(reached.values())
    rows = {
        "score/hss-0/drawn": {"scores": {key: reached[key] / 2 + 0.1 for key in keys}},
        "score/hss-0/drawn/averaged": {"scores": {key: -reached[key] for key in keys}},
        "score/hss-1/drawn": {"scores": {key: reached[key] / 2 + 0.2 for key in keys}},
        "score/uniform-0/drawn": {"scores": {key: reached[key] / 2 for key in keys}},
        "score/uniform-1/drawn": {"scores": {key: middle - reached[key] / 2 for key in keys}},
        "score/longer-0/drawn": {"scores": noise},
    }
    return Answers({**alone, **rows}, committed.plan)


def test_tables_of_scores_say_what_was_scored(found: Answers) -> None:
    scored = Scored.of(found)
    assert [len(keys) for keys in scored.keys] == [10, 10, 9]
    rows = dict(line.split(" | ", 1) for line in ranks(scored).splitlines()[2:])
    assert rows["| hss"].startswith("2 | 1.00 [1.00, 1.00]")
    assert rows["| hss/averaged"].startswith("1 | -1.00")
    assert rows["| hss/averaged"].split(" | ")[5:7] == ["-", "-"]
    assert rows["| uniform"].split(" | ")[4:7] == ["0.00 [0.00, 0.00]", "-1.00 to 1.00", "-1.00"]
    sampler = samplers(scored).splitlines()
    assert "10.00 | 1.00 | 1.00 | 0.00" in sampler[2]  # points of score, both rank perfectly
    assert "20.00" in sampler[3]
    assert sampler[4].startswith("| mean | ")
    assert "15.00 ± 63.53, p = 0.205" in sampler[4]  # t of 1 degree of freedom: 12.706 * 5
    way = {line.split(" | ")[0]: line for line in ways(scored).splitlines()[2:]}
    assert way["| averaged"].endswith("-2.00 [-2.00, -2.00] |")
    assert set(way) == {"| averaged", "| mean of 2 supernets' scores", "| longer"}
    assert "1.00 (2)" in way["| longer"]  # the mean of both default supernets
    assert way["| mean of 2 supernets' scores"].endswith("0.00 [0.00, 0.00] |")


def test_a_way_that_has_not_scored_all_networks_is_left_out(found: Answers) -> None:
    key = Scored.of(found).keys[1][3]
    del found.rows["score/uniform-1/drawn"]["scores"][key]
    scored = Scored.of(found)
    assert [len(keys) for keys in scored.keys] == [10, 10, 9]
    assert set(scored.scores) == {"hss-0", "hss-0/averaged", "hss-1", "uniform-0", "longer-0"}


def test_networks_are_not_averaged_over_kinds_of_devices(found: Answers) -> None:
    key = Scored.of(found).keys[1][3]
    row = found.rows[f"alone/{key}/1"]
    row["recorded"] = not row["recorded"]
    assert [len(keys) for keys in Scored.of(found).keys] == [10, 9, 9]
    assert key not in Scored.of(found).keys[1]
