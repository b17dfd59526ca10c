"""Latency in the loop of a search: the profile of a space, rounds of measurements, networks verified at the end."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.latency import profile, yardstick
from scalenet_zoo.latency.model import LatencyModel
from scalenet_zoo.latency.profile import Measurement, Plan, Profile, device_name
from scalenet_zoo.latency.terms import TERMS, trace_terms
from scalenet_zoo.search.config import SearchConfig
from scalenet_zoo.search.latency import LatencyLoop
from scalenet_zoo.search.run import RunOptions
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.mcea import MCEA
from scalenet_zoo.search.scalenet.record import found_network, to_kernels
from scalenet_zoo.search.scalenet.run import SearchRun
from scalenet_zoo.search.scalenet.state import (
    Found,
    HalfStep,
    LatencyRound,
    Measured,
    ScoredBase,
    ScoredScaling,
    SearchState,
)
from scalenet_zoo.search.settings import LatencySettings, MCEASettings
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling
from tests.helpers.spaces import TINY
from tests.search.test_search_run import write_config

PLAN = Plan(layers=3, networks=5, held_out=2)
STAGES = (1, 2)
BASES = TINY.sample(np.random.default_rng(0), 6)
SCALINGS = (TINY.scalings(1)[3], TINY.scalings(2)[5])


@pytest.fixture(scope="module")
def measured_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """A folder with a real profile of the space, and what was told of it; visits are few and short meanwhile."""
    folder, told = tmp_path_factory.mktemp("latency"), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "VISITS", 1)
        patch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine, too
        patch.setattr(yardstick, "SECONDS", 0.05)
        assert make_loop(folder, on_progress=lambda what, done, total: told.append(done)).model().terms == TERMS
        yield folder, told


def make_loop(folder: Path, **changes: object) -> LatencyLoop:
    values = {"classes": 3, "budgets": {0: 1.0, 2: 5.0}, "backend": "ort-cpu", "threads": 1, "folder": folder}
    settings = LatencySettings(profile=PLAN, measured=2)
    return LatencyLoop(space=TINY, settings=settings, **(values | changes))  # type: ignore[arg-type]


def law(spec_terms: np.ndarray) -> float:
    """A made-up machine: milliseconds of a network's terms."""
    return float(1e-6 * spec_terms[TERMS.index("widen.macs")] + 1e-6 * spec_terms[TERMS.index("depthwise.k2")] + 0.05)


def made_up(folder: Path, **changes: object) -> LatencyLoop:
    """A loop whose profile is of the made-up machine, and which cannot measure: all must be known."""
    loop = make_loop(folder, **{"backend": "none"} | changes)
    items = profile.draw_items(loop._draw, PLAN)
    measurements = [
        Measurement(role=item.role, terms=tuple(item.terms), macs=item.macs, visits=((law(item.terms), 1.0, 1.0),))
        for item in items
    ]
    made = Profile(
        settings=loop.profile_settings,
        plan=PLAN,
        machine=machine(),
        terms=TERMS,
        measurements=tuple(measurements),
    )
    made.save(folder / "profile.json")
    return loop


def true_ms(kernels: np.ndarray, scaling: Scaling) -> float:
    return law(trace_terms(TINY.spec(kernels, scaling, 3).trace))


def figures(candidates: list[Candidate], factor: float, number: int = 1) -> LatencyRound:
    """What the made-up machine takes, times a factor."""
    networks = (
        Measured(
            kernels=to_kernels(each.kernels),
            scaling=each.scaling,
            predicted=1.0,
            measured=factor * true_ms(each.kernels, each.scaling),
        )
        for each in candidates
    )
    return LatencyRound(round=number, networks=tuple(networks))


def make_state(bases: np.ndarray = BASES, rounds: tuple[LatencyRound, ...] = ()) -> SearchState:
    """After the first round."""
    scored = tuple(ScoredBase(kernels=to_kernels(base), macs=1, fitness=0.5, scores=(0.5, 0.5)) for base in bases)
    ranked = tuple(
        tuple(ScoredScaling(scaling=each, score=0.5, macs=1.0) for each in TINY.scalings(stage)) for stage in STAGES
    )
    return SearchState(
        method="joint",
        name="found",
        space=TINY.name,
        space_hash=TINY.hash,
        settings={},
        stages=STAGES,
        half_steps=(
            HalfStep(round=1, kind="bases", scalings=SCALINGS, bases=scored),
            HalfStep(round=1, kind="strategies", scalings=SCALINGS, ranked=ranked),
        ),
        latency_rounds=rounds,
    )


