"""Topology evolution and its baselines, with made-up scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binomtest

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.scalenas import topology
from scalenet_zoo.search.scalenas.config import TopologySettings
from scalenet_zoo.search.scalenas.topology import (
    Judge,
    ScoredTopologies,
    ageing_evolution,
    change_one,
    cross,
    mutate,
    random_search,
    topology_evolution,
)
from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.spaces.scalenas import Bools

SPACE = MultipathSpace.load("scalenas_pose")
SETTINGS = TopologySettings(first=60, evaluations=150, parents=20, tournament=5)
CLASSES = 17
MOST = float(SPACE.cost(SPACE.largest[None], CLASSES).macs[0])
SEARCHES = [topology_evolution, random_search, ageing_evolution]
searches = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.__name__)

Search = Callable[..., Iterator[ScoredTopologies]]


class Made:
    """Scores by a formula: every block and path adds something to the score, or subtracts from it.

    Attributes:
        asked: the keys of what was scored.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.depth = rng.normal(0.5, 1.0, SPACE.largest.depth.shape)
        self.fusion = rng.normal(0.0, 0.3, SPACE.largest.fusion.shape)
        self.asked: list[str] = []

    def __call__(self, topologies: Topologies) -> Floats:
        self.asked += SPACE.keys(topologies)
        value = (topologies.depth * self.depth).sum(axis=(1, 2)) + (topologies.fusion * self.fusion).sum(
            axis=(1, 2, 3, 4)
        )
        scores: Floats = 1 / (1 + np.exp((50 - value) / 15))
        return scores


def run(search: Search, judge: Judge, settings: TopologySettings = SETTINGS) -> ScoredTopologies:
    return ScoredTopologies.joined(list(search(SPACE, CLASSES, judge, settings)))


def assert_same(found: ScoredTopologies, expected: ScoredTopologies) -> None:
    assert SPACE.keys(found.topologies) == SPACE.keys(expected.topologies)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.macs, expected.macs)


# --- searches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutation", [0.2, 0.5])  # the released script's, the paper's
def test_evolution_beats_random_search_at_equal_evaluations(mutation: float) -> None:
    wins = 0
    for seed in range(20):
        settings = TopologySettings(first=100, evaluations=300, parents=25, mutation=mutation, seed=seed)
        evolved, drawn = (run(search, Made(seed), settings) for search in (topology_evolution, random_search))
        assert len(evolved) == len(drawn) == settings.evaluations
        wins += evolved.hypervolume(MOST) > drawn.hypervolume(MOST)
    assert binomtest(wins, 20, alternative="greater").pvalue < 0.01


@searches
def test_all_evaluations_are_spent_on_different_networks(search: Search) -> None:
    judge = Made(0)
    scored = run(search, judge)
    assert len(scored) == len(set(judge.asked)) == len(judge.asked) == SETTINGS.evaluations
    assert SPACE.keys(scored.topologies) == judge.asked
    np.testing.assert_array_equal(scored.scores, Made(0)(scored.topologies))
    np.testing.assert_array_equal(scored.macs, SPACE.cost(scored.topologies, CLASSES).macs)
    again = SPACE.canonical(scored.topologies.depth, scored.topologies.fusion)
    np.testing.assert_array_equal(again.fusion, scored.topologies.fusion)


@searches
def test_a_search_that_was_killed_does_the_same_again(search: Search) -> None:
    whole = list(search(SPACE, CLASSES, Made(0), SETTINGS))
    for killed_after in (1, 3):
        judge = Made(0)
        sitting = search(SPACE, CLASSES, judge, SETTINGS)
        for expected in whole[:killed_after]:
            assert_same(next(sitting), expected)
        known = set(judge.asked)
        again = Made(0)
        assert_same(run(search, again), ScoredTopologies.joined(whole))
        assert known == set(again.asked[: len(known)])  # so what was scored before the kill is asked for first
    other = run(search, Made(0), SETTINGS.model_copy(update={"seed": 1}))
    assert not set(SPACE.keys(other.topologies)) & set(SPACE.keys(ScoredTopologies.joined(whole).topologies))


