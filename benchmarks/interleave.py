"""Timing of two functions in turn, A B B A ..., so that their ratio is valid on a machine whose speed drifts."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from scalenet_zoo.core.backends import machine

RESULTS = Path(__file__).parent / "results"


def interleave(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Time `repeats` calls of both functions in seconds, after one call of each to warm up."""
    pair = (ours, peer)
    for function in pair:
        function()
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for i in (0, 1) if repeat % 2 else (1, 0):  # going first costs up to 1%
            start = time.perf_counter()
            pair[i]()
            seconds[i].append(time.perf_counter() - start)
    return seconds


def ratio(ours: list[float], peer: list[float]) -> dict[str, float]:
    """Compute the median ratio of paired times, ours / peer, with quartiles, and both medians in milliseconds."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": middle,
        "ratio_low_quartile": low,
        "ratio_high_quartile": high,
        "ours_ms": 1000 * statistics.median(ours),
        "peer_ms": 1000 * statistics.median(peer),
        "pairs": len(ratios),
    }


def record(name: str, measured: dict[str, object]) -> None:
    """Print the figures of a benchmark, and write them with a description of the machine to results/NAME.json."""
    text = json.dumps({"machine": machine(), "measured": measured}, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
