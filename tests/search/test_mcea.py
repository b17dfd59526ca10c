"""The joint search: the optimum is found, limits are kept, nothing is lost in a kill."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenet_zoo.arch.population import Population
from scalenet_zoo.core.errors import BudgetError, InputError, SpecError, TrainingError
from scalenet_zoo.search.ledger import LatencyRound
from scalenet_zoo.search.scalenet.config import MCEASettings
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.variation import evolve
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling, Space
from tests.helpers.searching import (
    LIMITS,
    SETTINGS,
    SMALL,
    Made,
    bounds,
    hashed,
    joint_search,
    limits,
    nearness,
    optimum,
    same_but_for_time,
)

# --- evolution ------------------------------------------------------------------------------------


def canonical(genomes: np.ndarray) -> np.ndarray:
    return SMALL.encode(SMALL.decode(genomes))


def test_evolution_gives_distinct_canonical_survivors_within_the_constraint() -> None:
    judged: list[np.ndarray] = []

    def judge(genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        judged.extend(genomes)
        bases = SMALL.decode(genomes)
        return (bases == 5).sum(axis=(1, 2)).astype(float), bounds().violation(bases, [SMALL.unscaled])

    start = SMALL.encode(SMALL.sample(np.random.default_rng(0), 30))
    generations = evolve(start, SMALL.gene_options, judge, 30, (0,), canonical)
    best = []
    for _, (genomes, fitness) in zip(range(10), generations, strict=False):
        assert len(genomes) <= 30
        assert bounds().feasible(SMALL.decode(genomes), [SMALL.unscaled]).all()
        assert len(np.unique(genomes, axis=0)) == len(genomes)
        assert (np.diff(fitness) <= 0).all()
        best.append(fitness[0])
    assert best == sorted(best)
    assert best[-1] > best[0]
    np.testing.assert_array_equal(np.array(judged), canonical(np.array(judged)))
    assert (np.array(judged) < SMALL.gene_options).all()
    assert len(np.unique(judged[30:60], axis=0)) == 30  # a generation has no duplicates


def test_evolution_mutates_and_crosses_over() -> None:
    zeros, ones = np.zeros((4, 40), dtype=np.int64), np.ones((4, 40), dtype=np.int64)
    born: list[np.ndarray] = []

    def judge(genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        born.append(genomes)
        return np.zeros(len(genomes)), np.zeros(len(genomes))

    generations = evolve(np.concatenate([zeros, ones]), [3] * 40, judge, 40, (0,))
    next(generations), next(generations)
    shares = [(born[1] == value).mean() for value in (0, 1, 2)]
    assert shares[2] == pytest.approx(0.1 / 3, abs=0.02)  # only by mutation
    mixed = ((born[1] == 0).sum(axis=1) > 8) & ((born[1] == 1).sum(axis=1) > 8)
    assert mixed.mean() > 0.3


# --- the search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_found(seed: int, tmp_path: Path) -> None:
    base, scalings = optimum(seed, bounds())
    state = joint_search(
        tmp_path, Made(nearness(base, scalings)), settings=SETTINGS.model_copy(update={"seed": seed, "generations": 15})
    )
    assert [found.score for found in state.found] == [1.0, 1.0, 1.0]
    found = state.candidates(SMALL)
    assert [each.scaling for each in found] == [SMALL.unscaled, scalings[1], scalings[2]]
    assert all((each.kernels == base).all() for each in found)
    assert state.evaluations < 1000  # of 4212 base models with 27 x 18 pairs of strategies


def test_the_state_says_what_was_done(tmp_path: Path) -> None:
    scorer, steps = Made(hashed), list[ScaleNetLedger]()
    state = joint_search(tmp_path, scorer, context={"images": 500}, on_save=steps.append)
    assert ScaleNetLedger.load(tmp_path / "joint.json") == state == steps[-1]
    assert state.ended
    assert [(half.round, half.kind) for half in state.half_steps] == [
        (0, "strategies"),
        (1, "bases"),
        (1, "strategies"),
        (2, "bases"),
        (2, "strategies"),
    ]
    assert len(steps) == 3 + 2 * SETTINGS.generations + 1  # three rankings, the generations, the end
    assert state.evaluations == len(set(scorer.asked)) == len(scorer.asked)
    assert state.images == 100 * state.evaluations
    assert state.settings["images"] == 500
    assert state.drawn >= SETTINGS.first_bases + SETTINGS.population - SETTINGS.keep

    fitness = [half.bases[0].fitness for half in state.half_steps if half.kind == "bases"]
    assert fitness == sorted(fitness)
    for half in state.half_steps:
        for ranked, scaling in zip(half.ranked, half.scalings, strict=half.kind == "strategies"):
            scores = [each.score for each in ranked]
            assert scores == sorted(scores, reverse=True)
            assert ranked[0].scaling == scaling
        assert len(half.bases) <= SETTINGS.keep
        for base in half.bases:
            assert base.fitness == pytest.approx(np.mean(base.scores))
        if half.generations:
            assert len(half.generations) == SETTINGS.generations
            assert half.generations[-1].best == half.bases[0].fitness
    assert len(state.networks) == state.evaluations
    for network in state.networks:
        spec = SMALL.spec((candidate := Candidate.from_key(SMALL, network.key)).kernels, candidate.scaling, 10)
        assert (network.macs, network.params) == (spec.cost.macs, spec.cost.params)
        assert network.score == hashed(candidate)
    generations = [network.generation for network in state.networks]
    assert generations == sorted(generations)
    assert generations[0] == 0


def _array(kernels: tuple[tuple[int, ...], ...]) -> np.ndarray:
    return np.array([[*row, *[0] * (SMALL.longest - len(row))] for row in kernels])


def test_infeasible_networks_are_neither_scored_nor_found(tmp_path: Path) -> None:
    judged = bounds(limits(macs=["900K", None, "3.6M"], tolerance=0.1, growth=0.25, params=["36K", "75K"]))
    scored: list[Candidate] = []

    def score(candidate: Candidate) -> float:
        scored.append(candidate)
        return hashed(candidate)

    state = joint_search(tmp_path, Made(score), judged=judged)
    bases = np.stack([candidate.kernels for candidate in scored])
    assert judged.feasible(bases, [SMALL.unscaled]).all()
    for half in state.half_steps[1:]:
        for base in half.bases:
            assert judged.feasible(_array(base.kernels)[None], [SMALL.unscaled, *half.scalings]).all()
    found = state.candidates(SMALL)
    assert judged.feasible(found[0].kernels[None], [each.scaling for each in found]).all()


def test_weights_decide_between_stages(tmp_path: Path) -> None:
    def score(candidate: Candidate) -> float:
        better = 7 if candidate.scaling.stage == 1 else 3
        return float((candidate.kernels == better).sum()) / 7

    def wishes(weights: tuple[float, ...]) -> tuple[float, ...]:
        given = SETTINGS.model_copy(update={"weights": weights})
        wide = bounds(limits(macs="900K", tolerance=0.6, growth=0.3))
        (tmp_path / str(weights)).mkdir()
        state = joint_search(tmp_path / str(weights), Made(score), settings=given, judged=wide)
        return state.half_steps[-2].bases[0].scores

    first, second = wishes((1.0, 0.0)), wishes((0.0, 1.0))
    assert first[0] > second[0]
    assert first[1] < second[1]


def test_too_many_strategies_are_evolved(tmp_path: Path) -> None:
    base, _ = optimum(0, bounds())
    values = SMALL.model_dump(mode="json")
    values["scaling"][1] |= {"depth": [1.1 + 0.01 * i for i in range(10)], "width": [1.1 + 0.01 * i for i in range(20)]}
    space = Space.from_values(values, "many")
    wanted = Scaling(1, space.scaling[1].depth[7], space.scaling[1].width[5], 32)
    given = SETTINGS.model_copy(update={"strategies_at_most": 60, "rounds": 3})
    state = joint_search(tmp_path, Made(nearness(base, {1: wanted})), settings=given, judged=bounds(space=space))
    assert len(bounds(space=space).admissible(1, base[None])) > 60
    for half in state.half_steps:
        if half.kind == "strategies":
            assert len(half.ranked[0]) <= 60
            assert len({each.scaling for each in half.ranked[0]}) == len(half.ranked[0])
    first, last = (state.half_steps[i].ranked[0][0].score for i in (0, -1))
    assert last > first
    found = state.candidates(space)[1].scaling
    assert (abs(found.depth - wanted.depth), abs(found.width - wanted.width)) <= (0.02, 0.03)


def test_a_search_needs_stages_and_their_weights(tmp_path: Path) -> None:
    values = SMALL.model_dump(mode="json")
    values["scaling"] = values["scaling"][:1]
    with pytest.raises(InputError, match="scaling: found only stage 0 in the space flat, expected a stage above 0"):
        joint_search(tmp_path, judged=bounds(space=Space.from_values(values | {"name": "flat"}, "flat")))
    for weights in ((1.0,), (0.0, 0.0)):
        with pytest.raises(InputError, match="weights: found .* expected one for each of the stages 1, 2, not all 0"):
            joint_search(tmp_path, settings=SETTINGS.model_copy(update={"weights": weights}))


def test_a_stage_without_admissible_strategies_is_one_line(tmp_path: Path) -> None:
    values = SMALL.model_dump(mode="json")
    values["scaling"][1]["resolution"] = [64]
    with pytest.raises(BudgetError, match="stage 1: found no strategy with"):
        joint_search(tmp_path, judged=bounds(space=Space.from_values(values, "far")))


# --- nothing lost ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_search_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = joint_search(tmp_path / "whole")
    scores, path = tmp_path / "scores.tsv", tmp_path / "joint.json"
    process = subprocess.Popen([sys.executable, "-m", "tests.helpers.searching", str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (path.exists() and scores.read_bytes().count(b"\n") > 250):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    killed = ScaleNetLedger.load(path)
    assert not killed.ended
    scored = scores.read_bytes().count(b"\n")
    assert 250 <= scored < whole.evaluations
    scorer, steps = Made(hashed, scores), list[ScaleNetLedger]()
    state = joint_search(tmp_path, scorer, on_save=steps.append)
    assert same_but_for_time(state) == same_but_for_time(whole)
    assert len(scorer.asked) == whole.evaluations - scored  # what was scored is not scored again
    assert state.seconds > killed.seconds
    assert ScaleNetLedger.load(path) == state


def test_the_file_never_falls_behind_while_a_search_is_repeated(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill_at(step: int) -> Any:
        left = [step]

        def on_save(state: ScaleNetLedger) -> None:
            left[0] -= 1
            if not left[0]:
                raise KilledError

        return on_save

    scores, path = tmp_path / "scores.tsv", tmp_path / "joint.json"
    for first, second in ((12, 5), (15, 14)):
        with pytest.raises(KilledError):
            joint_search(tmp_path, Made(hashed, scores), on_save=kill_at(first))
        before = path.read_bytes()
        with pytest.raises(KilledError):
            joint_search(tmp_path, Made(hashed, scores), on_save=kill_at(second))
        assert path.read_bytes() == before
    (tmp_path / "whole").mkdir()
    state = joint_search(tmp_path, Made(hashed, scores))
    assert same_but_for_time(state) == same_but_for_time(joint_search(tmp_path / "whole"))


def test_an_ended_search_is_not_run_again(tmp_path: Path) -> None:
    state = joint_search(tmp_path)
    scorer = Made(hashed)
    assert joint_search(tmp_path, scorer) == state
    assert scorer.asked == []


OTHER_SQUEEZE = SMALL.model_copy(update={"squeeze": "input"})


@pytest.mark.parametrize(
    ("change", "field", "found", "expected"),
    [
        ({"settings": SETTINGS.model_copy(update={"keep": 10})}, "settings.search.keep", 12, 10),
        (
            {"judged": bounds(LIMITS.model_copy(update={"macs": ("950K",)}))},
            "settings.limits.macs",
            ["900K"],
            ["950K"],
        ),
        ({"judged": bounds(LIMITS.model_copy(update={"growth": None}))}, "settings.limits.growth", 0.3, None),
        ({"judged": Bounds(SMALL, 20, LIMITS)}, "settings.classes", 10, 20),
        ({"context": {"images": 7}}, "settings.images", None, 7),
        ({"judged": bounds(space=OTHER_SQUEEZE)}, "space.squeeze", "expanded", "input"),
    ],
)
def test_the_state_of_another_search_is_refused(
    change: dict[str, Any], field: str, found: object, expected: object, tmp_path: Path
) -> None:
    message = re.escape(f"joint.json: {field}: found {found} in this search, expected {expected}, as now given")
    joint_search(tmp_path, settings=SETTINGS)
    with pytest.raises(TrainingError, match=message) as caught:
        joint_search(tmp_path, **change)
    assert "\n" not in str(caught.value)


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "joint.json").write_text("{")
    with pytest.raises(SpecError, match="joint.json: is not valid JSON"):
        joint_search(tmp_path)
    (tmp_path / "joint.json").write_text(json.dumps({"format": "scalenet-zoo/arch"}))
    with pytest.raises(
        SpecError, match="joint.json: format: found 'scalenet-zoo/arch', expected 'scalenet-zoo/search'"
    ):
        joint_search(tmp_path)


# --- latency in the loop --------------------------------------------------------------------------


class Predicted:
    """A latency model whose predictions are too low at first."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def predict(self, population: Population) -> np.ndarray:
        return np.asarray(population.cost.macs / self.speed)


