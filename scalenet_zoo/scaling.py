"""Scaling a base model: apply a strategy, fit growth laws to strategies, and hit a budget.

ScaleNet (ECCV 2022) extrapolates its larger models so; here, as exponentials of the scaling stage s:

    depth = exp(a s)    width = exp(b s)    resolution = base resolution * exp(c s)

MACs grow about as depth * width^2 * resolution^2, so a + 2 b + 2 c = ln 2 keeps a budget of 2^s.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scalenet_zoo.constraints import Constraint, Macs
from scalenet_zoo.cost import Population, squeeze_channels
from scalenet_zoo.errors import BudgetError
from scalenet_zoo.family import BaseModel, Family, Strategy
from scalenet_zoo.quantities import format_range, whole_number
from scalenet_zoo.rounding import Integers, scale_channels, scale_depth
from scalenet_zoo.spec import ArchSpec, Head, Input, Layer, MBConvNetwork, Provenance, Stem, spec_errors

MACS_RANGE = (100e6, 20e9)
"""MACs between which `fit_budget` places networks."""
TIGHTNESS = 0.97
"""The least share of its budget that a network of `fit_budget` uses."""


def apply_strategy(
    family: Family,
    strategy: Strategy,
    divisor: int | None = None,
    classes: int | None = None,
    in_channels: int = 3,
    provenance: Provenance | None = None,
) -> ArchSpec:
    """Scale a family's base model.

    A stage of n layers gets ceil(n depth), the added ones repeating the choice of its last; channels
    are rounded as `rounding.scale_channels` says; hidden channels are the expansion times a layer's
    scaled input channels.

    Args:
        family: the base model and its rules.
        strategy: multipliers and resolution; its name becomes the spec's.
        divisor: of the channels; None: the family's.
        classes: None: the family's.
        in_channels: of the image.
        provenance: None: the family's, with the strategy's results.

    Raises:
        SpecError: the scaled network is out of a spec's bounds.
    """
    base = family.base
    divisor = family.divisor if divisor is None else divisor

    def wide(channels: int) -> int:
        return int(scale_channels(channels, strategy.width, divisor))

    with spec_errors(strategy.name):
        stages = []
        stem = before = wide(base.stem.channels)
        for stage in base.stages:
            layers = []
            for i in range(int(scale_depth(len(stage.kernels), strategy.depth))):
                hidden = stage.expand * before
                layers.append(
                    Layer(
                        kernel=stage.kernels[min(i, len(stage.kernels) - 1)],
                        stride=1 if i else stage.stride,
                        hidden=hidden,
                        squeeze=int(squeeze_channels(before, hidden, base.squeeze)),
                        channels=(before := wide(stage.channels)),
                    )
                )
            stages.append(tuple(layers))
        network = MBConvNetwork(
            stem=Stem(channels=stem, kernel=base.stem.kernel, stride=base.stem.stride),
            stages=tuple(stages),
            head=Head(channels=wide(base.head.channels) if family.scales_head else base.head.channels),
            activation=base.activation,
            gate=base.gate,
        )
        return ArchSpec.create(
            name=strategy.name,
            task=family.task,
            input=Input(channels=in_channels, height=strategy.resolution, width=strategy.resolution),
            classes=family.classes if classes is None else classes,
            network=network,
            provenance=provenance or family.provenance.model_copy(update={"results": strategy.results}),
        )


def expand(family: Family) -> list[ArchSpec]:
    """The specs of all of a family's strategies."""
    return [apply_strategy(family, strategy) for strategy in family.strategies]


def encode_kernels(base: BaseModel) -> Integers:
    """A base model as a population of one, (1, stages, layers), for `cost.Population`."""
    kernels = np.zeros((1, len(base.stages), max(len(stage.kernels) for stage in base.stages)), dtype=np.int64)
    for s, stage in enumerate(base.stages):
        kernels[0, s, : len(stage.kernels)] = stage.kernels
    return kernels


@dataclass(frozen=True, slots=True)
class GrowthLaw:
    """Natural logarithms of the growth of depth, width and resolution per scaling stage."""

    depth: float
    width: float
    resolution: float


def fit_growth_law(strategies: Iterable[Strategy], base_resolution: int) -> GrowthLaw:
    """Least squares in log space through the base model, under depth + 2 width + 2 resolution = ln 2.

    Without the constraint each rate would be its own regression through the origin; with it, the
    rates move by the Lagrange multiplier's share along (1, 2, 2).

    Raises:
        ValueError: no strategy has a stage above 0.
    """
    scaled = [strategy for strategy in strategies if strategy.stage > 0]
    if not scaled:
        raise ValueError("found no strategy with a stage above 0, expected one or more to fit a growth law")
    stages = np.array([strategy.stage for strategy in scaled])
    logs = np.log([[s.depth, s.width, s.resolution / base_resolution] for s in scaled])
    free = stages @ logs / (stages @ stages)
    exponents = np.array([1.0, 2.0, 2.0])
    fitted = free + exponents * (math.log(2.0) - exponents @ free) / (exponents @ exponents)
    return GrowthLaw(*map(float, fitted))


