"""Latency in the loop of a search: the profile of a space, rounds of measurements, networks verified at the end."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.latency import measuring, yardstick
from scalenet_zoo.latency.items import draw_items
from scalenet_zoo.latency.model import LatencyModel
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile, device_name
from scalenet_zoo.latency.terms import TERMS, trace_terms
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.search.driver import RunOptions
from scalenet_zoo.search.ledger import LatencyRound, TimedNetwork
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.methods import open_run
from scalenet_zoo.search.scalenet.config import MCEASettings, ScaleNetConfig
from scalenet_zoo.search.scalenet.latency import to_measure, verify_budgets
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.settings import LatencySettings
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling
from tests.helpers.search_config import write_config
from tests.helpers.searching import joint_search
from tests.helpers.spaces import TINY

PLAN = Plan(layers=3, networks=5, held_out=2)
STAGES = (1, 2)
BASES = TINY.sample(np.random.default_rng(0), 6)
SCALINGS = (TINY.scalings(1)[3], TINY.scalings(2)[5])


@pytest.fixture(scope="module")
def measured_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """A folder with a real profile of the space, and the progress messages; visits are few and short."""
    folder, told = tmp_path_factory.mktemp("latency"), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "VISITS", 1)
        patch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine, too
        patch.setattr(yardstick, "SECONDS", 0.05)
        assert make_loop(folder, told=lambda what, done, total: told.append(done)).model().terms == TERMS
        yield folder, told


def make_loop(
    folder: Path, backend: str = "ort-cpu", threads: int = 1, classes: int = 3, told: Any = None
) -> LatencyMeter:
    config = ScaleNetConfig(
        name="x",
        data="none",
        space=TINY.model_dump(mode="json"),
        limits=Limits(latency=("1ms",), backend=backend, threads=threads),
        latency=LatencySettings(profile=PLAN, measured=2),
    )
    method = ScaleNetMethod(config, Labels(names=tuple(f"c{number}" for number in range(classes))))
    return LatencyMeter(method, folder, *([told] if told else []))


def law(spec_terms: np.ndarray) -> float:
    """A made-up machine: milliseconds of a network's terms."""
    return float(1e-6 * spec_terms[TERMS.index("widen.macs")] + 1e-6 * spec_terms[TERMS.index("depthwise.k2")] + 0.05)


def made_up(folder: Path, backend: str = "none", classes: int = 3) -> LatencyMeter:
    """A loop with a profile of the made-up machine; it cannot measure, so all latencies must be known."""
    loop = make_loop(folder, backend, classes=classes)
    items = draw_items(loop.method.draw, PLAN)
    measurements = [item.measured("fp32", [Visit(law(item.terms("fp32")), 1.0, 1.0)]) for item in items]
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
    """The time on the made-up machine, times a factor."""
    networks = (
        TimedNetwork(key=each.key, predicted=1.0, measured=factor * true_ms(each.kernels, each.scaling))
        for each in candidates
    )
    return LatencyRound(round=number, networks=tuple(networks))


def limited(model: LatencyModel | None = None, **budgets: float) -> Bounds:
    """Limits on the milliseconds of stages: `s0`, `s1`, `s2`."""
    amounts = [budgets.get(f"s{stage}") for stage in (0, *STAGES)]
    texts = tuple(None if ms is None else f"{ms!r}ms" for ms in amounts)
    bounds = Bounds(TINY, 3, Limits(latency=texts, backend="none", growth=None))
    object.__setattr__(bounds, "model", model)  # unchecked: measuring shows that nothing can keep the limit
    return bounds