class Loop:
    """Stands in for `LatencyMeter`: measures by a law of its own, and gives a better model each round.

    Attributes:
        asked: networks that were measured in this sitting.
    """

    def __init__(self, *speeds: float) -> None:
        self.speeds = speeds or (1.2e6, 1.1e6, 1.0e6)
        self.asked: list[str] = []
        self.measured: dict[str, float] = {}

    def bounds(self) -> Bounds:
        return Bounds(SMALL, 10, limits(latency=("1ms", None, "3.8ms"), backend="ort-cpu", growth=0.3), self.model())

    def model(self, rounds: Sequence[LatencyRound] = ()) -> Predicted:
        return Predicted(self.speeds[min(len(rounds), len(self.speeds) - 1)])

    def measure(self, keys: Sequence[str]) -> list[float]:
        new = [key for key in keys if key not in self.measured]
        self.asked += new
        self.measured |= {key: int(bounds().costs([key]).macs[0]) / self.speeds[-1] for key in new}
        return [self.measured[key] for key in keys]


def test_limits_are_judged_again_after_a_round(tmp_path: Path) -> None:
    loop = Loop()
    larger_is_better = Made(lambda candidate: float(candidate.kernels.sum()) / 100)
    state = joint_search(tmp_path, larger_is_better, judged=loop.bounds(), latency=loop)
    assert [each.round for each in state.latency_rounds] == [1, 2, 3]  # the last of what was found
    measured = [network.key for each in state.latency_rounds for network in each.networks]
    assert sorted(measured) == sorted(loop.asked)
    rounds = [half for half in state.half_steps if half.kind == "bases"]
    assert rounds[0].bases[0].macs > 1.1e6  # feasible at first, no longer after a round
    assert all(base.macs <= 1.1e6 for base in rounds[1].bases)
    assert state.found[0].macs <= 1.0e6
    assert state.found[2].macs <= 3.8e6
    for network in state.networks:
        assert network.latency_ms == pytest.approx(network.macs / 1.0e6)  # by the last model
        assert network.measured_ms == loop.measured.get(network.key)


