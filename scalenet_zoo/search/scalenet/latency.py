"""Selection of the networks that ScaleNet's search measures: the best of a round, and those that it would end with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.latency.budget import MOST_MEASURED
from scalenet_zoo.spaces.candidates import Candidate

if TYPE_CHECKING:
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.search.measured_latency import LatencyMeter
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.spaces.scalenet import Scaling


def to_measure(
    bounds: Bounds, bases: Sequence[Integers], scalings: Sequence[Scaling], times: Mapping[str, float], each: int
) -> list[str]:
    """Choose the networks to measure after a round at each limited stage; those predicted to be feasible come first.

    Args:
        bounds: the limits, with a latency model.
        bases: the best base models (stages, layers), the best first.
        scalings: the strategy of each stage, including stage 0.
        times: measured latencies in milliseconds, by key; these networks are not measured again.
        each: number of networks per stage.

    Returns:
        The keys of the networks.
    """
    chosen: list[str] = []
    strategies = {scaling.stage: scaling for scaling in scalings}
    for stage, budget in bounds.budgets.items():
        keys = [Candidate(base, strategies[stage]).key for base in bases]
        new = [key for key in keys if key not in times]
        misses = [ms > budget for ms in bounds.predict(new)]
        order = sorted(range(len(new)), key=misses.__getitem__)  # a stable sort: the best stay first in either half
        chosen += [new[i] for i in order[:each]]
    return chosen


def verify_budgets(
    bounds: Bounds,
    bases: Sequence[Integers],
    options: Sequence[Sequence[Scaling]],
    latency: LatencyMeter,
    times: Mapping[str, float],
) -> tuple[list[Candidate], list[str]]:
    """Measure the networks that a joint search would end with, and replace those that miss their budgets.

    A strategy is replaced by the next best one of its stage, a base model by the next best base model. Replacements
    that are predicted to miss a budget are skipped; the threshold becomes stricter after each measured miss.

    Args:
        bounds: the limits, with a latency model.
        bases: base models (stages, layers): first the one found, then the others, the best first.
        options: strategies of each stage: first the one found, then the others, the best first.
        latency: measures networks.
        times: latencies measured before, in milliseconds, by key.

    Returns:
        For each stage a network that meets the budgets when measured; and the keys of all networks that were measured.

    Raises:
        BudgetError: none of the best base models meets the budgets.
        BackendError: as in `LatencyMeter.measure`.
    """
    budgets = bounds.budgets
    bounds = replace(bounds, limits=bounds.limits.model_copy(update={"latency": ()}))  # measured, not predicted
    targets, tried, missed = dict(budgets), dict[str, float](), ""

    def meets(candidate: Candidate) -> bool:
        nonlocal missed
        stage, key = candidate.scaling.stage, candidate.key
        if not bounds.feasible(candidate.kernels[None], [candidate.scaling])[0]:
            return False
        if stage not in budgets:
            return True
        (predicted,) = bounds.predict([key])
        if key not in times and key not in tried and predicted > targets[stage]:
            return False
        (ms,) = latency.measure([key])
        tried[key] = ms
        if ms > (budget := budgets[stage]):
            targets[stage] = min(targets[stage], 0.99 * predicted, predicted * budget / ms)
            missed = f"the last took {format_ms(ms)} at stage {stage}, expected at most {format_ms(budget)}"
        return ms <= budget

    for base in list({base.tobytes(): base for base in bases}.values())[:MOST_MEASURED]:
        chosen: list[Candidate] = []
        for of_stage in options:
            fitting = next(filter(meets, (Candidate(base, scaling) for scaling in of_stage)), None)
            if fitting is None:
                break
            chosen.append(fitting)
        else:
            return chosen, list(dict.fromkeys([*tried, *(candidate.key for candidate in chosen)]))
    raise BudgetError(
        f"latency: found none of the best {MOST_MEASURED} base models within all limits when measured; {missed}"
    )
