"""Scaling of a base model: apply a strategy, fit growth laws to strategies, and hit a budget.

ScaleNet (ECCV 2022, section 3) extrapolates its larger models from a growth law. Here the law is exponential in the
scaling stage s:

    depth = exp(a s)    width = exp(b s)    resolution = base resolution * exp(c s)

MACs grow about as depth * width^2 * resolution^2, so a + 2 b + 2 c = ln 2 keeps a budget of 2^s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scalenet_zoo.arch.constraints import Constraint, Macs
from scalenet_zoo.arch.family import LEAST, MOST, Family, FamilyBase, Strategy
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.rounding import Integers, scale_channels, scale_depth, squeeze_channels
from scalenet_zoo.arch.spec import ArchSpec, Head, Input, Layer, MBConvNetwork, Provenance, Stem
from scalenet_zoo.core.bounds import LAYERS
from scalenet_zoo.core.documents import spec_errors
from scalenet_zoo.core.errors import BudgetError, SpecError
from scalenet_zoo.core.quantities import format_range, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.constraints import Floats

MACS_RANGE = (100e6, 20e9)
"""The fewest and the most MACs for which `fit_budget` finds networks of the zoo's families; see `macs_range`."""
LARGEST_STAGE = 10.0
"""The stage s of the largest network that `fit_budget` considers: 2^s times the base model."""
LARGEST_RESOLUTION = 65_536
"""The largest resolution of a strategy: the largest that `spec.Pixels` allows."""
TIGHTNESS = 0.97
"""The smallest share of the budget that a network from `fit_budget` uses."""


def scale_network(
    base: FamilyBase, depth: float, width: float, divisor: int, scales_head: bool, scales_stem: bool = True
) -> MBConvNetwork:
    """Make a base model deeper and wider.

    A stage of n layers gets ceil(n depth) layers; the added ones repeat the choice of its last layer. Channels are
    rounded by `rounding.scale_channels`. A layer's hidden channels are the expansion times its scaled input channels.

    Args:
        base: the base model.
        depth: multiplier of layers.
        width: multiplier of channels.
        divisor: channels are multiples of it.
        scales_head: whether width applies to the head as well.
        scales_stem: whether width applies to the stem.
    """

    def wide(channels: int) -> int:
        return int(scale_channels(channels, width, divisor))

    stages = []
    stem = before = wide(base.stem.channels) if scales_stem else base.stem.channels
    for stage in base.stages:
        layers = []
        for i in range(int(scale_depth(len(stage.kernels), depth if stage.scales_depth else 1.0))):
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
    return MBConvNetwork(
        stem=Stem(channels=stem, kernel=base.stem.kernel, stride=base.stem.stride),
        stages=tuple(stages),
        head=Head(channels=wide(base.head.channels) if scales_head else base.head.channels),
        activation=base.activation,
        gate=base.gate,
        padding=base.padding,
        norm_eps=base.norm_eps,
    )


