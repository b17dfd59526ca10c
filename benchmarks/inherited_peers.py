"""Networks that `inherited_family` compares the found ones with: a known network scaled by a rule, and random ones."""

import math

import numpy as np

from scalenet_zoo import ArchSpec
from scalenet_zoo.arch.constraints import Constraint
from scalenet_zoo.arch.rounding import Integers
from scalenet_zoo.arch.scaling import apply_strategy, follow_law
from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.search.scalenet.baselines import COMPOUND
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.scalenet import Scaling
from scalenet_zoo.zoo.catalog import load_family

CLASSES = 10
SMALLEST_PHI = -12.0
"""The end of the part of EfficientNet's rule that is searched: a 2,500th of Lite0's MACs."""
LEAST_USED = 0.95
"""The least share of a limit that a random network uses."""
MOST_DRAWN = 10_000
"""The most base models to draw for one random network."""


def compound(macs: float) -> ArchSpec:
    """Scale EfficientNet-Lite0 down by EfficientNet's rule to at most `macs` MACs, and as near to them as possible.

    Depth, width and resolution follow one coefficient, phi: 1.2^phi, 1.1^phi and 1.15^phi (ICML 2019).
    """
    family = load_family("efficientnet_lite").model_copy(update={"classes": CLASSES})
    base = apply_strategy(family, family.strategies[0])
    stage, name = math.log2(macs / base.cost.macs), f"compound_{macs / 1e6:.0f}m"
    return apply_strategy(family, follow_law(family, COMPOUND, stage, SMALLEST_PHI, name))


def drawn(bounds: Bounds, count: int, name: str = "random") -> list[ArchSpec]:
    """Draw networks at random for each stage, before any search: base models, each under a strategy.

    They use 95% to 100% of the stage's limit, so that all networks of a stage are compared at equal cost.

    Args:
        bounds: limits on MACs or, with a latency model, on latency.
        count: number of networks per stage.
        name: the networks are called NAME_sSTAGE_NUMBER.

    Raises:
        BudgetError: too few networks of the space use that much.
    """
    found: list[ArchSpec] = []
    sampler, limited = FeasibleSampler(bounds), "macs" if bounds.model is None else "latency"
    for stage, budget in bounds.limits.amounts(limited, list(bounds.constraints)).items():
        rng, (limit,) = np.random.default_rng([7, stage]), bounds.constraints[stage]
        for number in range(count):
            base, scaling = _fitting(bounds, sampler, stage, limit, LEAST_USED * budget, rng)
            found.append(bounds.space.spec(base, scaling, CLASSES, f"{name}_s{stage}_{number}"))
    return found


def _fitting(
    bounds: Bounds, sampler: FeasibleSampler, stage: int, limit: Constraint, least: float, rng: np.random.Generator
) -> tuple[Integers, Scaling]:
    """Draw a base model and a strategy of a stage that keep its limit and use at least so much of it."""
    for _ in range(MOST_DRAWN):
        (base,) = sampler.draw(rng, 1)
        if scalings := bounds.admissible(stage, base[None]):
            costs = limit.measure(bounds.population(base[None], scalings))[0]
            if near := [scaling for scaling, cost in zip(scalings, costs, strict=True) if cost >= least]:
                return base, near[rng.integers(len(near))]
    raise BudgetError(
        f"limits.{limit.measure_name}: found no network of stage {stage} with {limit.format(least)} or more among"
        f" {MOST_DRAWN:,} base models, expected a wider space"
    )
