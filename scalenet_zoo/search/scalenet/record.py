"""The record of a search: its state on disk, and the scores that it has asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.core.distributed import on_main_rank, rank_and_world
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.search.scalenet.state import Found, ScoredBase, SearchState, first_difference

if TYPE_CHECKING:
    from pydantic import BaseModel

    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.search.scalenet.state import Kernels, LatencyRound, Method
    from scalenet_zoo.spaces.candidates import Candidate, Scorer
    from scalenet_zoo.spaces.scalenet import Scaling, Space

OnStep = Callable[[SearchState], None]


class Record:
    """Writes down what a search does.

    A search that was killed is run again from its beginning: it does the same again, with the scores that it has.
    Until it is past the point where it was killed, the file of the earlier sitting is left as it is.

    Args:
        path: of the state's file.
        first: the state before anything was done.
        scorer: scores networks.
        on_step: called with every new state.

    Attributes:
        state: as of now.

    Raises:
        TrainingError: the file holds a search with other settings.
        SpecError: the file is damaged.
    """

    def __init__(self, path: Path, first: SearchState, scorer: Scorer, on_step: OnStep | None = None) -> None:
        self.path, self.scorer, self.on_step = path, scorer, on_step
        self.state = first
        self.earlier = on_main_rank(lambda: SearchState.load(path) if path.exists() else None)
        if self.earlier:
            fields = {"method", "name", "space", "space_hash", "stages", "settings"}
            check_same(path, self.earlier.model_dump(include=fields), first.model_dump(include=fields))
        self._scores: dict[str, float] = {}
        self._began, self._scored_before = time.monotonic(), scorer.seconds

    @property
    def evaluations(self) -> int:
        """Networks scored so far, each counted once."""
        return len(self._scores)

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """Scores, 0 to 1; the scorer is asked once for each network."""
        new = {candidate.key: candidate for candidate in candidates if candidate.key not in self._scores}
        self._scores |= zip(new, map(float, self.scorer.score(list(new.values()))), strict=True)
        return [self._scores[candidate.key] for candidate in candidates]

    def affordable(self, candidates: Sequence[Candidate], budget: int) -> int:
        """How many of the candidates, from the first on, can be scored before there are `budget` evaluations."""
        new: set[str] = set()
        for i, candidate in enumerate(candidates):
            if candidate.key not in self._scores:
                new.add(candidate.key)
                if self.evaluations + len(new) > budget:
                    return i
        return len(candidates)

    def measured_earlier(self, number: int) -> list[LatencyRound]:
        """What an earlier sitting measured after a round, if it came so far."""
        return [each for each in (self.earlier.latency_rounds if self.earlier else ()) if each.round == number]

    def save(self, **changes: object) -> None:
        """Change fields of the state and write it."""
        earlier = self.earlier
        self.state = self.state.model_copy(
            update={
                **changes,
                "evaluations": self.evaluations,
                "images": self.evaluations * self.scorer.images_each,
                "seconds": time.monotonic() - self._began + (earlier.seconds if earlier else 0.0),
                "scoring_seconds": self.scorer.seconds
                - self._scored_before
                + (earlier.scoring_seconds if earlier else 0.0),
            }
        )
        if rank_and_world()[0] == 0 and (earlier is None or _progress(self.state) >= _progress(earlier)):
            self.state.save(self.path)
        if self.on_step:
            self.on_step(self.state)


def _progress(state: SearchState) -> tuple[int, ...]:
    generations = sum(len(half.generations) for half in state.half_steps)
    return int(state.ended), len(state.latency_rounds), len(state.half_steps), generations


def first_state(
    method: Method, name: str, bounds: Bounds, settings: BaseModel, context: Mapping[str, object]
) -> SearchState:
    """The state of a search that is about to begin.

    Args:
        method: how is searched.
        name: of the family.
        bounds: its space and limits.
        settings: of the search.
        context: what else the results depend on, JSON values: how networks are scored, say.

    Raises:
        InputError: the space has no stage above 0.
    """
    return SearchState(
        method=method,
        name=name,
        space=bounds.space.name,
        space_hash=bounds.space.hash,
        settings={
            "search": settings.model_dump(mode="json", exclude_none=True),
            "limits": bounds.limits.model_dump(mode="json", exclude_none=True),
            "classes": bounds.classes,
            "in_channels": bounds.in_channels,
            **context,
        },
        stages=scaled_stages(bounds.space),
    )


def scaled_stages(space: Space) -> tuple[int, ...]:
    """Those above 0.

    Raises:
        InputError: there are none.
    """
    stages = tuple(each.stage for each in space.scaling if each.stage > 0)
    if not stages:
        raise InputError(f"scaling: found only stage 0 in the space {space.name}, expected a stage above 0")
    return stages


def check_same(path: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse a file of another search.

    Raises:
        TrainingError: what was searched `before`, as the file says, is not what is to be searched `now`.
    """
    if difference := first_difference(before, now):
        field, found, expected = difference
        raise TrainingError(f"{path}: {field}: found {found} in this search, expected {expected}, as now given")


def to_kernels(base: Integers) -> Kernels:
    """A base model (stages, layers) without the layers that are not there."""
    return tuple(tuple(int(kernel) for kernel in row if kernel) for row in base)


def scored_bases(bounds: Bounds, bases: Integers, scores: Floats, fitness: Floats) -> tuple[ScoredBase, ...]:
    """Base models (n, stages, layers) with their scores (n, scaling stages) and fitness (n,)."""
    if not len(bases):
        return ()
    macs = bounds.population(bases, [bounds.space.unscaled]).cost.macs[:, 0]
    return tuple(
        ScoredBase(kernels=to_kernels(base), macs=int(cost), fitness=float(score), scores=tuple(map(float, row)))
        for base, cost, score, row in zip(bases, macs, fitness, scores, strict=True)
    )


def found_network(bounds: Bounds, base: Integers, scaling: Scaling, score: float | None) -> Found:
    """A network that a search ends with: a base model (stages, layers) under a strategy."""
    cost = bounds.population(base[None], [scaling]).cost
    return Found(
        stage=scaling.stage,
        kernels=to_kernels(base),
        scaling=scaling,
        score=score,
        macs=int(cost.macs[0, 0]),
        params=int(cost.params[0, 0]),
    )


def rng_at(seed: int, *rank_and_world: int) -> np.random.Generator:
    """The generator for what is drawn at a place of a search."""
    return np.random.default_rng([seed, *rank_and_world])