def apply_strategy(
    family: Family,
    strategy: Strategy,
    divisor: int | None = None,
    classes: int | None = None,
    in_channels: int = 3,
    provenance: Provenance | None = None,
) -> ArchSpec:
    """Scale a family's base model; see `scale_network` for the rules.

    Args:
        family: the base model and its rules.
        strategy: multipliers and resolution; its name becomes the spec's name.
        divisor: channels are multiples of it; None: the family's divisor.
        classes: the number of classes; None: the family's.
        in_channels: channels of the image.
        provenance: the spec's provenance; None: the family's, with the strategy's results.

    Raises:
        SpecError: the scaled network exceeds the bounds of a spec.
    """
    layers = sum(
        int(scale_depth(len(stage.kernels), strategy.depth if stage.scales_depth else 1.0))
        for stage in family.base.stages
    )
    if layers > LAYERS:  # checked before the layers are made
        raise SpecError(
            f"{strategy.name}: depth: found {strategy.depth:g}, which gives {layers:,} layers, expected at most"
            f" {LAYERS:,} layers"
        )
    with spec_errors(strategy.name):
        network = scale_network(
            family.base,
            strategy.depth,
            strategy.width,
            family.divisor if divisor is None else divisor,
            family.scales_head,
            family.scales_stem,
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
    """Apply every strategy of a family.

    Raises:
        SpecError: a scaled network exceeds the bounds of a spec.
    """
    return [apply_strategy(family, strategy) for strategy in family.strategies]


def encode_kernels(base: FamilyBase) -> Integers:
    """Encode a base model's kernels as a population of one, (1, stages, layers), for `Population`."""
    kernels = np.zeros((1, len(base.stages), max(len(stage.kernels) for stage in base.stages)), dtype=np.int64)
    for s, stage in enumerate(base.stages):
        kernels[0, s, : len(stage.kernels)] = stage.kernels
    return kernels


@dataclass(frozen=True, slots=True)
class GrowthLaw:
    """Natural logarithms of the factors by which depth, width and resolution grow per scaling stage."""

    depth: float
    width: float
    resolution: float


def fit_growth_law(strategies: Iterable[Strategy], base_resolution: int) -> GrowthLaw:
    """Fit a growth law to strategies.

    The fit is least squares in log space through the base model, under depth + 2 width + 2 resolution = ln 2. Without
    the constraint, each rate would be a separate regression through the origin; the constraint moves the rates along
    (1, 2, 2) by the Lagrange multiplier.

    Args:
        strategies: strategies of the family; those of stages above 0 are fitted.
        base_resolution: the base model's resolution, in pixels.

    Raises:
        SpecError: no strategy has a stage above 0, or they grow too fast.
    """
    scaled = [strategy for strategy in strategies if strategy.stage > 0]
    if not scaled:
        raise SpecError("strategies: found none with a stage above 0, expected at least one to fit a growth law")
    stages = np.array([strategy.stage for strategy in scaled])
    logs = np.log([[s.depth, s.width, s.resolution / base_resolution] for s in scaled])
    free = stages @ logs / (stages @ stages)
    exponents = np.array([1.0, 2.0, 2.0])
    fitted = free + exponents * (math.log(2.0) - exponents @ free) / (exponents @ exponents)
    if (fastest := float(np.abs(fitted).max())) > math.log(MOST):
        raise SpecError(
            f"strategies: found growth by a factor of about 1e{fastest / math.log(10):.0f} per stage, expected at most"
            f" {MOST:g}"
        )
    return GrowthLaw(*map(float, fitted))


def follow_law(family: Family, law: GrowthLaw, stage: float, reach: float, name: str) -> Strategy:
    """Find the strategy on a growth law that comes closest to 2^s times the base model's MACs without exceeding them.

    Args:
        family: the base model and its rules.
        law: gives depth, width and resolution as exponentials of a number from 0 to `reach`.
        stage: s; below 0, networks smaller than the base model.
        reach: the end of the part of the law that is searched; below 0 where s is.
        name: the name of the strategy.

    Returns:
        The strategy, with multipliers to six decimals. Its resolution is next to the law's, and a multiple of 8 if all
        resolutions of the family are.
    """
    along = np.linspace(0.0, reach, 5001)
    along = np.tile(along[_within(*_scaled(law, family.base, along))], 2)
    base = family.base.resolution
    unit = 8 if all(pixels % 8 == 0 for pixels in (base, *(s.resolution for s in family.strategies))) else 1
    depth, width = (np.exp(rate * along).round(6) for rate in (law.depth, law.width))
    up = np.arange(len(along)) >= len(along) // 2  # resolutions are rounded down in the first half, up in the second
    resolution = unit * np.maximum(1, np.floor(base * np.exp(law.resolution * along) / unit).astype(np.int64) + up)
    resolution = np.minimum(resolution, LARGEST_RESOLUTION)
    macs = Population(family, encode_kernels(family.base), depth, width, resolution).cost.macs[0]
    costs = np.where(macs <= 2**stage * macs[0], macs, -1)
    at = np.lexsort((along, costs))[-1]  # of equal costs, the one farthest along the law
    with spec_errors(name):
        return Strategy(
            name=name,
            stage=float(stage),
            depth=float(depth[at]),
            width=float(width[at]),
            resolution=int(resolution[at]),
        )


def _scaled(law: GrowthLaw, base: FamilyBase, stage: Floats) -> tuple[Floats, Floats, Floats]:
    """Depth, width and pixels that a law gives at each stage."""
    with np.errstate(over="ignore"):
        depth, width, pixels = (np.exp(rate * stage) for rate in (law.depth, law.width, law.resolution))
        return depth, width, base.resolution * pixels


def _within(depth: Floats, width: Floats, pixels: Floats) -> NDArray[np.bool_]:
    """Mark the depths, widths and pixels that a strategy may have."""
    within: NDArray[np.bool_] = (pixels >= 1) & (pixels <= LARGEST_RESOLUTION)
    for multiplier in (depth, width):
        within &= (multiplier >= LEAST) & (multiplier <= MOST)
    return within


def extrapolate(family: Family, stages: Iterable[int] = (4, 5)) -> list[Strategy]:
    """Extrapolate a family's strategies to later stages, on the growth law fitted to them (ScaleNet, section 3).

    Stage s costs at most 2^s times the base model. Where whole layers, channels and pixels cost more than the law
    predicts, depth, width and resolution slide back along the law as far as necessary.

    Args:
        family: the base model and the strategies found for it.
        stages: the stages s to extrapolate to.

    Raises:
        SpecError: no law can be fitted to the family's strategies.
    """
    law = _fit_law(family)
    return [follow_law(family, law, stage, stage, f"{family.name}_s{stage}") for stage in stages]


def _fit_law(family: Family) -> GrowthLaw:
    """Fit the growth law of a family's strategies.

    Raises:
        SpecError: no law can be fitted to them.
    """
    try:
        return fit_growth_law(family.strategies, family.base.resolution)
    except SpecError as error:
        raise SpecError(f"{family.name}: {error}") from None


def macs_range(base_macs: float) -> tuple[float, float]:
    """Give the MACs of the smallest and the largest network that `fit_budget` finds for a base model's MACs."""
    return min(MACS_RANGE[0], base_macs), min(MACS_RANGE[1], 2**LARGEST_STAGE * base_macs)


def fit_budget(
    family: Family,
    constraint: Constraint,
    divisor: int = 8,
    classes: int | None = None,
    in_channels: int = 3,
    at_least: Strategy | None = None,
) -> ArchSpec:
    """Find the network of a family that costs at most a budget and at least `TIGHTNESS` of it.

    The growth law fitted to the family's strategies gives depth, width and resolution at a stage s. The search starts
    at the stage whose network comes closest to the budget. Layers are whole, so width and resolution close the rest of
    the gap: of all candidates around the law that use at least `TIGHTNESS` of the budget, the one nearest to the law
    is taken.

    Args:
        family: the base model and its strategies.
        constraint: the budget of MACs, parameters or predicted latency.
        divisor: channels are multiples of it; 1: channels are rounded up, as in the papers.
        classes: the number of classes; None: the family's.
        in_channels: channels of the image.
        at_least: a strategy whose depth and width are the least, so that its network can be grown into the result.

    Raises:
        BudgetError: the budget is out of the range that the message states, or no network uses it well enough.
        SpecError: no law can be fitted to the family's strategies.
        QuantityError: the divisor, the classes or the channels are out of range.
    """
    divisor = whole_number(divisor, 1, 1024, "divisor")
    classes = whole_number(family.classes if classes is None else classes, 0, 1_000_000, "num_classes")
    in_channels = whole_number(in_channels, 1, 65_536, "in_chans")
    budget, measure = constraint.budget, constraint.measure_name
    law = _fit_law(family)
    kernels = encode_kernels(family.base)

    def population(depth: np.ndarray, width: np.ndarray, resolution: np.ndarray) -> Population:
        return Population(family, kernels, depth, width, resolution, divisor, classes, in_channels)

    stage = np.arange(-6.0, LARGEST_STAGE, 0.01)
    stage = stage[_within(*_scaled(law, family.base, stage))]
    depth, width, pixels = _scaled(law, family.base, stage)
    curve = population(depth, width, pixels)
    macs, costs = curve.cost.macs[0], constraint.measure(curve)[0]
    least, most = macs_range(float(macs[np.abs(stage).argmin()]))
    reached = costs[(macs >= least) & (macs <= most)]
    if not len(reached):
        raise BudgetError(
            f"num_classes: found {classes:,}, expected fewer: the classifier alone costs more than the largest network"
        )
    low, high = float(reached.min()), float(reached.max())
    if isinstance(constraint, Macs):  # MACs between the curve's steps are within the range, too
        low, high = max(least, float(costs.min())), min(most, float(costs.max()))
    if not low <= budget <= high:
        raise BudgetError(
            f"{measure}: found {constraint.format(budget)}, expected {format_range(low, high, constraint.format)}"
            f" for the family {family.name}"
        )

    at = int(np.abs(np.log(costs / budget)).argmin())
    candidates = _around((depth[at], width[at], pixels[at]), constraint.sees_resolution)
    candidates = candidates[_within(*candidates.T)]
    if at_least is not None:
        candidates = candidates[(candidates[:, 0] >= at_least.depth) & (candidates[:, 1] >= at_least.width)]
    fitting = candidates
    if len(candidates):
        costs = constraint.measure(population(*candidates.T))[0]
        fitting = candidates[(constraint.excess(costs) == 0.0) & (costs >= TIGHTNESS * budget)]
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
        method="scalenet_zoo.arch.scaling.fit_budget",
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
    """Candidates around the law: depths, widths and resolutions, (candidates, 3)."""
    reach = 0.25 if with_resolution else 0.0
    depths = ideal[0] * np.exp(np.linspace(-1.2, 1.2, 41))
    widths = ideal[1] * np.exp(np.linspace(-0.7, 0.7, 351 if with_resolution else 1401))
    resolutions = np.unique(np.rint(ideal[2] * np.exp(np.linspace(-reach, reach, 101)) / 8)) * 8
    return np.stack(np.meshgrid(depths, widths, resolutions, indexing="ij"), axis=-1).reshape(-1, 3)
