"""Latencies of an undisturbed machine, told by a yardstick that is timed beside everything else.

A shared machine changes its speed: neighbours come and go, and a hypervisor may place two virtual
cores on one physical core for a while. A visit to a network counts as quiet if the yardstick, a
network that never changes, ran at nearly its best just before and just after.
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
"""Largest time of the yardstick, as a multiple of its best, that counts as quiet."""
SECONDS, RUNS = 0.15, 5
"""What a visit takes at least."""
REST = 0.1
"""Seconds of rest between networks: idle threads of a runtime spin for a while before they let a core go."""


@dataclass(frozen=True)
class Visit:
    """Some runs of a network in a row.

    Attributes:
        ms: their median.
        before: the yardstick's milliseconds just before.
        after: and just after.
    """

    ms: float
    before: float
    after: float


@dataclass
class Yardstick:
    """A network that is timed beside others.

    Attributes:
        runner: the network, ready to run.
        readings: its milliseconds, whenever it was timed, on this machine.
        known: its best from another day; a machine that is disturbed all the time would else set its own measure.
    """

    runner: Lap
    readings: list[float] = field(default_factory=list)
    known: float = math.inf

    @property
    def best(self) -> float:
        """Its milliseconds on the undisturbed machine, as far as is known."""
        return min(self.known, best_of(self.readings))

    def read(self) -> float:
        """Rest, and time the yardstick: the median of some runs in milliseconds."""
        time.sleep(REST)
        run_for(self.runner, 0.03, 5)
        self.readings.append(statistics.median(run_for(self.runner, 0.04, 9)))
        return self.readings[-1]

    def visit(self, runner: Lap, visits: int, patience: float = 15.0, runs: int = RUNS) -> list[Visit]:
        """Time a network until so many visits were quiet, or patience ends.

        Args:
            runner: the network, ready to run.
            visits: quiet ones that are wanted.
            patience: seconds after which unquiet visits have to do; there are as many visits as wanted even then.
            runs: of each visit, at least; fewer do for what takes seconds.
        """
        made: list[Visit] = []
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
    """The tenth percentile: the least reading of all may be a fluke."""
    return float(np.percentile(readings, 10))


def quiet(visits: Sequence[Visit], best: float) -> list[Visit]:
    """Visits during which the yardstick took little more than its best."""
    return [visit for visit in visits if max(visit.before, visit.after) <= QUIET * best]


def at_best(visit: Visit, best: float) -> float:
    """A visit's milliseconds as much shortened as the yardstick was slowed down: even a quiet machine has its moods."""
    return visit.ms * best / math.sqrt(visit.before * visit.after)


def quiet_ms(visits: Sequence[Visit], best: float) -> float:
    """A network's milliseconds on an undisturbed machine: the median of its quiet visits; where there are none, of all.

    Args:
        visits: to the network.
        best: the yardstick's milliseconds on that machine.
    """
    chosen = quiet(visits, best) or visits
    return statistics.median(at_best(visit, best) for visit in chosen)
