"""The record of a search: its ledger on disk, its scores, and the latencies measured for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from scalenet_zoo.core.distributed import on_main_rank, rank_and_world
from scalenet_zoo.search.ledger import AnyLedger, LatencyRound, ScoredNetwork, TimedNetwork, check_same, load_earlier
from scalenet_zoo.search.limits import SearchBounds

if TYPE_CHECKING:
    from scalenet_zoo.search.measured_latency import LatencyMeter

AnyBounds = TypeVar("AnyBounds", bound=SearchBounds)
OnSave = Callable[[AnyLedger], None]
"""Called with a search's ledger whenever it is written."""


class NetworkScores(Protocol):
    """Scores networks and keeps the scores on disk; `scoring.Scorer` does.

    Attributes:
        seconds: time spent scoring in this session.
    """

    seconds: float

    @property
    def images_each(self) -> int:
        """How many images pass forward to score one network, through all paths and for batch-norm statistics."""
        ...

    def score(self, keys: Sequence[str]) -> list[float]:
        """Score networks, 0 to 1 each; keys may repeat, and networks that have a score already cost nothing."""
        ...


class Record(Generic[AnyLedger, AnyBounds]):
    """Records what a search does.

    A killed search runs again from its beginning and does the same, with the scores and measurements that it already
    has. The file of the earlier session stays as it is until the search has passed the point where it was killed.

    Args:
        path: the ledger's file.
        first: the ledger before anything is done.
        scorer: scores networks.
        bounds: the costs of networks and the limits on them; with a latency model, if latency is limited.
        latency: measures and predicts latency; None: latency is not limited.
        on_save: called with every new ledger.

    Attributes:
        ledger: the present ledger.
        bounds: the bounds with the latency model that was fitted last.
        times: latencies that this search measured, in milliseconds, by key.

    Raises:
        TrainingError: the file has a search with other settings.
        SpecError: the file is damaged.
    """

    def __init__(
        self,
        path: Path,
        first: AnyLedger,
        scorer: NetworkScores,
        bounds: AnyBounds,
        latency: LatencyMeter | None = None,
        on_save: OnSave[AnyLedger] = lambda ledger: None,
    ) -> None:
        self.path, self.ledger, self.scorer, self.bounds = path, first, scorer, bounds
        self.latency, self.on_save = latency, on_save
        self.earlier = on_main_rank(partial(load_earlier, path, first))
        if self.earlier:
            check_same(path, self.earlier.asked, first.asked)
            if latency:
                latency.measured |= self.earlier.times
        self.times: dict[str, float] = {}
        self._networks: dict[str, ScoredNetwork] = {}
        self._scores: dict[str, float] = {}
        self._began, self._scored_before = time.monotonic(), scorer.seconds

    def run(self, search: Callable[[], Sequence[str]]) -> AnyLedger:
        """Search to the end; a search that ended in an earlier session is not run again.

        Args:
            search: searches, and returns the keys of the networks that it ends with.

        Returns:
            The final ledger.

        Raises:
            BackendError: latency is limited, and the back end cannot run here.
            OutputError: the ledger cannot be written.
        """
        if self.earlier and self.earlier.ended:
            self.ledger = self.earlier
            return self.earlier
        found = search()
        if self.latency:
            self.times |= zip(found, self.latency.measure(found), strict=True)
        self._cost({key: self._networks.get(key) for key in found})
        self.save(found, ended=True)
        return self.ledger

    @property
    def evaluations(self) -> int:
        """How many networks are scored so far; each counts once."""
        return len(self._scores)

    def score(self, keys: Sequence[str], generation: int | None = None) -> list[float]:
        """Score networks, 0 to 1 each; the scorer is called only once for each network.

        Args:
            keys: the networks' keys.
            generation: the generation of new networks; None: the number of times that the ledger was written.
        """
        new = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if new:
            self._scores |= zip(new, map(float, self.scorer.score(new)), strict=True)
            self._cost(dict.fromkeys(new), generation)
        return [self._scores[key] for key in keys]

    def affordable(self, keys: Sequence[str], budget: int) -> int:
        """Count how many of the networks, from the first on, can be scored within `budget` evaluations in all."""
        new: set[str] = set()
        for i, key in enumerate(keys):
            if key not in self._scores:
                new.add(key)
                if self.evaluations + len(new) > budget:
                    return i
        return len(keys)

    def measure(self, number: int, keys: Sequence[str]) -> None:
        """Measure networks as the round `number`, and fit the latency model again to all measurements.

        Raises:
            BackendError: the back end cannot run here, or cannot run one of the networks.
        """
        assert self.latency is not None
        predicted = self.bounds.costs(keys).latency_ms
        assert predicted is not None
        timed = zip(keys, predicted.tolist(), self.latency.measure(keys), strict=True)
        networks = tuple(TimedNetwork(key=key, predicted=guess, measured=ms) for key, guess, ms in timed)
        rounds = (*self.ledger.latency_rounds, LatencyRound(round=number, networks=networks))
        self.note(latency_rounds=rounds)
        self.times |= {network.key: network.measured for network in networks}
        self.bounds = self.bounds.with_model(self.latency.model(rounds))
        self._cost(self._networks)

    def note(self, **changes: object) -> None:
        """Change fields of the ledger without writing it."""
        self.ledger = self.ledger.model_copy(update=changes)

    def save(self, found: Sequence[str] = (), **changes: object) -> None:
        """Write the ledger.

        Args:
            found: keys of the networks that the search would end with now.
            changes: new values of fields that the method adds to the ledger.

        Raises:
            OutputError: the file cannot be written.
        """
        earlier, number = self.earlier, {key: place for place, key in enumerate(self._networks)} if found else {}
        scoring = self.scorer.seconds - self._scored_before
        self.note(
            networks=tuple(self._networks.values()),
            chosen=tuple(number[key] for key in found),
            steps=self.ledger.steps + 1,
            images=self.evaluations * self.scorer.images_each,
            seconds=time.monotonic() - self._began + (earlier.seconds if earlier else 0.0),
            scoring_seconds=scoring + (earlier.scoring_seconds if earlier else 0.0),
            **changes,
        )
        if rank_and_world()[0] == 0 and (earlier is None or self.ledger.steps >= earlier.steps):
            self.ledger.save(self.path)
        self.on_save(self.ledger)

    def _cost(self, networks: Mapping[str, ScoredNetwork | None], generation: int | None = None) -> None:
        """Record the costs of networks, known ones and new ones."""
        if not networks:
            return
        costs = self.bounds.costs(list(networks))
        predicted = [None] * len(networks) if costs.latency_ms is None else costs.latency_ms.tolist()
        figures = zip(networks.items(), costs.macs.tolist(), costs.params.tolist(), predicted, strict=True)
        number = self.ledger.steps if generation is None else generation
        for (key, known), macs, params, ms in figures:
            self._networks[key] = ScoredNetwork(
                key=key,
                generation=known.generation if known else number,
                score=self._scores.get(key),
                macs=macs,
                params=params,
                latency_ms=ms,
                measured_ms=self.times.get(key),
            )


def rng_at(seed: int, *place: int) -> np.random.Generator:
    """Make the random generator for what is drawn at a position in a search."""
    return np.random.default_rng([seed, *place])