def test_random_search_begins_as_evolution_does() -> None:
    first, other = (next(search(SPACE, CLASSES, Made(0), SETTINGS)) for search in (topology_evolution, random_search))
    assert_same(first, other)
    assert len(first) == SETTINGS.first


def test_offspring_come_from_the_best() -> None:
    settings = SETTINGS.model_copy(update={"mutation": 0.0})
    first, second, *_ = topology_evolution(SPACE, CLASSES, Made(0), settings)
    parents = first.best(settings.parents).topologies
    for m in range(len(SPACE.branches)):
        pool = {parents.fusion[i, m].tobytes() + parents.depth[i, m].tobytes() for i in range(len(parents))}
        for child in (second.topologies[i] for i in range(len(second))):
            assert child.fusion[m].tobytes() + child.depth[m].tobytes() in pool


def test_ageing_evolution_changes_one_thing_of_the_best_of_the_young() -> None:
    settings = SETTINGS.model_copy(update={"tournament": SETTINGS.parents})  # all take part
    known, *children = ageing_evolution(SPACE, CLASSES, Made(0), settings)
    assert len(known) == SETTINGS.parents
    for child in children:
        assert len(child) == 1
        winners = known[-SETTINGS.parents :].front.topologies
        modules = (winners.depth != child.topologies.depth).any(axis=2)
        modules |= (winners.fusion != child.topologies.fusion).any(axis=(2, 3, 4))
        assert modules.sum(axis=1).min() == 1
        known = ScoredTopologies.joined([known, child])


@searches
def test_only_feasible_networks_are_scored(search: Search) -> None:
    def feasible(topologies: Topologies) -> Bools:
        return np.asarray(SPACE.cost(topologies, CLASSES).macs < 0.5 * MOST)

    settings = SETTINGS.model_copy(update={"evaluations": 90})
    scored = ScoredTopologies.joined(list(search(SPACE, CLASSES, Made(0), settings, feasible)))
    assert len(scored) == 90
    assert feasible(scored.topologies).all()


@pytest.mark.parametrize("limit", [0.6, 0.45])  # some of the first keep it, none does
def test_limits_may_change_during_a_search(limit: float) -> None:
    share = 1.0

    def feasible(topologies: Topologies) -> Bools:
        return np.asarray(SPACE.cost(topologies, CLASSES).macs < share * MOST)

    settings = SETTINGS.model_copy(update={"mutation": 0.0})
    evolution = topology_evolution(SPACE, CLASSES, Made(0), settings, feasible)
    first = next(evolution)
    share = limit
    parents = first[feasible(first.topologies)].topologies
    second = next(evolution)
    assert len(second) == settings.parents
    assert feasible(second.topologies).all()
    assert (len(parents) > 0) == (limit == 0.6)
    if len(parents):
        for m in range(len(SPACE.branches)):
            pool = {parents.fusion[i, m].tobytes() for i in range(len(parents))}
            assert {second.topologies.fusion[i, m].tobytes() for i in range(len(second))} <= pool


@searches
def test_limits_that_nothing_keeps_are_an_error(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "MOST_DRAWS", 200)
    with pytest.raises(BudgetError, match="limits: found no network of the space scalenas_pose that keeps them among"):
        list(search(SPACE, CLASSES, Made(0), SETTINGS, lambda topologies: np.zeros(len(topologies), dtype=bool)))


@searches
def test_a_small_space_is_exhausted(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "MOST_DRAWS", 500)
    space = MultipathSpace.from_values(
        {
            "name": "one",
            "width": 4,
            "head": "segmentation",
            "modules": [1, 1, 1],
            "input": {"height": 32, "width": 32},
            "depths": [2],
            "groups": {"depths": [[2]], "fusion": [0.0]},
        },
        "one",
    )
    settings = SETTINGS.model_copy(update={"mutation": 0.0})

    def judge(topologies: Topologies) -> Floats:
        return np.ones(len(topologies))

    def no_paths(topologies: Topologies) -> Bools:
        return np.asarray(space.cost(topologies, 2).macs == space.cost(space.smallest[None], 2).macs)

    scored = ScoredTopologies.joined(list(search(space, 2, judge, settings, no_paths)))
    assert space.keys(scored.topologies) == space.keys(space.smallest[None])


