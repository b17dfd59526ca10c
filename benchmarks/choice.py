"""`build --latency --pretrained` at eight budgets, beside all published classifiers measured on this machine.

python -m benchmarks.choice --run FOLDER: about 15 minutes on two idle cores; 1 thread, 1 image, fp32 and int8.

Budgets are asked for in turn, from no kept figures on, and it is counted how many networks each had to measure. Then
all the others are measured, once, and it is looked whether any that meets a budget is quoted more accurate than what
was taken. What is taken is measured again at the end, from nothing. Interrupted, it goes on where it stopped.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.interleave import record
from benchmarks.run_folder import Told
from scalenet_zoo.budgets import choose_published
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.explore.bench import open_bench
from scalenet_zoo.explore.choice import Choice
from scalenet_zoo.explore.exploration import Exploration, explore_zoo
from scalenet_zoo.explore.figures import Setting

BUDGETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Milliseconds: from less than the smallest network takes in fp32 to what the largest but few take."""


def choices(backend: str) -> list[Choice]:
    """What each budget leads to."""
    return [choose_published(budget, backend, "any", threads=1, on_progress=Told()) for budget in BUDGETS]


def measured_again(taken: list[Choice], backend: str, folder: Path) -> list[float]:
    """Milliseconds of what was taken, with figures kept elsewhere."""
    kept = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        with open_bench(Setting(backend=backend, threads=1)) as bench:
            for choice in taken:
                bench.measure(choice.taken.entry.spec, choice.taken.precision)
            figures = [bench.figures.find(choice.taken.entry.spec, choice.taken.precision) for choice in taken]
            return [bench.figures.ms(figure) for figure in figures if figure]
    finally:
        os.environ["XDG_CACHE_HOME"] = kept


def better(choice: Choice, everything: Exploration) -> list[str]:
    """Published networks that meet a budget and are quoted more accurate than what was taken."""
    return [
        f"{point.name} in {point.precision}: {point.value}, {format_ms(point.ms)}"
        for point in everything.points
        if point.weights and point.value is not None and point.ms <= choice.budget
        if point.value > choice.taken.accuracy
    ]


def row(first: Choice, last: Choice, again_ms: float, everything: Exploration) -> dict[str, Any]:
    """A budget: what was taken from nothing, what is taken with all figures kept, and what beats that."""
    return {
        "budget_ms": first.budget,
        "measured_for_it": first.measured,
        "taken_at_first": first.taken.entry.spec.name,
        "taken": last.taken.entry.spec.name,
        "precision": last.taken.precision,
        "weights": last.taken.entry.weights,
        "top1": last.taken.accuracy,
        "ms": last.taken.ms,
        "ms_again": again_ms,
        "more_accurate_within_budget": better(last, everything),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the folder that figures are kept in")
    parser.add_argument("--on", default="ort-cpu", help="the back end")
    arguments = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = str(arguments.run / "cache")
    first = choices(arguments.on)
    everything = explore_zoo(
        arguments.on, "any", threads=1, measure_all=True, output=arguments.run / "explore.html", on_progress=Told()
    )
    last = choices(arguments.on)
    again = measured_again(last, arguments.on, arguments.run / "again")
    budgets = [row(*each, everything) for each in zip(first, last, again, strict=True)]
    figures = {
        f"{point.name}, {point.precision}": {"top1": point.value, "weights": point.weights, "ms": round(point.ms, 4)}
        for point in everything.points
    }
    record("choice", {"backend": arguments.on, "threads": 1, "batch": 1, "budgets": budgets, "figures": figures})
    if any(each["more_accurate_within_budget"] for each in budgets):
        sys.exit("a more accurate network meets a budget")


if __name__ == "__main__":
    main()
