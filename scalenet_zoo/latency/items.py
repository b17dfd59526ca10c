"""The items of a profile: layers in context and whole networks, drawn at random.

Layers are measured in context: between their neighbours in a drawn network or, for multipath networks, as the modules
of a shorter network. The networks of a family lie around its growth law, some with other base models; networks for
dense tasks have the widths and input sizes of the zoo's entries. A search draws from its space instead. The same seed
gives the same items, so an interrupted profile resumes where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from scalenet_zoo.arch.family import Family, Strategy
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import apply_strategy, encode_kernels, fit_growth_law, macs_range
from scalenet_zoo.arch.spec import ArchSpec, MBConvNetwork, Module, MultipathNetwork
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Measurement, Role
from scalenet_zoo.latency.terms import trace_terms
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.networks.layers import MBConv
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.zoo.catalog import Entries
from scalenet_zoo.zoo.create import create_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.trace import Trace

KERNELS = (3, 5, 7)
"""The kernel sizes of sampled base models."""
MOST_LAYERS = 4
"""The most layers in a stage of a sampled base model. A first or last stage with one layer keeps one."""
JITTER = 0.25
"""The log of the largest factor by which sampled depths, widths and resolutions may differ from the growth law."""
TRIES = 20
"""The most draws per layer to measure, since a small space has few distinct layers."""


@dataclass(frozen=True)
class Item:
    """An item to measure: a network or layers.

    Attributes:
        role: the use of the item.
        module: makes the network or the layers.
        trace: the trace of what it executes on one image.
    """

    role: Role
    module: Callable[[], nn.Module]
    trace: Trace

    @property
    def shape(self) -> tuple[int, int, int]:
        """The channels, height and width of its input."""
        return self.trace.shapes[0]

    @property
    def macs(self) -> int:
        """The MACs for one image."""
        return self.trace.macs

    def terms(self, precision: Precision) -> NDArray[np.float64]:
        """Compute the terms of its latency in a precision, (terms,); see `terms.py`."""
        return trace_terms(self.trace, precision)

    def measured(self, precision: Precision, visits: Sequence[Visit]) -> Measurement:
        """Make the measurement of the item from its visits in a precision."""
        return Measurement(
            role=self.role,
            terms=tuple(self.terms(precision)),
            macs=self.macs,
            visits=tuple((visit.ms, visit.before, visit.after) for visit in visits),
        )


def sample_network(family: Family | Entries, rng: np.random.Generator, divisor: int) -> ArchSpec:
    """Draw a network.

    For a family, it is the family's own base model (half of the time) or another one, scaled around the growth law. For
    entries, it is a random topology with the width and the input size of one of them.
    """
    if isinstance(family, Entries):
        return _sample_multipath(family.specs[rng.integers(len(family.specs))], rng)
    base = family.base
    low, high = macs_range(_base_macs(family, divisor))
    if rng.random() < 0.5:
        stages = []
        for stage in base.stages:
            most = 1 if len(stage.kernels) == 1 and stage in (base.stages[0], base.stages[-1]) else MOST_LAYERS
            kernels = rng.choice(KERNELS, rng.integers(1, most + 1))
            stages.append(stage.model_copy(update={"kernels": tuple(int(kernel) for kernel in kernels)}))
        family = family.model_copy(update={"base": base.model_copy(update={"stages": tuple(stages)})})
    law = fit_growth_law(family.strategies, base.resolution)
    base_macs = _base_macs(family, divisor)
    while True:
        scaling_stage = rng.uniform(*np.log2(np.array([low, high]) / base_macs))
        depth, width, resolution = np.exp(
            np.array([law.depth, law.width, law.resolution]) * scaling_stage + rng.uniform(-JITTER, JITTER, 3)
        )
        strategy = Strategy(
            name="sample",
            stage=0.0,
            depth=float(depth),
            width=float(width),
            resolution=max(32, round(base.resolution * resolution / 8) * 8),
        )
        spec = apply_strategy(family, strategy, divisor)
        if low <= spec.cost.macs <= high:
            return spec


def _base_macs(family: Family, divisor: int) -> float:
    base = family.base
    return float(Population(family, encode_kernels(base), 1.0, 1.0, base.resolution, divisor).cost.macs.item())


def _sample_multipath(entry: ArchSpec, rng: np.random.Generator) -> ArchSpec:
    network = entry.network
    assert network.type == "multipath"
    two, three, four = (sum(len(module.depth) == branches for module in network.modules) for branches in (2, 3, 4))
    space = MultipathSpace(
        name=entry.name,
        width=network.width,
        head="segmentation" if network.head == "segmentation" else "pose",  # other heads read only the first branch
        modules=(two, three, four),
        input=entry.input,
    )
    return _with_modules(entry, network, space.to_modules(space.sample(rng, 1)[0]))


def _with_modules(spec: ArchSpec, network: MultipathNetwork, modules: tuple[Module, ...]) -> ArchSpec:
    changed = network.model_copy(update={"modules": modules})
    return ArchSpec.create(spec.name, spec.task, spec.input, spec.classes, changed, spec.provenance)


def sample_items(family: Family | Entries, plan: Plan, divisor: int) -> list[Item]:
    """Draw the items to measure for a family; see `draw_items`."""
    return draw_items(lambda rng: sample_network(family, rng, divisor), plan)


def draw_items(draw: Callable[[np.random.Generator], ArchSpec], plan: Plan) -> list[Item]:
    """Draw the items to measure, in the order of measurement; the same plan gives the same items.

    Args:
        draw: draws a network.
        plan: the number of items. Layers are distinct, so there are fewer if `draw` gives too few distinct ones.
    """
    rng = np.random.default_rng(plan.seed)
    roles: list[tuple[Role, int]] = [("networks", plan.networks), ("held_out", plan.held_out)]
    items = [network_item(draw(rng), role) for role, count in roles for _ in range(count)]
    windows: dict[tuple[object, ...], Item] = {}  # only distinct ones
    for _ in range(TRIES * plan.layers):
        if len(windows) == plan.layers:
            break
        key, item = _part(draw(rng), rng)
        windows.setdefault(key, item)
    items += windows.values()
    return [items[i] for i in rng.permutation(len(items))]


def network_item(spec: ArchSpec, role: Role = "networks") -> Item:
    """Make an item of a whole network."""
    return Item(role, partial(create_model, spec), spec.trace)


def _part(spec: ArchSpec, rng: np.random.Generator) -> tuple[tuple[object, ...], Item]:
    """Draw a part of a network; return a key that identifies it, and the item."""
    return _layers(spec, spec.network, rng) if spec.network.type == "mbconv" else _short(spec, spec.network, rng)


def _layers(spec: ArchSpec, network: MBConvNetwork, rng: np.random.Generator) -> tuple[tuple[object, ...], Item]:
    """Draw one layer, and take it with its neighbours."""
    layers = [layer for stage in network.stages for layer in stage]
    first = max(0, int(rng.integers(len(layers))) - 1)
    window = layers[first : first + 3]
    channels = layers[first - 1].channels if first else network.stem.channels
    size = -(-spec.input.height // (network.stem.stride * math.prod(layer.stride for layer in layers[:first])))
    shape = (channels, size, size)

    def module() -> nn.Module:
        before = [channels, *(layer.channels for layer in window)]
        modules = (MBConv(b, layer, network) for b, layer in zip(before, window, strict=False))
        return nn.Sequential(*modules)

    return (shape, *window), Item("layers", module, trace_layers(window, shape))


def _short(spec: ArchSpec, network: MultipathNetwork, rng: np.random.Generator) -> tuple[tuple[object, ...], Item]:
    """Draw one module of each stage, and make a short network of them."""
    stages = ([module for module in network.modules if len(module.depth) == branches] for branches in (2, 3, 4))
    modules = tuple(stage[rng.integers(len(stage))] for stage in stages)
    item = network_item(_with_modules(spec, network, modules))
    return (item.shape, network.width, *modules), replace(item, role="layers")