# --- operators ------------------------------------------------------------------------------------


def test_crossover_exchanges_a_quarter_of_the_modules() -> None:
    parents = SPACE.sample(np.random.default_rng(0), 400)
    children = cross(np.random.default_rng(1), parents, 0.25)
    own = (children.fusion == parents.fusion).all(axis=(2, 3, 4)) & (children.depth == parents.depth).all(axis=2)
    assert 1 - own[:, 1:].mean() == pytest.approx(0.25, abs=0.03)  # two modules of two branches may be the same
    pair = parents[:2]
    swapped = cross(np.random.default_rng(1), pair, 1.0)
    np.testing.assert_array_equal(swapped.fusion, pair.fusion[::-1])  # never with itself
    alone = cross(np.random.default_rng(1), parents[:1], 0.25)
    np.testing.assert_array_equal(alone.fusion, parents[:1].fusion)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_mutation_flips_paths(probability: float) -> None:
    before = SPACE.sample(np.random.default_rng(0), 100)
    after = mutate(SPACE, np.random.default_rng(1), before, probability)
    np.testing.assert_array_equal(after.depth, before.depth)
    possible = SPACE.connections & (np.arange(5) < before.depth[..., None])[..., None]
    possible[:, -1, 0] = False  # these may be repaired
    assert not (after.fusion ^ before.fusion)[:, :-1][~possible[:, :-1]].any()
    assert (after.fusion ^ before.fusion)[possible].mean() == pytest.approx(probability, abs=0.01)


def test_one_change_is_one_depth_or_one_path() -> None:
    space = MultipathSpace.load("scalenas_segmentation")  # nothing is repaired there
    before = space.sample(np.random.default_rng(0), 1000)
    after = change_one(space, np.random.default_rng(1), before)
    deeper = (after.depth != before.depth).sum(axis=(1, 2))
    assert deeper.max() == 1
    assert deeper.mean() == pytest.approx(0.5, abs=0.05)
    same = deeper == 0
    paths = (after.fusion ^ before.fusion).sum(axis=(1, 2, 3, 4))[same]
    assert set(paths.tolist()) == {0, 1}  # 0 where the path lies past the branch's depth


# --- fronts ---------------------------------------------------------------------------------------


def made_up(scores: Floats, macs: list[int]) -> ScoredTopologies:
    return ScoredTopologies(SPACE.sample(np.random.default_rng(0), len(macs)), scores, np.array(macs))


points = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])),
        st.lists(st.integers(1, 20), min_size=n, max_size=n),
    )
)


@given(points)
def test_fronts_and_hypervolume_are_those_of_the_definition(given_points: tuple[Floats, list[int]]) -> None:
    scored = made_up(*given_points)
    pairs = list(zip(scored.scores, scored.macs, strict=True))

    def beaten(score: float, macs: int) -> bool:
        return any(s >= score and m <= macs and (s > score or m < macs) for s, m in pairs)

    front = scored.front
    assert sorted(zip(front.scores, front.macs, strict=True)) == sorted(p for p in pairs if not beaten(*p))
    assert (np.diff(front.macs) >= 0).all()
    best = scored.best(max(1, len(pairs) // 2))
    assert len(best) == max(1, len(pairs) // 2)
    chosen = list(zip(best.scores, best.macs, strict=True))
    unbeaten = [p for p in pairs if not beaten(*p)]
    assert all(p in unbeaten for p in chosen) or all(p in chosen for p in unbeaten)
    most = 15
    area = sum(max([s for s, m in pairs if m <= x], default=0.0) for x in range(most)) / most
    assert scored.hypervolume(most) == pytest.approx(area)


def test_the_ends_of_a_front_are_parents_first() -> None:
    scored = made_up(np.array([0.1, 0.52, 0.5, 0.55, 0.9]), [1, 11, 10, 12, 30])
    best = scored.best(3)
    assert sorted(best.macs.tolist()) == [1, 12, 30]


def test_the_defaults_are_the_papers() -> None:
    settings = TopologySettings()
    assert (settings.first, settings.evaluations, settings.parents, settings.crossover) == (1000, 2000, 100, 0.25)