# --- for real -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_round_is_measured_and_the_model_fitted_again(measured_space: tuple[Path, list[int]]) -> None:
    folder, told = measured_space
    assert told == list(range(11))
    assert [path.name for path in folder.iterdir()] == ["profile.json"]
    loop = make_loop(folder, told=lambda what, done, total: told.append(done))
    first = loop.model()
    assert len(told) == 11  # the profile is not measured again
    bounds, scalings = limited(first, s0=1.0, s2=5.0), (TINY.unscaled, *SCALINGS)
    keys = to_measure(bounds, list(BASES), scalings, {}, 2)
    assert [Candidate.from_key(TINY, key).scaling.stage for key in keys] == [0, 0, 2, 2]
    measured = figures_of(keys, bounds.predict(keys), loop.measure(keys))
    specs = [loop.method.spec(key) for key in keys]
    for spec, network in zip(specs, measured.networks, strict=True):
        assert 0.001 < network.measured < 100
        assert network.predicted == pytest.approx(first.predict_spec(spec))
    second = loop.model([measured])
    before, after = (
        np.mean(
            [
                abs(math.log(model.predict_spec(spec) / network.measured))
                for spec, network in zip(specs, measured.networks, strict=True)
            ]
        )
        for model in (first, second)
    )
    print(f"mean |log(predicted / measured)|: {before:.3f}, after the refit {after:.3f}")
    assert after < before + 0.05
    assert after < 0.5

    resumed = make_loop(folder, told=lambda *what: pytest.fail("measured again"))
    times = {network.key: network.measured for network in measured.networks}
    resumed.measured |= times
    assert resumed.measure(keys) == list(times.values())
    assert resumed.model([measured]) == second
    following = to_measure(bounds.with_model(second), list(BASES), scalings, times, 2)
    assert len(following) == 4
    assert not set(keys) & set(following)


def figures_of(keys: Sequence[str], predicted: Sequence[float], measured: Sequence[float]) -> LatencyRound:
    timed = zip(keys, predicted, measured, strict=True)
    return LatencyRound(round=1, networks=tuple(TimedNetwork(key=k, predicted=p, measured=m) for k, p, m in timed))


class Guess:
    """A scorer that likes large networks."""

    images_each, seconds = 1, 0.0

    def score(self, keys: Sequence[str]) -> list[float]:
        candidates = [Candidate.from_key(TINY, key) for key in keys]
        return [1 - 1e5 / (1e5 + TINY.spec(each.kernels, each.scaling, 3).cost.macs) for each in candidates]


