"""A search of topologies, run and written down; its baselines, too.

    topology.py: generations of scored networks --> TopologyState, RUN/search/METHOD.json
         ^                                               |
         +------ feasible, judged anew <-- measured <----+  (latency, every few generations)

A search that was killed is run again from its beginning: it does the same again, with the scores and measurements that
it has. Until it is past the point where it was killed, the file of the earlier sitting is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scalenet_zoo.core.distributed import on_main_rank, rank_and_world
from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.search.scalenas.state import ScoredTopology, TopologyMethod, TopologyRound, TopologyState
from scalenet_zoo.search.scalenas.topology import Scored, ageing_evolution, random_search, topology_evolution
from scalenet_zoo.search.scalenet.record import check_same

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.scalenas.latency import TopologyLatency
    from scalenet_zoo.search.scalenas.limits import TopologyBounds
    from scalenet_zoo.search.settings import TopologySettings
    from scalenet_zoo.spaces.scalenas import Bools, Topologies

METHODS = {"evolution": topology_evolution, "random": random_search, "ageing": ageing_evolution}
OnState = Callable[[TopologyState], None]


class TopologyScorer(Protocol):
    """What scores topologies and remembers the scores on disk: `multipath_scoring.MultipathScorer`."""

    seconds: float

    @property
    def images_each(self) -> int: ...  # noqa: D102

    def score(self, topologies: Topologies) -> list[float]:
        """Figures, 0 to 1, of n topologies."""
        ...


class TopologySearch:
    """A search in a file.

    Args:
        method: how to search.
        bounds: the space, and what its networks may cost; without a model of latency.
        scorer: scores networks.
        settings: of the search.
        path: of the state's file.
        name: of the networks.
        context: what else the results depend on, JSON values.
        latency: measures and predicts, if latency is limited.
        every: generations (of as many networks as there are parents) between measurements,
        measured: of at most so many networks.
        on_state: called with every new state.

    Raises:
        TrainingError: the file holds a search with other settings.
        SpecError: the file is damaged.
    """

    def __init__(
        self,
        method: TopologyMethod,
        bounds: TopologyBounds,
        scorer: TopologyScorer,
        settings: TopologySettings,
        path: Path,
        name: str,
        context: Mapping[str, Any] | None = None,
        latency: TopologyLatency | None = None,
        every: int = 2,
        measured: int = 4,
        on_state: OnState = lambda state: None,
    ) -> None:
        self.bounds, self.space, self.scorer, self.settings = bounds, bounds.space, scorer, settings
        self.path, self.latency, self.every, self.measured, self.on_state = path, latency, every, measured, on_state
        self.state = TopologyState(
            method=method,
            name=name,
            space=bounds.space,
            classes=bounds.classes,
            settings=settings,
            context=dict(context or {}),
            limits=bounds.limits,
        )
        self.earlier = on_main_rank(lambda: TopologyState.load(path) if path.exists() else None)
        if self.earlier:
            fields = {"method", "name", "space", "classes", "settings", "context", "limits"}
            check_same(path, self.earlier.model_dump(include=fields), self.state.model_dump(include=fields))
        self.scored: list[Scored] = []
        self.networks: list[ScoredTopology] = []
        self.rounds: list[TopologyRound] = []
        self.times: dict[str, float] = {}  # milliseconds that this search measured, by key
        self._began, self._scored_before = time.monotonic(), scorer.seconds

    def run(self) -> TopologyState:
        """Search to the end; what was ended before is given as it is.

        Raises:
            BudgetError: no network keeps the limits.
            BackendError: latency is limited, and the back end cannot run here.
        """
        if self.earlier and self.earlier.done:
            return self.earlier
        if self.latency:
            self.bounds = self.bounds.with_model(self.latency.model())
        search, classes = METHODS[self.state.method], self.bounds.classes
        save_at, measure_at = 0, 0
        for generation, part in enumerate(search(self.space, classes, self._score, self.settings, self._feasible)):
            self._add(generation, part)
            if len(self.networks) >= measure_at:
                self._measure(self.measured)
                measure_at = len(self.networks) + self.every * self.settings.parents
            if len(self.networks) >= save_at:  # one that breeds a network at a time has long generations, too
                self._save()
                save_at = len(self.networks) + self.settings.parents
        while self._measure(None):
            self._save()
        if not len(self._front()):
            least, most = min(self.times.values()), self.bounds.limits.milliseconds
            raise BudgetError(
                f"latency: found {format_ms(least)} as the least of {len(self.times)} measured networks,"
                f" expected at most {format_ms(most or 0.0)}"
            )
        self._save(done=True)
        return self.state

    def _score(self, topologies: Topologies) -> Floats:
        return np.array(self.scorer.score(topologies), dtype=np.float64)

    def _add(self, generation: int, part: Scored) -> None:
        self.scored.append(part)
        params = self.space.cost(part.topologies, self.bounds.classes).params
        self.networks += [
            ScoredTopology(key=key, generation=generation, score=float(score), macs=int(macs), params=int(count))
            for key, score, macs, count in zip(
                self.space.keys(part.topologies), part.scores, part.macs, params, strict=True
            )
        ]

    def _feasible(self, topologies: Topologies) -> Bools:
        """Which of n topologies keep the limits, by measurement where there is one."""
        feasible = self.bounds.feasible(topologies)
        if self.times:
            others = self.bounds.without_latency.feasible(topologies)
            for n, key in enumerate(self.space.keys(topologies)):
                if key in self.times:
                    feasible[n] = others[n] and self.times[key] <= (self.bounds.limits.milliseconds or 0.0)
        return feasible

    def _front(self) -> Integers:
        """Places of the feasible networks that no other one beats in score and MACs, the cheapest first."""
        known = Scored.joined(self.scored)
        places = np.flatnonzero(self._feasible(known.topologies))
        return places[known[places].front_places] if len(places) else places

    def _measure(self, most: int | None) -> bool:
        """Measure networks of the front that are not measured yet, the best first, and judge latency anew.

        Args:
            most: so many; None: all.

        Returns:
            Whether there were any.
        """
        if not self.latency:
            return False
        keys = [self.networks[rank_and_world].key for rank_and_world in self._front()[::-1]]
        new = [key for key in keys if key not in self.times][:most]
        if not new:
            return False
        predicted = self.bounds.predict(self.space.from_keys(new))
        assert predicted is not None
        number = len(self.rounds) + 1
        earlier = {each.round: each for each in self.earlier.latency_rounds} if self.earlier else {}
        found = earlier.get(number) or self.latency.measure(number, dict(zip(new, predicted.tolist(), strict=True)))
        self.rounds.append(found)
        self.times |= {network.key: network.measured for network in found.networks}
        self.bounds = self.bounds.with_model(self.latency.model(self.rounds))
        return True

    def _save(self, **changes: object) -> None:
        """Write the state."""
        earlier, networks = self.earlier, self.networks
        if self.latency:
            predicted = self.bounds.predict(Scored.joined(self.scored).topologies)
            assert predicted is not None
            networks = [
                network.model_copy(update={"latency_ms": ms, "measured_ms": self.times.get(network.key)})
                for network, ms in zip(networks, predicted.tolist(), strict=True)
            ]
        scoring = self.scorer.seconds - self._scored_before
        self.state = self.state.model_copy(
            update={
                "networks": tuple(networks),
                "front": tuple(self._front().tolist()),
                "latency_rounds": tuple(self.rounds),
                "images": len(networks) * self.scorer.images_each,
                "seconds": time.monotonic() - self._began + (earlier.seconds if earlier else 0.0),
                "scoring_seconds": scoring + (earlier.scoring_seconds if earlier else 0.0),
                **changes,
            }
        )
        if rank_and_world()[0] == 0 and (earlier is None or _progress(self.state) >= _progress(earlier)):
            self.state.save(self.path)
        self.on_state(self.state)


def _progress(state: TopologyState) -> tuple[int, ...]:
    return int(state.done), len(state.networks), len(state.latency_rounds)
