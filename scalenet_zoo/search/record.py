"""The record of a search: its ledger on disk, the scores that it has asked for, the latencies measured for it."""

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
"""Told of a search's ledger whenever it is written."""


class NetworkScores(Protocol):
    """What scores networks and remembers the scores on disk: `scoring.Scorer`.

    Attributes:
        seconds: spent scoring, in this sitting.
    """

    seconds: float

    @property
    def images_each(self) -> int:
        """Images that pass forward to score one network: along all paths, and to estimate batch-norm statistics."""
        ...

    def score(self, keys: Sequence[str]) -> list[float]:
        """The figure, 0 to 1, of each; they may repeat, and those that have a score cost nothing."""
        ...


class Record(Generic[AnyLedger, AnyBounds]):
    """Writes down what a search does.

    A search that was killed is run again from its beginning: it does the same again, with the scores and measurements
    that it has. Until it is past the point where it was killed, the file of the earlier sitting is left as it is.

    Args:
        path: of the ledger.
        first: the ledger before anything was done.
        scorer: scores networks.
        bounds: what networks cost; with a model of latency, if that is limited.
        latency: measures and predicts, if latency is limited.
        on_save: told of every new ledger.

    Attributes:
        ledger: as of now.
        bounds: as judged by the model of latency that was fitted last.
        times: milliseconds that this search measured, by key.

    Raises:
        TrainingError: the file holds a search with other settings.
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
        """Search to the end; what was ended before is given as it is.

        Args:
            search: does it, and gives the keys of the networks that it ends with.

        Raises:
            BackendError: latency is limited, and the back end cannot run here.
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
        """Networks scored so far, each counted once."""
        return len(self._scores)

    def score(self, keys: Sequence[str], generation: int | None = None) -> list[float]:
        """Scores, 0 to 1; the scorer is asked once for each network.

        Args:
            keys: of the networks.
            generation: of the new ones; None: times that the ledger was written.
        """
        new = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if new:
            self._scores |= zip(new, map(float, self.scorer.score(new)), strict=True)
            self._cost(dict.fromkeys(new), generation)
        return [self._scores[key] for key in keys]

    def affordable(self, keys: Sequence[str], budget: int) -> int:
        """How many of the networks, from the first on, can be scored before there are `budget` evaluations."""
        new: set[str] = set()
        for i, key in enumerate(keys):
            if key not in self._scores:
                new.add(key)
                if self.evaluations + len(new) > budget:
                    return i
        return len(keys)

    def measure(self, number: int, keys: Sequence[str]) -> None:
        """Measure networks as a round of this number, and judge latency anew by all that was measured.

        Raises:
            BackendError: the back end cannot run here, or not one of the networks.
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
        """Change fields of the ledger, which is written later."""
        self.ledger = self.ledger.model_copy(update=changes)

    def save(self, found: Sequence[str] = (), **changes: object) -> None:
        """Write the ledger.

        Args:
            found: keys of the networks that the search would end with now.
            changes: of fields that the method adds.
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
        """Write down what networks cost, those that are known and new ones."""
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
    """The generator for what is drawn at a place of a search."""
    return np.random.default_rng([seed, *place])