@pytest.mark.nightly
def test_a_search_ends_with_networks_that_meet_their_budgets(
    measured_space: tuple[Path, list[int]], tmp_path: Path
) -> None:
    middle = TINY.decode(np.array([[options // 2 for options in TINY.gene_options]]))[0]
    model = make_loop(measured_space[0]).model()
    budget = round(0.8 * model.predict_spec(TINY.spec(middle, TINY.scalings(2)[-1], 3)), 5)
    limits = Limits(latency=(None, None, f"{budget}ms"), backend="ort-cpu", threads=1, growth=None)
    loop = make_loop(measured_space[0])
    bounds = Bounds(TINY, 3, limits, model)
    assert bounds.budgets == {2: budget}
    settings = MCEASettings(population=8, generations=2, rounds=2, keep=6, first_bases=3)
    state = joint_search(tmp_path, Guess(), settings, judged=bounds, latency=loop)
    assert [each.scaling.stage for each in state.candidates(TINY)] == [0, 1, 2]
    times = [each.measured_ms for each in state.found]
    assert all(times)
    assert times[2] is not None
    assert times[2] <= budget
    assert [each.round for each in state.latency_rounds] == [1, 2, 3]
    again = joint_search(tmp_path, Guess(), settings, judged=bounds, latency=make_loop(tmp_path))  # measures nothing
    assert again == state


# --- by made-up figures ---------------------------------------------------------------------------


def test_the_profile_of_a_space_is_of_its_networks(tmp_path: Path) -> None:
    plan = Plan(layers=20, networks=30, held_out=5)
    items = draw_items(make_loop(tmp_path).method.draw, plan)
    networks = [item for item in items if item.role != "layers"]
    assert (len(items), len(networks)) == (55, 35)
    assert {item.shape for item in networks} == {(3, size, size) for size in TINY.resolutions}
    again = draw_items(make_loop(tmp_path).method.draw, plan)
    assert [item.macs for item in again] == [item.macs for item in items]


def test_a_profile_of_something_else_is_refused(tmp_path: Path) -> None:
    made_up(tmp_path)
    assert make_loop(tmp_path, backend="none").profile.plan == PLAN
    with pytest.raises(InputError, match=r"profile.json: settings: found another run's, expected this run's; delete"):
        make_loop(tmp_path, backend="none", threads=2).model()


def predicted(model: LatencyModel, candidates: list[Candidate]) -> list[float]:
    return Bounds(TINY, 3, Limits(), model).predict([each.key for each in candidates])


def test_the_model_learns_from_rounds(tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    seen, unseen = ([Candidate(base, scaling) for base in BASES[part] for scaling in (TINY.unscaled, *SCALINGS)]
                    for part in (slice(0, 4), slice(4, 6)))  # fmt: skip

    def error(model: LatencyModel, candidates: list[Candidate]) -> float:
        truth = [1.5 * true_ms(each.kernels, each.scaling) for each in candidates]
        return float(np.abs(np.log(np.array(predicted(model, candidates)) / truth)).mean())

    before, after = loop.model(), loop.model([figures(seen, 1.5)])
    assert error(before, seen) > 0.3
    for candidates in (seen, unseen):
        assert error(after, candidates) < 0.3 * error(before, candidates)
    assert loop.model([figures(seen, 1.5)]) == after


def test_without_base_models_nothing_is_measured(tmp_path: Path) -> None:
    model = made_up(tmp_path).model()
    assert to_measure(limited(model, s0=1.0, s2=5.0), [], (TINY.unscaled, *SCALINGS), {}, 2) == []


def test_base_models_predicted_to_keep_the_budget_are_measured_first(tmp_path: Path) -> None:
    model = made_up(tmp_path).model()
    keys = [Candidate(base, TINY.unscaled).key for base in BASES]
    times = predicted(model, [Candidate(base, TINY.unscaled) for base in BASES])
    budget = sum(sorted(times)[2:4]) / 2
    bounds = limited(model, s0=budget)
    fitting = [key for key, ms in zip(keys, times, strict=True) if ms <= budget]
    missing = [key for key in keys if key not in fitting]
    assert to_measure(bounds, list(BASES), [TINY.unscaled], {}, 4) == [*fitting, *missing][:4]
    assert to_measure(bounds, list(BASES), [TINY.unscaled], {fitting[0]: 1.0}, 2) == fitting[1:3]


def all_known(loop: LatencyMeter, factors: dict[int, float]) -> None:
    """Mark every network of the base models as measured: the made-up machine's time, times a factor per stage."""
    candidates = [Candidate(base, s) for base in BASES for stage in (0, *STAGES) for s in TINY.scalings(stage)]
    for each in candidates:
        loop.measured[each.key] = factors[each.scaling.stage] * true_ms(each.kernels, each.scaling)


def verified(
    loop: LatencyMeter, times: Mapping[str, float] | None = None, **budgets: float
) -> tuple[list[Candidate], list[str]]:
    """The networks that replace the first base model under `SCALINGS`, and those that were measured."""
    ranked = [list(dict.fromkeys((own, *TINY.scalings(own.stage)))) for own in SCALINGS]
    return verify_budgets(limited(loop.model(), **budgets), list(BASES), [[TINY.unscaled], *ranked], loop, times or {})


FIRST = [Candidate(BASES[0], scaling).key for scaling in (TINY.unscaled, *SCALINGS)]


def keys_of(candidates: list[Candidate]) -> list[str]:
    return [candidate.key for candidate in candidates]


def test_networks_that_meet_their_budgets_stay(tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    found, asked = verified(loop, s0=100.0, s2=100.0)
    assert keys_of(found) == FIRST
    assert set(asked) == set(FIRST)


def test_a_strategy_that_misses_its_budget_is_replaced(tmp_path: Path) -> None:
    budget = sorted(true_ms(BASES[0], scaling) for scaling in TINY.scalings(2))[4]
    loop = made_up(tmp_path)
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.2})
    known = dict(loop.measured)  # in earlier rounds
    found, _ = verified(loop, known, s2=budget)
    assert keys_of(found)[:2] == FIRST[:2]
    met = [s for s in TINY.scalings(2) if 1.2 * true_ms(BASES[0], s) <= budget]
    assert SCALINGS[1] not in met
    assert (found[2].kernels == BASES[0]).all()
    assert found[2].scaling == met[0]  # the best ranked of those


def test_after_a_miss_networks_predicted_to_miss_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = sorted(true_ms(BASES[0], scaling) for scaling in TINY.scalings(2))[4]
    loop = made_up(tmp_path)
    measured: list[str] = []

    def machine_by_law(specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        measured.extend(specs)
        return {key: 1.3 * law(trace_terms(spec.trace)) for key, spec in specs.items()}

    monkeypatch.setattr(loop, "_measure", machine_by_law)
    found, asked = verified(loop, s2=budget)
    assert loop.measured[found[2].key] <= budget
    assert set(measured) <= set(asked)
    assert len(measured) > 1
    target = budget
    guesses = predicted(loop.model(), [Candidate.from_key(TINY, key) for key in measured])
    for key, guess in zip(measured, guesses, strict=True):
        assert guess <= target
        target = min(target, guess * budget / loop.measured[key])
    count = len(measured)
    again, _ = verified(loop, dict(loop.measured), s2=budget)  # like a resumed search
    assert keys_of(again) == keys_of(found)
    assert len(measured) == count


def test_a_base_model_that_misses_its_budget_is_replaced(tmp_path: Path) -> None:
    times = [true_ms(base, TINY.unscaled) for base in BASES]
    budget = sorted(times)[2]
    assert times[0] > budget
    loop = made_up(tmp_path)
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    found, _ = verified(loop, dict(loop.measured), s0=budget)
    first = next(base for base, ms in zip(BASES, times, strict=True) if ms <= budget)
    assert all((each.kernels == first).all() for each in found)


@pytest.mark.slow
def test_every_network_of_a_search_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the made-up machine; the supernet is a real one."""
    made_up(tmp_path / "run" / "latency", classes=10, backend="ort-cpu")
    asked: list[str] = []

    def machine_by_law(self: LatencyMeter, specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        asked.extend(specs)
        return {key: law(trace_terms(spec.trace)) for key, spec in specs.items()}

    monkeypatch.setattr(LatencyMeter, "_measure", machine_by_law)
    largest = TINY.scalings(2)[-1]
    budget = float(np.median([true_ms(base, largest) for base in TINY.sample(np.random.default_rng(1), 20)]))
    changes = {
        "limits": {"latency": [None, None, f"{budget}ms"], "backend": "ort-cpu", "threads": 1, "growth": None},
        "latency": {"profile": PLAN.model_dump(), "measured": 2},
    }
    config = ScaleNetConfig.load(write_config(tmp_path, **changes))
    for _ in range(2):
        open_run(config, tmp_path / "run", RunOptions(cpu=True, workers=0)).search()
        assert len(asked) == len(set(asked))
    for method in ("joint", *config.baselines):
        state = ScaleNetLedger.load(tmp_path / "run" / "search" / f"{method}.json")
        for found, candidate in zip(state.found, state.candidates(TINY), strict=True):
            spec = TINY.spec(candidate.kernels, candidate.scaling, 10)
            assert found.measured_ms == pytest.approx(law(trace_terms(spec.trace)))
        if method == "joint":
            assert (state.found[2].measured_ms or math.inf) <= budget
    family = Family.load(tmp_path / "run" / "family.json")
    results = [each for strategy in family.strategies for each in strategy.results]
    assert {each.data for each in results if each.metric == "supernet_top1"} == {"digits val"}
    machine = f"ort-cpu, fp32, batch of 1, 1 CPU thread, {device_name('ort-cpu')}"
    assert [each.data for each in results if each.metric == "latency_ms"] == [machine] * 3


def test_budgets_that_nothing_meets_are_reported(tmp_path: Path) -> None:
    loop = made_up(tmp_path)
    all_known(loop, {0: 1.0, 1: 1.0, 2: 1.0})
    with pytest.raises(BudgetError, match=r"; the last took [\d.]+ms at stage 2, expected at most 0.06ms$"):
        verified(loop, dict(loop.measured), s2=0.06)