# --- for real -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_round_is_measured_and_the_model_fitted_anew(measured_space: tuple[Path, list[int]]) -> None:
    folder, told = measured_space
    assert told == list(range(11))
    assert [path.name for path in folder.iterdir()] == ["profile.json"]
    loop = make_loop(folder, on_progress=lambda what, done, total: told.append(done))
    first, state = loop.model(), make_state()
    assert len(told) == 11  # the profile is not measured again
    measured = loop.after_round(state)
    assert measured is not None
    assert measured.round == 1
    assert [network.scaling.stage for network in measured.networks] == [0, 0, 2, 2]
    pairs = [(TINY.spec(as_array(network), network.scaling, 3), network) for network in measured.networks]
    for spec, network in pairs:
        assert 0.001 < network.measured < 100
        assert network.predicted == first.predict_spec(spec)
    second = loop.model([measured])
    before, after = (
        np.mean([abs(math.log(model.predict_spec(spec) / network.measured)) for spec, network in pairs])
        for model in (first, second)
    )
    print(f"mean |log(predicted / measured)|: {before:.3f}, after the refit {after:.3f}")
    assert after < before + 0.05
    assert after < 0.5

    resumed = make_loop(folder, on_progress=lambda *what: pytest.fail("measured again"))
    assert resumed.after_round(make_state(rounds=(measured,))) == measured
    assert resumed.model([measured]) == second

    later = state.half_steps[-1].model_copy(update={"round": 2})
    following = loop.after_round(state.model_copy(update={"half_steps": (*state.half_steps, later)}))
    assert following is not None
    assert (following.round, len(following.networks)) == (2, 4)
    assert not {(n.kernels, n.scaling) for n in measured.networks} & {
        (n.kernels, n.scaling) for n in following.networks
    }


class Guess:
    """A scorer that likes large networks."""

    images_each, seconds = 1, 0.0

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        return [1 - 1e5 / (1e5 + TINY.spec(each.kernels, each.scaling, 3).cost.macs) for each in candidates]


