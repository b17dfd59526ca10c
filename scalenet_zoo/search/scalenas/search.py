"""A search of topologies, or one of its baselines: generations of scored networks, measured every few generations.

topology.py: generations of scored networks --> record, the front
^                                              |
+------ feasible, judged again <-- measured <--+  (latency, every few generations)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenas.limits import TopologyBounds
from scalenet_zoo.search.scalenas.topology import (
    ScoredTopologies,
    ageing_evolution,
    random_search,
    topology_evolution,
)

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats
    from scalenet_zoo.search.scalenas.config import TopologySettings
    from scalenet_zoo.spaces.scalenas import Bools, Topologies

SEARCHES = {"evolution": topology_evolution, "random": random_search, "ageing": ageing_evolution}


class TopologySearch:
    """A search with its record; call `run`.

    Args:
        search: one of `SEARCHES`.
        record: the search's record, with its space and limits.
        settings: the search's settings.
        every: generations between measurements; a generation is as many networks as there are parents.
        measured: the most networks to measure at a time.
    """

    def __init__(
        self,
        search: str,
        record: Record[Ledger, TopologyBounds],
        settings: TopologySettings,
        every: int = 2,
        measured: int = 4,
    ) -> None:
        self.search, self.record, self.settings = SEARCHES[search], record, settings
        self.space, self.classes = record.bounds.space, record.bounds.classes
        self.every, self.measured = every, measured
        self.scored: list[ScoredTopologies] = []

    def run(self) -> list[str]:
        """Search to the end.

        Returns:
            The keys of the networks on the Pareto front, the cheapest first.

        Raises:
            BudgetError: no network keeps the limits.
            BackendError: latency is limited, and the back end cannot run here.
        """
        record, save_at, measure_at = self.record, 0, 0
        for part in self.search(self.space, self.classes, self._score, self.settings, self._feasible):
            self.scored.append(part)
            if record.evaluations >= measure_at:
                self._measure(self.measured)
                measure_at = record.evaluations + self.every * self.settings.parents
            if record.evaluations >= save_at:  # a search that breeds single networks saves no more often than others
                record.save(self._front())
                save_at = record.evaluations + self.settings.parents
        while self._measure(None):
            record.save(self._front())
        if front := self._front():
            return front
        least, most = min(record.times.values()), record.bounds.limits.milliseconds
        raise BudgetError(
            f"latency: found {format_ms(least)} as the lowest of {len(record.times)} measured networks,"
            f" expected at most {format_ms(most or 0.0)}"
        )

    def _score(self, topologies: Topologies) -> Floats:
        return np.array(self.record.score(self.space.keys(topologies), len(self.scored)), dtype=np.float64)

    def _feasible(self, topologies: Topologies) -> Bools:
        """Tell which of n topologies keep the limits, (n,); for those that were measured, the measurement decides."""
        bounds, times = self.record.bounds, self.record.times
        feasible = bounds.feasible(topologies)
        if times:
            others = bounds.without_latency.feasible(topologies)
            for n, key in enumerate(self.space.keys(topologies)):
                if key in times:
                    feasible[n] = others[n] and times[key] <= (bounds.limits.milliseconds or 0.0)
        return feasible

    def _front(self) -> list[str]:
        """Keys of the feasible networks that no other one beats in score and MACs, the cheapest first."""
        known = ScoredTopologies.joined(self.scored)
        kept = known[np.flatnonzero(self._feasible(known.topologies))]
        return self.space.keys(kept.front.topologies) if len(kept) else []

    def _measure(self, most: int | None) -> bool:
        """Measure networks of the front that are not measured yet, the best first, and fit the latency model again.

        Args:
            most: the most networks to measure; None: all.

        Returns:
            Whether any network was measured.
        """
        if not self.record.latency:
            return False
        new = [key for key in self._front()[::-1] if key not in self.record.times][:most]
        if new:
            self.record.measure(len(self.record.ledger.latency_rounds) + 1, new)
        return bool(new)
