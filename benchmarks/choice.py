"""`build --latency --pretrained` at eight budgets, compared with all published classifiers on this machine.

python -m benchmarks.choice --run FOLDER: about 15 minutes on two idle cores; 1 thread, 1 image, fp32 and int8.

The budgets are tried one after another, starting without kept figures, and the networks that each of them has to
measure are counted. Then all other networks are measured once, to see whether any network that meets a budget has a
higher quoted accuracy than the one taken. At the end, the networks taken are measured again from scratch. An
interrupted run resumes where it stopped.
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
"""Milliseconds: from less than the smallest network takes in fp32 to more than all but the largest few take."""


def choices(backend: str) -> list[Choice]:
    """Choose a network for each budget."""
    return [choose_published(budget, backend, "any", threads=1, on_progress=Told()) for budget in BUDGETS]


def measured_again(taken: list[Choice], backend: str, folder: Path) -> list[float]:
    """Measure the networks taken again, with figures kept in another folder; milliseconds."""
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
    """Published networks that meet a budget and have a higher quoted accuracy than the network taken."""
    return [
        f"{point.name} in {point.precision}: {point.value}, {format_ms(point.ms)}"
        for point in everything.points
        if point.weights and point.value is not None and point.ms <= choice.budget
        if point.value > choice.taken.accuracy
    ]


def row(first: Choice, last: Choice, again_ms: float, everything: Exploration) -> dict[str, Any]:
    """One budget: the network taken without kept figures, the one taken with all figures, and those that beat it."""
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
    parser.add_argument("--run", type=Path, required=True, help="the folder where figures are kept")
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
