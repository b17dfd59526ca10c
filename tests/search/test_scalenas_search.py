"""Searches of topologies with their records: ledgers, resuming, limits, latency measured on the way."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import BudgetError, InputError, SpecError, TrainingError
from scalenet_zoo.latency import measuring, yardstick
from scalenet_zoo.latency.items import draw_items
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile
from scalenet_zoo.latency.terms import TERMS, trace_terms
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.scalenas.config import ScaleNASConfig, ScaleNASLatency, TopologySettings
from scalenet_zoo.search.scalenas.limits import TopologyBounds, TopologyLimits
from scalenet_zoo.search.scalenas.method import ScaleNASMethod
from tests.helpers.topologies import (
    CLASSES,
    SETTINGS,
    SPACE,
    Formula,
    bounds,
    limits,
    same_but_for_time,
    search_topologies,
)

searches = pytest.mark.parametrize("search", ["evolution", "random", "ageing"])
SMALLEST, LARGEST = (SPACE.spec(end, CLASSES).cost for end in (SPACE.smallest, SPACE.largest))


@given(st.integers(0, 2**32))
def test_keys_name_topologies(seed: int) -> None:
    topologies = SPACE.sample(np.random.default_rng(seed), 5)
    again = SPACE.from_keys(SPACE.keys(topologies))
    np.testing.assert_array_equal(again.depth, topologies.depth)
    np.testing.assert_array_equal(again.fusion, topologies.fusion)


def test_what_names_no_topology_is_refused() -> None:
    (key,) = SPACE.keys(SPACE.smallest[None])
    for wrong in ("", "x" + key[1:], key[1:], key[:-2], key + "00", "5" + key[1:], key[:-2] + "ff", "0" + key[1:]):
        with pytest.raises(InputError, match=r": found (no name of )?a topology"):
            SPACE.from_keys([key, wrong])


# --- states ---------------------------------------------------------------------------------------


@searches
def test_a_state_has_what_was_scored_and_its_front(search: str, tmp_path: Path) -> None:
    path, told = tmp_path / "state.json", list[Ledger]()
    state = search_topologies(path, search=search, on_save=told.append)
    assert Ledger.load(path) == state
    assert state.ended
    assert len(state.networks) == SETTINGS.evaluations
    assert state.images == 60 * 10
    assert told[-1] == state
    assert all(not each.ended for each in told[:-1])
    assert len(told) >= 4  # the first networks, then generations of twelve
    topologies = SPACE.from_keys([network.key for network in state.networks])
    assert [n.score for n in state.networks] == Formula().score([network.key for network in state.networks])
    cost = SPACE.cost(topologies, CLASSES)
    assert [(n.macs, n.params) for n in state.networks] == list(zip(cost.macs, cost.params, strict=True))
    generations = [network.generation for network in state.networks]
    assert generations == sorted(generations)
    front, scored = state.found, [(n.macs, n.score) for n in state.networks if n.score is not None]
    beaten = [
        any(macs <= n.macs and score >= n.score and (macs, score) != (n.macs, n.score) for macs, score in scored)
        for n in state.networks
        if n.score is not None
    ]
    assert sorted(n.key for n, worse in zip(state.networks, beaten, strict=True) if not worse) == sorted(
        n.key for n in front
    )
    assert [n.macs for n in front] == sorted(n.macs for n in front)
    scorer = Formula()
    assert search_topologies(path, scorer, search=search) == state
    assert not scorer.asked


@searches
def test_a_search_that_was_stopped_ends_as_one_that_was_not(search: str, tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    whole = search_topologies(tmp_path / "whole.json", search=search)
    path, cache = tmp_path / "state.json", tmp_path / "scores.tsv"

    def stop(state: Ledger) -> None:
        if len(state.networks) >= 36:
            raise Stopped

    with pytest.raises(Stopped):
        search_topologies(path, Formula(cache), search=search, on_save=stop)
    before = Ledger.load(path)
    assert before.networks == whole.networks[: len(before.networks)]
    scorer = Formula(cache)
    seen: list[int] = []

    def watch(state: Ledger) -> None:
        seen.append(len(Ledger.load(path).networks))

    state = search_topologies(path, scorer, search=search, on_save=watch)
    assert same_but_for_time(state) == same_but_for_time(whole)
    assert min(seen) >= len(before.networks)  # the file never loses networks
    assert len(scorer.asked) == 60 - len(before.networks)


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = search_topologies(tmp_path / "whole.json")
    for after in (5, 30, 45):
        process = subprocess.Popen([sys.executable, "-m", "tests.helpers.topologies", str(tmp_path)])
        cache, deadline = tmp_path / "scores.tsv", time.monotonic() + 100
        while not cache.exists() or len(cache.read_text().splitlines()) < after:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    scorer = Formula(tmp_path / "scores.tsv")
    state = search_topologies(tmp_path / "evolution.json", scorer)
    assert same_but_for_time(state) == same_but_for_time(whole)
    assert len(scorer.asked) < 20


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"settings": SETTINGS.model_copy(update={"seed": 1})},
            "settings.search.seed: found 0 in this search, expected 1",
        ),
        (
            {"context": {"supernet": "others"}},
            "settings.supernet: found weights in this search",
        ),
        (
            {"judged": bounds(limits(params="1M"))},
            "settings.limits.params: found None in this search",
        ),
        ({"search": "random"}, "search: found evolution in this search, expected random, as now given"),
    ],
)
def test_another_configuration_is_refused(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    search_topologies(tmp_path / "state.json")
    with pytest.raises(TrainingError, match=f"^{tmp_path / 'state.json'}: {complaint}"):
        search_topologies(tmp_path / "state.json", **changes)


# --- limits ---------------------------------------------------------------------------------------


@searches
def test_limits_are_kept(search: str, tmp_path: Path) -> None:
    macs, params = (SMALLEST.macs + LARGEST.macs) / 2, (SMALLEST.params + LARGEST.params) / 2
    middle = bounds(limits(macs=f"{macs / 1e6}M", params=f"{params / 1e3}K"))
    state = search_topologies(tmp_path / "state.json", search=search, judged=middle)
    assert max(network.macs for network in state.networks) <= macs
    assert max(network.params for network in state.networks) <= params


def test_limits_that_cannot_be_kept_are_reported() -> None:
    with pytest.raises(BudgetError, match=r"^limits.macs: found at most 1M, expected [\d.]+M or more, as the smallest"):
        bounds(limits(macs="1M")).check()
    assert bounds(limits(macs=["1G"])).limits.macs == "1G"
    for values, complaint in (
        ({"macs": ["1G", "2G"]}, r"macs: found \['1G', '2G'\], expected one quantity with its unit, such as 20G"),
        ({"latency": "4ms"}, "latency: found no back end, expected one in `backend`"),
        ({"params": "six"}, "params: found 'six', expected"),
    ):
        with pytest.raises(SpecError, match=complaint):
            limits(**values)


# --- latency --------------------------------------------------------------------------------------

PLAN = Plan(layers=2, networks=6, held_out=2)


def law(terms: np.ndarray) -> float:
    """A made-up machine: milliseconds of a network's terms."""
    return float(1e-6 * terms[TERMS.index("dense.macs")] + 0.02 * terms[TERMS.index("dense.calls")] + 0.05)