def fit_budget(
    family: Family,
    constraint: Constraint,
    divisor: int = 8,
    classes: int | None = None,
    in_channels: int = 3,
) -> ArchSpec:
    """The network of a family at a budget: at most the budget, and at least `TIGHTNESS` of it.

    The growth law fitted to the family's strategies gives depth, width and resolution at a stage s;
    the stage whose network comes closest to the budget gives the depth. Layers are whole, so the rest
    of the gap is closed by width and resolution: of all candidates around the law that use the
    budget well, the one nearest to the law is taken.

    Args:
        family: the base model and its strategies.
        constraint: the budget, of MACs, parameters or predicted latency.
        divisor: channels are multiples of it; 1: the papers' ceil.
        classes: None: the family's.
        in_channels: of the image.

    Raises:
        BudgetError: the budget is out of the range that the message states.
        QuantityError: the divisor, the classes or the channels are out of their ranges.
    """
    divisor = whole_number(divisor, 1, 1024, "divisor")
    classes = whole_number(family.classes if classes is None else classes, 0, 1_000_000, "num_classes")
    in_channels = whole_number(in_channels, 1, 65_536, "in_chans")
    budget, measure = constraint.budget, constraint.measure_name
    law = fit_growth_law(family.strategies, family.base.resolution)
    kernels = encode_kernels(family.base)

    def population(depth: np.ndarray, width: np.ndarray, resolution: np.ndarray) -> Population:
        return Population(family, kernels, depth, width, resolution, divisor, classes, in_channels)

    stage = np.arange(-6.0, 10.0, 0.01)
    depth, width = np.exp(law.depth * stage), np.exp(law.width * stage)
    pixels = family.base.resolution * np.exp(law.resolution * stage)
    curve = population(depth, width, pixels)
    macs, costs = curve.cost.macs[0], constraint.measure(curve)[0]
    reached = costs[(macs >= MACS_RANGE[0]) & (macs <= MACS_RANGE[1])]
    if not len(reached):
        raise BudgetError(f"num_classes: found {classes:,}, of which the classifier alone takes more than the range")
    low, high = float(reached.min()), float(reached.max())
    if isinstance(constraint, Macs):  # between the curve's steps, too
        low, high = max(MACS_RANGE[0], float(costs.min())), MACS_RANGE[1]
    if not low <= budget <= high:
        raise BudgetError(
            f"{measure}: found {constraint.format(budget)}, expected {format_range(low, high, constraint.format)}"
            f" for the family {family.name}"
        )

    at = int(np.abs(np.log(costs / budget)).argmin())
    candidates = _around((depth[at], width[at], pixels[at]), constraint.sees_resolution)
    costs = constraint.measure(population(*candidates.T))[0]
    fitting = candidates[(costs <= budget) & (costs >= TIGHTNESS * budget)]
    if not len(fitting):
        raise BudgetError(
            f"{measure}: found no network of the family {family.name} between {TIGHTNESS:.0%} and 100% of"
            f" {constraint.format(budget)} with channels in multiples of {divisor}"
        )
    distances = np.square(np.log(fitting / (depth[at], width[at], pixels[at]))).sum(axis=1)
    found = fitting[distances.argmin()]
    suffix = "" if measure != "params" else "_params"
    strategy = Strategy(
        name=f"{family.name}_{constraint.format(budget)}{suffix}".lower(),
        stage=float(stage[at]),
        depth=round(float(found[0]), 6),
        width=round(float(found[1]), 6),
        resolution=int(found[2]),
    )
    provenance = Provenance(
        source=f"the family {family.name}, placed on its growth law at {constraint.format(budget)} {measure}",
        method="scalenet_zoo.scaling.fit_budget",
        paper=family.provenance.paper,
        license=family.provenance.license,
        details={
            "family": family.name,
            "divisor": divisor,
            "depth": strategy.depth,
            "width": strategy.width,
            "resolution": strategy.resolution,
        },
    )
    return apply_strategy(family, strategy, divisor, classes, in_channels, provenance)


def _around(ideal: tuple[float, float, float], with_resolution: bool) -> np.ndarray:
    """Depths, widths and resolutions around the law's, (candidates, 3)."""
    reach = 0.25 if with_resolution else 0.0
    depths = ideal[0] * np.exp(np.linspace(-1.2, 1.2, 41))
    widths = ideal[1] * np.exp(np.linspace(-0.7, 0.7, 351 if with_resolution else 1401))
    resolutions = np.unique(np.rint(ideal[2] * np.exp(np.linspace(-reach, reach, 101)) / 8)) * 8
    return np.stack(np.meshgrid(depths, widths, resolutions, indexing="ij"), axis=-1).reshape(-1, 3)