def test_measurements_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    loop = Loop()
    whole = joint_search(tmp_path / "whole", judged=loop.bounds(), latency=loop)

    class KilledError(Exception):
        pass

    def kill(state: ScaleNetLedger) -> None:
        if state.latency_rounds and len(state.half_steps[-1].generations) == 3:
            raise KilledError

    asked: list[str] = []
    for times in (1, 2):
        loop = Loop()
        with pytest.raises(KilledError):
            joint_search(tmp_path, judged=loop.bounds(), latency=loop, on_save=kill)
        assert bool(loop.asked) == (times == 1)  # the second time, the first round is already measured
        asked += loop.asked
    loop = Loop()
    state = joint_search(tmp_path, judged=loop.bounds(), latency=loop)
    assert same_but_for_time(state) == same_but_for_time(whole)
    asked += loop.asked
    assert len(asked) == len(set(asked))
    assert set(asked) == set(whole.times)


def test_a_search_begins_again_when_nothing_is_feasible_any_more(tmp_path: Path) -> None:
    """Suddenly only the smaller half of all base models is allowed, while the search has the largest ones."""
    given = limits(latency="0.7ms", backend="ort-cpu", growth=0.3)
    for rounds in (1, 2):
        (tmp_path / str(rounds)).mkdir()
        settings, loop = SETTINGS.model_copy(update={"rounds": rounds}), Loop(1e9, 1e6)
        larger_is_better = Made(lambda candidate: float(candidate.kernels.sum()) / 100)
        state = joint_search(
            tmp_path / str(rounds),
            larger_is_better,
            judged=Bounds(SMALL, 10, given, loop.model()),
            settings=settings,
            latency=loop,
        )
        assert state.found[0].macs <= 0.7e6
        kinds = [(half.round, half.kind) for half in state.half_steps]
        assert kinds[:4] == [(0, "strategies"), (1, "bases"), (1, "strategies"), (1, "strategies")]


# --- speed ----------------------------------------------------------------------------------------


def test_a_search_takes_little_time_apart_from_scoring(tmp_path: Path) -> None:
    space = Space.load("scalenet")
    scorer = Made(hashed)
    settings = MCEASettings(generations=10, rounds=1, first_bases=5)
    began = time.process_time()
    state = joint_search(tmp_path, scorer, judged=Bounds(space, 1000, limits(macs="306M")), settings=settings)
    assert time.process_time() - began < 0.01 * state.evaluations  # 1% of the time if scoring one takes a second