@pytest.mark.slow
def test_a_search_ends_with_networks_that_meet_their_budgets(
    measured_space: tuple[Path, list[int]], tmp_path: Path
) -> None:
    middle = TINY.decode(np.array([[options // 2 for options in TINY.gene_options]]))[0]
    model = make_loop(measured_space[0]).model()
    budget = round(0.8 * model.predict_spec(TINY.spec(middle, TINY.scalings(2)[-1], 3)), 5)
    limits = Limits(latency=(None, None, f"{budget}ms"), backend="ort-cpu", threads=1, growth=None)
    loop = make_loop(measured_space[0], budgets=limits.amounts("latency", [0, *STAGES]))
    assert loop.budgets == {2: budget}
    bounds = Bounds(TINY, 3, limits, model)
    settings = MCEASettings(population=8, generations=2, rounds=2, keep=6, first_bases=3)
    search = MCEA(bounds, Guess(), settings, tmp_path / "joint.json", "found", after_round=loop.follow(bounds))
    state = loop.verify_found(search.run(), bounds, Guess())
    assert [each.stage for each in state.found] == [0, 1, 2]
    times = [each.latency_ms for each in state.found]
    assert all(times)
    assert times[2] is not None
    assert times[2] <= budget
    assert [each.round for each in state.latency_rounds] == [1, 2, 3]
    assert loop.verify_found(state, bounds, Guess()) == state


# --- by made-up figures ---------------------------------------------------------------------------


def as_array(network: Measured | Found) -> np.ndarray:
    array = np.zeros((len(TINY.stages), TINY.longest), dtype=np.int64)
    for row, stage in zip(array, network.kernels, strict=True):
        row[: len(stage)] = stage
    return array


def test_the_profile_of_a_space_is_of_its_networks(tmp_path: Path) -> None:
    plan = Plan(layers=20, networks=30, held_out=5)
    items = profile.draw_items(make_loop(tmp_path)._draw, plan)
    networks = [item for item in items if item.role != "layers"]
    assert (len(items), len(networks)) == (55, 35)
    assert {item.shape for item in networks} == {(3, size, size) for size in TINY.resolutions}
    again = profile.draw_items(make_loop(tmp_path)._draw, plan)
    assert [item.macs for item in again] == [item.macs for item in items]


def test_a_profile_of_something_else_is_refused(tmp_path: Path) -> None:
    made_up(tmp_path)
    assert make_loop(tmp_path, backend="none").profile.plan == PLAN
    with pytest.raises(InputError, match=r"profile.json: settings: found another run's, expected this one's; delete"):
        make_loop(tmp_path, backend="none", threads=2).model()


def test_the_model_learns_from_rounds(tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    seen, unseen = ([Candidate(base, scaling) for base in BASES[part] for scaling in (TINY.unscaled, *SCALINGS)]
                    for part in (slice(0, 4), slice(4, 6)))  # fmt: skip

    def error(model: LatencyModel, candidates: list[Candidate]) -> float:
        truth = [1.5 * true_ms(each.kernels, each.scaling) for each in candidates]
        return float(np.abs(np.log(np.array(loop.predict(model, candidates)) / truth)).mean())

    before, after = loop.model(), loop.model([figures(seen, 1.5)])
    assert error(before, seen) > 0.3
    for candidates in (seen, unseen):
        assert error(after, candidates) < 0.3 * error(before, candidates)
    assert loop.model([figures(seen, 1.5)]) == after


def test_a_round_that_was_measured_before_is_taken(tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    one = figures([Candidate(base, TINY.unscaled) for base in BASES[:2]], 1.3)
    bounds = Bounds(TINY, 3, Limits(latency="1ms", backend="none", growth=None), loop.model())  # type: ignore[arg-type]
    judged = loop.follow(bounds)(make_state(rounds=(one,)))
    assert judged is not None
    assert judged[0] == one
    assert judged[1].model == loop.model([one])
    assert judged[1].limits == bounds.limits


def test_without_base_models_nothing_is_measured(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    state = make_state()
    assert loop.after_round(state.model_copy(update={"half_steps": state.half_steps[1:]})) is None
    assert not list(tmp_path.iterdir())


def all_known(loop: LatencyLoop, factors: dict[int, float]) -> None:
    """Let every network of the base models be measured: the made-up machine's time, times a factor of its stage."""
    candidates = [Candidate(base, s) for base in BASES for stage in (0, *STAGES) for s in TINY.scalings(stage)]
    for each in candidates:
        loop.measured[each.key] = factors[each.scaling.stage] * true_ms(each.kernels, each.scaling)


def ended(bounds: Bounds) -> SearchState:
    found = (found_network(bounds, BASES[0], scaling, 0.5) for scaling in (TINY.unscaled, *SCALINGS))
    return make_state().model_copy(update={"ended": True, "found": tuple(found)})


def test_networks_that_meet_their_budgets_stay(tmp_path: Path) -> None:
    loop = made_up(tmp_path, budgets={0: 100.0, 2: 100.0})
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    bounds = Bounds(TINY, 3, Limits(growth=None))
    before = ended(bounds)
    state = loop.verify_found(before, bounds, Guess())
    assert [(f.kernels, f.scaling) for f in state.found] == [(f.kernels, f.scaling) for f in before.found]
    expected = [true_ms(as_array(f), f.scaling) for f in state.found]
    assert [f.latency_ms for f in state.found] == expected
    assert state.latency_rounds == ()
    assert [f.latency_ms for f in loop.measure_found(before).found] == expected


def test_a_strategy_that_misses_its_budget_is_replaced(tmp_path: Path) -> None:
    times = sorted(true_ms(BASES[0], scaling) for scaling in TINY.scalings(2))
    loop = made_up(tmp_path, budgets={2: times[4]})
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.2})
    bounds = Bounds(TINY, 3, Limits(growth=None))
    before = ended(bounds)
    state = loop.verify_found(before, bounds, Guess())
    assert {f.kernels for f in state.found} == {to_kernels(BASES[0])}
    assert [f.scaling for f in state.found[:2]] == [f.scaling for f in before.found[:2]]
    met = [s for s in TINY.scalings(2) if 1.2 * true_ms(BASES[0], s) <= times[4]]
    assert SCALINGS[1] not in met
    assert state.found[2].scaling == met[0]  # the best ranked of those
    assert state.found[2].latency_ms == 1.2 * true_ms(BASES[0], met[0])
    assert state.found[2].score == Guess().score([Candidate(BASES[0], met[0])])[0]
    assert loop.verify_found(state, bounds, Guess()) == state


def test_after_a_miss_what_is_predicted_to_miss_as_well_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = sorted(true_ms(BASES[0], scaling) for scaling in TINY.scalings(2))
    loop = made_up(tmp_path, budgets={2: times[4]})
    asked: list[str] = []

    def machine_by_law(specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        asked.extend(specs)
        return {key: 1.3 * law(trace_terms(spec.trace)) for key, spec in specs.items()}

    monkeypatch.setattr(loop, "_measure", machine_by_law)
    bounds = Bounds(TINY, 3, Limits(growth=None))
    state = loop.verify_found(ended(bounds), bounds, Guess())
    assert state.found[2].latency_ms is not None
    assert state.found[2].latency_ms <= times[4]
    (added,) = state.latency_rounds
    assert added.round == 2
    assert {loop._candidate(each.kernels, each.scaling).key for each in added.networks} == set(asked)
    tried = [each for each in added.networks if each.scaling.stage == 2]
    assert len(tried) > 1
    target = times[4]
    for each in tried:
        assert each.predicted <= target
        target = min(target, each.predicted * times[4] / each.measured)
    assert loop.verify_found(state, bounds, Guess()) == state


def test_a_base_model_that_misses_its_budget_is_replaced(tmp_path: Path) -> None:
    times = [true_ms(base, TINY.unscaled) for base in BASES]
    budget = sorted(times)[2]
    assert times[0] > budget
    loop = made_up(tmp_path, budgets={0: budget})
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    bounds = Bounds(TINY, 3, Limits(growth=None))
    state = loop.verify_found(ended(bounds), bounds, Guess())
    first = next(base for base, ms in zip(BASES, times, strict=True) if ms <= budget)
    assert {f.kernels for f in state.found} == {to_kernels(first)}


def test_every_network_of_a_search_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the made-up machine; the supernet is a real one."""
    made_up(tmp_path / "run" / "latency", classes=10, backend="ort-cpu")
    asked: list[str] = []

    def machine_by_law(self: LatencyLoop, specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        asked.extend(specs)
        return {key: law(trace_terms(spec.trace)) for key, spec in specs.items()}

    monkeypatch.setattr(LatencyLoop, "_measure", machine_by_law)
    largest = TINY.scalings(2)[-1]
    budget = float(np.median([true_ms(base, largest) for base in TINY.sample(np.random.default_rng(1), 20)]))
    changes = {
        "limits": {"latency": [None, None, f"{budget}ms"], "backend": "ort-cpu", "threads": 1, "growth": None},
        "latency": {"profile": PLAN.model_dump(), "measured": 2},
    }
    config = SearchConfig.load(write_config(tmp_path, **changes))
    for _ in range(2):
        SearchRun(config, tmp_path / "run", RunOptions(cpu=True, workers=0)).search()
        assert len(asked) == len(set(asked))
    for method in ("joint", *config.baselines):
        state = SearchState.load(tmp_path / "run" / "search" / f"{method}.json")
        for found in state.found:
            spec = TINY.spec(as_array(found), found.scaling, 10)
            assert found.latency_ms == pytest.approx(law(trace_terms(spec.trace)))
        if method == "joint":
            assert (state.found[2].latency_ms or math.inf) <= budget
    family = Family.load(tmp_path / "run" / "family.json")
    results = [each for strategy in family.strategies for each in strategy.results]
    assert {each.data for each in results if each.metric == "supernet_top1"} == {"digits val"}
    machine = f"ort-cpu, fp32, batch of 1, 1 CPU thread, {device_name('ort-cpu')}"
    assert [each.data for each in results if each.metric == "latency_ms"] == [machine] * 3


def test_budgets_that_nothing_meets_are_told(tmp_path: Path) -> None:
    loop = made_up(tmp_path, budgets={2: 0.06})
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    bounds = Bounds(TINY, 3, Limits(growth=None))
    with pytest.raises(BudgetError, match=r"^latency: found [\d.]+ms at stage 2, expected at most 0.06ms, and none of"):
        loop.verify_found(ended(bounds), bounds, Guess())
