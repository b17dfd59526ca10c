"""Measurement of latencies that stay comparable on a machine whose speed drifts.

Networks to be compared are timed in turn: A B C, C B A, ... Each visit to a network is long enough for a median, and a
ratio compares visits made at nearly the same time.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch


class Lap(Protocol):
    """Anything that can be timed, such as a `runners.Runner`."""

    def lap(self) -> float:
        """Run once and return the milliseconds that it took."""
        ...


def timed(step: Callable[[], object], stream: torch.cuda.Stream | None = None) -> float:
    """Run a step once and return the milliseconds that it took.

    Args:
        step: the work to time. On a GPU it only enqueues the work.
        stream: the GPU's stream that it enqueues on; None: it runs on the CPU.
    """
    if stream is None:
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        begin.record()
        step()
        end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


@dataclass(frozen=True)
class Timing:
    """How long and how often to time a network.

    A machine's speed may change for a second at a time, so many short visits beat a few long ones. With one network as
    both A and B, on 2 threads of a shared machine, ratios were off by up to 34% with 3 visits, and by 3% with 10 visits
    of the same total time.

    Attributes:
        warmup: seconds to run before all visits; each visit begins with a tenth of it, untimed.
        seconds: the least total time of all visits.
        runs: the least number of runs of all visits together.
        visits: the number of visits to each network, in alternating order.
    """

    warmup: float = 1.0
    seconds: float = 3.0
    runs: int = 100
    visits: int = 10


@dataclass(frozen=True)
class MeasuredLatency:
    """Milliseconds of one inference, over all runs.

    Attributes:
        median: the median of all runs.
        p90: their 90th percentile.
        p95: their 95th percentile.
        p99: their 99th percentile.
        fastest: the fastest run.
        visits: the median of each visit.
        spread: the smallest and the largest of these medians.
        runs: the number of runs.
    """

    median: float
    p90: float
    p95: float
    p99: float
    fastest: float
    visits: tuple[float, ...]
    spread: tuple[float, float]
    runs: int

    @classmethod
    def of(cls, visits: Sequence[Sequence[float]]) -> MeasuredLatency:
        """Summarise the milliseconds of every run, listed by visit."""
        runs = np.concatenate([np.asarray(visit, dtype=float) for visit in visits])
        median, p90, p95, p99 = map(float, np.percentile(runs, (50, 90, 95, 99)))
        medians = tuple(float(np.median(visit)) for visit in visits)
        return cls(median, p90, p95, p99, float(runs.min()), medians, (min(medians), max(medians)), len(runs))


@dataclass(frozen=True)
class Ratio:
    """One latency divided by another: median and range over pairs of visits made at nearly the same time."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: MeasuredLatency, other: MeasuredLatency) -> Ratio:
        """Compare two latencies visit by visit; a ratio below 1 means that ours is faster."""
        ratios = [a / b for a, b in zip(ours.visits, other.visits, strict=True)]
        return cls(float(np.median(ratios)), min(ratios), max(ratios))


def measure(
    runners: Sequence[Lap],
    timing: Timing = Timing(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[MeasuredLatency]:
    """Time networks in turn.

    Args:
        runners: one for each network.
        timing: how long and how often.
        on_progress: called with the number of visits made and their total.

    Returns:
        The latency of each network, in the order of `runners`.
    """
    visits: list[list[list[float]]] = [[] for _ in runners]
    order = list(range(len(runners)))
    seconds, runs = timing.seconds / timing.visits, math.ceil(timing.runs / timing.visits)
    with _no_garbage_collection():
        on_progress(0, timing.visits * len(runners))
        for runner in runners:
            run_for(runner, timing.warmup)
        for visit in range(timing.visits):
            for i in reversed(order) if visit % 2 else order:  # going first costs up to 1%
                run_for(runners[i], timing.warmup / 10)  # until the previous network's threads sleep
                visits[i].append(run_for(runners[i], seconds, runs))
                on_progress(sum(map(len, visits)), timing.visits * len(runners))
    return [MeasuredLatency.of(laps) for laps in visits]


def run_for(runner: Lap, seconds: float, runs: int = 1) -> list[float]:
    """Run for at least `seconds` and at least `runs` times; return the milliseconds of each run."""
    laps: list[float] = []
    total = 0.0
    while total < 1000 * seconds or len(laps) < runs:
        laps.append(runner.lap())
        total += laps[-1]
    return laps


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