def make_latency(folder: Path, backend: str = "none", plan: Plan = PLAN) -> LatencyMeter:
    config = ScaleNASConfig(
        name="x",
        method="scalenas",
        data="none",
        space=SPACE.model_dump(mode="json"),
        limits=limits(latency="10s", backend=backend, threads=1),
        latency=ScaleNASLatency(profile=plan),
    )
    return LatencyMeter(ScaleNASMethod(config, Labels(names=("a", "b", "c"))), folder)


def made_up(folder: Path) -> LatencyMeter:
    """Latency on a made-up machine, 5% slower than its profile says."""
    loop = make_latency(folder)
    items = draw_items(loop.method.draw, PLAN)
    measurements = [item.measured("fp32", [Visit(law(item.terms("fp32")), 1.0, 1.0)]) for item in items]
    made = Profile(
        settings=loop.profile_settings, plan=PLAN, machine=machine(), terms=TERMS, measurements=tuple(measurements)
    )
    made.save(folder / "profile.json")

    def measure(specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        return {key: 1.05 * law(trace_terms(spec.trace)) for key, spec in specs.items()}

    loop._measure = measure  # type: ignore[method-assign]
    return loop


def true_ms(key: str) -> float:
    return 1.05 * law(trace_terms(SPACE.spec(SPACE.from_keys([key])[0], CLASSES).trace))


@pytest.fixture(scope="module")
def budget() -> float:
    """Milliseconds that half of the networks drawn from the groups keep."""
    drawn = SPACE.keys(SPACE.sample(np.random.default_rng(1), 21))
    return round(float(np.median([true_ms(key) for key in drawn])), 3)


@pytest.mark.parametrize("search", ["evolution", pytest.param("ageing", marks=pytest.mark.slow)])
def test_latency_is_measured_on_the_way_and_the_front_keeps_its_limit(
    search: str, budget: float, tmp_path: Path
) -> None:
    def run(name: str, loop: LatencyMeter, **options: Any) -> Ledger:
        limited = bounds(limits(latency=f"{budget}ms", backend="ort-cpu")).with_model(loop.model())
        settings = TopologySettings(first=8, evaluations=20, parents=3, tournament=2)
        options |= {"search": search, "judged": limited, "settings": settings, "latency": loop}
        return search_topologies(tmp_path / name, every=1, measured=2, **options)

    state = run("whole.json", made_up(tmp_path))
    rounds = state.latency_rounds
    assert [each.round for each in rounds] == list(range(1, len(rounds) + 1))
    assert len(rounds) >= 3
    measured = {network.key: network.measured for each in rounds for network in each.networks}
    assert len(measured) == sum(len(each.networks) for each in rounds)  # each once
    assert {n.key: n.measured_ms for n in state.networks if n.measured_ms is not None} == measured
    assert state.found
    for network in state.found:
        assert network.measured_ms == pytest.approx(true_ms(network.key))
        assert (network.measured_ms or math.inf) <= budget
    errors = [max(abs(n.predicted / n.measured - 1) for n in each.networks) for each in (rounds[0], rounds[-1])]
    assert errors[1] < errors[0]  # it has learnt

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(state: Ledger) -> None:
        if len(state.latency_rounds) >= 2:
            raise Stopped

    with pytest.raises(Stopped):
        run("state.json", made_up(tmp_path), on_save=stop)
    kept = Ledger.load(tmp_path / "state.json").latency_rounds
    again, asked = made_up(tmp_path), list[str]()
    measure = again._measure

    def watched(specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        asked.extend(specs)
        return measure(specs, known)

    again._measure = watched  # type: ignore[method-assign]
    assert same_but_for_time(run("state.json", again)) == same_but_for_time(state)
    assert not {network.key for each in kept for network in each.networks} & set(asked)


def test_a_front_without_networks_that_keep_the_limit_is_reported(budget: float, tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    loop._measure = lambda specs, known: dict.fromkeys(specs, 10 * budget)  # type: ignore[method-assign]
    limited = bounds(limits(latency=f"{budget}ms", backend="ort-cpu")).with_model(loop.model())
    settings = TopologySettings(first=3, evaluations=3, parents=2)
    with pytest.raises(
        BudgetError, match=r"^latency: found [\d.]+m?s as the lowest of \d+ measured networks, expected"
    ):
        search_topologies(tmp_path / "state.json", judged=limited, settings=settings, latency=loop)


def test_a_model_predicts_the_same_for_topologies_and_specs(tmp_path: Path) -> None:
    model = made_up(tmp_path).model()
    topologies = SPACE.sample(np.random.default_rng(0), 4)
    judged = TopologyBounds(SPACE, CLASSES, TopologyLimits(), model)
    specs = [SPACE.spec(topologies[i], CLASSES) for i in range(4)]
    predicted = judged.costs(SPACE.keys(topologies)).latency_ms
    assert predicted is not None
    np.testing.assert_allclose(predicted, [model.predict_spec(spec) for spec in specs])


@pytest.fixture
def short_visits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "VISITS", 1)
        patch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine, too
        patch.setattr(yardstick, "SECONDS", 0.02)
        yield


@pytest.mark.nightly
@pytest.mark.usefixtures("short_visits")
def test_networks_are_really_measured(tmp_path: Path) -> None:
    loop = make_latency(tmp_path, "ort-cpu", Plan(layers=6, networks=8, held_out=4))
    settings = TopologySettings(first=4, evaluations=6, parents=2)
    limited = bounds(limits(latency="10s", backend="ort-cpu")).with_model(loop.model())
    state = search_topologies(tmp_path / "state.json", judged=limited, settings=settings, latency=loop, measured=1)
    assert (tmp_path / "profile.json").exists()
    assert all(network.measured_ms and network.measured_ms > 0 for network in state.found)
