"""Random, compound and separate searches: exactly their budget, feasible networks, resumed in the same way."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.arch.spec import Provenance
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.search.scalenet.config import Baseline
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.spaces.candidates import Candidate, to_kernels
from scalenet_zoo.spaces.scalenet import Space
from tests.helpers.searching import (
    LIMITS,
    SETTINGS,
    SMALL,
    Made,
    baseline_search,
    bounds,
    hashed,
    joint_search,
    limits,
    nearness,
    optimum,
    same_but_for_time,
)

methods = pytest.mark.parametrize("method", get_args(Baseline))


@methods
@pytest.mark.parametrize("evaluations", [20, 200, 201, 202, 203])
def test_exactly_the_budget_is_spent(method: Baseline, evaluations: int, tmp_path: Path) -> None:
    scorer = Made(hashed)
    state = baseline_search(method, tmp_path, scorer, evaluations)
    assert state.evaluations == len(scorer.asked) == len(set(scorer.asked)) == evaluations
    assert state.images == 100 * evaluations
    assert state.search == method
    assert state.ended
    assert ScaleNetLedger.load(tmp_path / f"{method}.json") == state


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("method", ["compound", "separate"])
def test_a_small_population_spends_the_budget_too(method: Baseline, seed: int, tmp_path: Path) -> None:
    """Within narrow limits its networks soon become too similar to give new ones without newcomers."""

    def smooth(candidate: Candidate) -> float:
        return float(candidate.kernels.sum() / 300 + candidate.scaling.width / 10)

    settings = SETTINGS.model_copy(update={"population": 6, "keep": 4, "seed": seed})
    narrow = bounds(limits(macs="900K", tolerance=0.02))
    state = baseline_search(method, tmp_path, Made(smooth), 150, settings=settings, judged=narrow)
    assert state.evaluations == 150
    best = [generation.best for generation in state.half_steps[0].generations]
    assert best == sorted(best)


@methods
def test_what_is_found_keeps_the_limits(method: Baseline, tmp_path: Path) -> None:
    scored: list[Any] = []
    scorer = Made(lambda candidate: scored.append(candidate) or hashed(candidate))  # type: ignore[func-returns-value]
    state = baseline_search(method, tmp_path, scorer)
    for candidate in scored:
        assert bounds().feasible(candidate.kernels[None], list({SMALL.unscaled, candidate.scaling})).all()
    assert [each.scaling.stage for each in state.candidates(SMALL)] == [0, 1, 2]
    for found, candidate in zip(state.found, state.candidates(SMALL), strict=True):
        own = bounds(limits(macs="900K", tolerance=0.15, growth=None)) if method == "compound" else bounds()
        assert own.feasible(candidate.kernels[None], list({SMALL.unscaled, candidate.scaling})).all()
        if found.score is not None:
            assert found.score == max(hashed(each) for each in scored if each.key == found.key)
    assert [found.score is None for found in state.found] == [False, *[method == "compound"] * 2]
    for half in state.half_steps:
        best = [generation.best for generation in half.generations]
        assert best == sorted(best)
        assert half.bases[0].fitness == best[-1]
    if method != "separate":
        assert len({each.kernels.tobytes() for each in state.candidates(SMALL)}) == 1


def test_the_best_random_trial_is_found(tmp_path: Path) -> None:
    scorer = Made(lambda candidate: candidate.kernels.sum() / 100 + candidate.scaling.width / 10)
    state = baseline_search("random", tmp_path, scorer)
    shares = [found.score for found in state.found[1:]]
    assert state.half_steps[0].bases[0].fitness == pytest.approx(np.mean([share for share in shares if share]))
    assert state.half_steps[0].bases[0].fitness == pytest.approx(
        max(generation.best for generation in state.half_steps[0].generations)
    )
    mean = np.mean([generation.mean for generation in state.half_steps[0].generations])
    assert state.half_steps[0].bases[0].fitness > mean + 0.05


def test_the_compound_rule_is_efficientnets(tmp_path: Path) -> None:
    state = baseline_search("compound", tmp_path)
    base, *scaled = state.candidates(SMALL)
    family = SMALL.family(base.kernels, [SMALL.unscaled], 10, "small", Provenance(source="a test"))
    for found, candidate in zip(state.found[1:], scaled, strict=True):
        scaling = candidate.scaling
        phi = np.log(scaling.depth) / np.log(1.2)
        assert scaling.width == pytest.approx(1.1**phi, abs=1e-5)
        assert abs(scaling.resolution - 32 * 1.15**phi) <= 2.001  # rounded to whole pixels, not to multiples of 4
        budget = 2**scaling.stage * state.found[0].macs
        assert 0.6 * budget < found.macs <= budget
        assert apply_strategy(family, scaling.to_strategy("x")).cost.macs == found.macs
    # the base model has the best score of all that were scored
    best = max(generation.best for generation in state.half_steps[0].generations)
    assert state.found[0].score == best


def test_separate_searches_share_the_budget(tmp_path: Path) -> None:
    state = baseline_search("separate", tmp_path, evaluations=302)
    spent = [sum(generation.scored for generation in half.generations) for half in state.half_steps]
    assert sum(spent) == 302
    assert max(spent) - min(spent) <= 1
    assert [half.round for half in state.half_steps] == [0, 1, 2]
    assert state.half_steps[0].scalings == ()
    for stage in (1, 2):  # each half-step has the strategy of the best network so far
        best = Candidate.from_key(SMALL, state.found[stage].key)
        assert state.half_steps[stage].scalings == (best.scaling,)
        assert state.half_steps[stage].bases[0].kernels == to_kernels(best.kernels)


def test_evolution_finds_more_than_chance(tmp_path: Path) -> None:
    base, scalings = optimum(0, bounds())
    found = {
        method: baseline_search(method, tmp_path, Made(nearness(base, scalings)), evaluations=600).found[1].score
        for method in ("random", "separate")
    }
    found["joint"] = joint_search(tmp_path, Made(nearness(base, scalings))).found[1].score
    assert (found["random"] or 0) < (found["separate"] or 0) <= (found["joint"] or 0)


@methods
def test_a_killed_baseline_ends_as_an_uninterrupted_one(method: Baseline, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(state: ScaleNetLedger) -> None:
        if state.evaluations > 100:
            raise KilledError

    (tmp_path / "whole").mkdir()
    whole = baseline_search(method, tmp_path / "whole")
    with pytest.raises(KilledError):
        baseline_search(method, tmp_path, Made(hashed, tmp_path / "scores"), on_save=kill)
    killed = ScaleNetLedger.load(tmp_path / f"{method}.json")
    scorer = Made(hashed, tmp_path / "scores")
    state = baseline_search(method, tmp_path, scorer)
    assert len(scorer.asked) < whole.evaluations - 90
    assert not killed.ended
    assert same_but_for_time(state) == same_but_for_time(whole)
    assert baseline_search(method, tmp_path, scorer) == state  # it has ended, so it is not run again


@methods
def test_another_budget_is_another_search(method: Baseline, tmp_path: Path) -> None:
    baseline_search(method, tmp_path, evaluations=20)
    with pytest.raises(TrainingError, match="settings.evaluations: found 20 in this search, expected 30, as now given"):
        baseline_search(method, tmp_path, evaluations=30)
    with pytest.raises(InputError, match="evaluations: found 2, expected more than 2, the stages to scale to"):
        baseline_search(method, tmp_path / "other", evaluations=2)


@methods
def test_an_exhausted_space_ends_the_search(method: Baseline, tmp_path: Path) -> None:
    values = SMALL.model_dump(mode="json")
    for stage in values["stages"]:
        stage["kernels"] = [3]
    space = Space.from_values(values, "few")  # six base models
    wide = bounds(LIMITS.model_copy(update={"macs": ()}), space)
    state = baseline_search(method, tmp_path, evaluations=5000, judged=wide)
    assert state.ended
    assert state.evaluations < 5000
