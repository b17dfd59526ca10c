"""Latencies of an undisturbed machine, by means of a yardstick that is timed in turn with everything else.

A shared machine changes its speed: neighbours come and go, and a hypervisor may place two virtual cores on one physical
core for a while. A visit to a network counts as quiet if the yardstick, a network that never changes, ran at nearly its
best speed just before and just after.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scalenet_zoo.core.timing import Lap, run_for

QUIET = 1.15
"""The largest time of the yardstick that counts as quiet, as a multiple of its best."""
SECONDS, RUNS = 0.15, 5
"""The least duration of a visit in seconds, and its least number of runs."""
PATIENCE = 15.0
"""Seconds after which disturbed visits count too."""
REST = 0.1
"""Seconds of rest between networks: a runtime's idle threads spin for a while before they release a core."""


@dataclass(frozen=True)
class Visit:
    """Several consecutive runs of a network.

    Attributes:
        ms: the median of the runs in milliseconds.
        before: the yardstick's milliseconds just before.
        after: the yardstick's milliseconds just after.
    """

    ms: float
    before: float
    after: float


@dataclass
class Yardstick:
    """A network that is timed in turn with others.

    Attributes:
        runner: the network, ready to run.
        readings: all its times on this machine in milliseconds.
        known: its best time from earlier; without it, a machine that is always disturbed would seem undisturbed.
    """

    runner: Lap
    readings: list[float] = field(default_factory=list)
    known: float = math.inf

    @property
    def best(self) -> float:
        """The yardstick's milliseconds on the undisturbed machine, as far as is known."""
        return min(self.known, best_of(self.readings))

    def read(self) -> float:
        """Rest, and time the yardstick; return the median of several runs in milliseconds."""
        time.sleep(REST)
        run_for(self.runner, 0.03, 5)
        self.readings.append(statistics.median(run_for(self.runner, 0.04, 9)))
        return self.readings[-1]

    def visit(self, runner: Lap, visits: int, patience: float | None = None, runs: int = RUNS) -> list[Visit]:
        """Time a network until enough visits are quiet, or patience ends.

        Args:
            runner: the network, ready to run.
            visits: the number of quiet visits to make.
            patience: seconds after which disturbed visits count too, by default `PATIENCE`; there are at least `visits`
                of them in any case.
            runs: the least number of runs per visit; a slow network needs fewer.

        Returns:
            All visits, quiet or not.
        """
        made: list[Visit] = []
        patience = PATIENCE if patience is None else patience
        start = time.monotonic()
        before = self.read()
        while len(quiet(made, self.best)) < visits and (len(made) < visits or time.monotonic() - start < patience):
            time.sleep(REST)
            run_for(runner, SECONDS / 10, min(2, runs))
            ms = statistics.median(run_for(runner, SECONDS, runs))
            after = self.read()
            made.append(Visit(ms, before, after))
            before = after
        return made


def best_of(readings: Sequence[float]) -> float:
    """Return the tenth percentile of the readings, since the lowest one may be a fluke."""
    return float(np.percentile(readings, 10))


def quiet(visits: Sequence[Visit], best: float) -> list[Visit]:
    """Select the visits around which the yardstick took little more than its best time."""
    return [visit for visit in visits if max(visit.before, visit.after) <= QUIET * best]


def at_best(visit: Visit, best: float) -> float:
    """Scale a visit's milliseconds by the yardstick's slowdown, since the speed of even a quiet machine varies."""
    return visit.ms * best / math.sqrt(visit.before * visit.after)


def quiet_ms(visits: Sequence[Visit], best: float) -> float:
    """Compute a network's milliseconds on an undisturbed machine: the median of its quiet visits, or of all if none is.

    Args:
        visits: the visits to the network.
        best: the yardstick's milliseconds on that machine.
    """
    chosen = quiet(visits, best) or visits
    return statistics.median(at_best(visit, best) for visit in chosen)
