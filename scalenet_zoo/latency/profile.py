"""Profiles: measured latencies of a family's layers and networks on a back end; an interrupted profile can be resumed.

    family --sample--> items: layers in context, whole networks --measure--> Profile (JSON)

A search samples its space instead (`draw_items`, `measure_items`). Layers are measured in context: between their
neighbours in a sampled network or, for multipath networks, as the modules of a shorter network. The networks of a
family lie around its growth law, some with other base models; networks for dense tasks have the widths and input sizes
of the zoo's entries. The same seed gives the same items, so an interrupted profile resumes where it stopped.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, JsonValue, model_validator
from torch import nn

from scalenet_zoo.arch.family import Family, Strategy
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import apply_strategy, encode_kernels, fit_growth_law, macs_range
from scalenet_zoo.arch.spec import ArchSpec, MBConvNetwork, Module, MultipathNetwork, Name
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.core.backends import Precision, find_backend, machine
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.latency.plan import Plan as Plan
from scalenet_zoo.latency.runners import check_batch, open_runner
from scalenet_zoo.latency.terms import terms_of, trace_terms
from scalenet_zoo.latency.yardstick import Visit, Yardstick, best_of, quiet, quiet_ms
from scalenet_zoo.networks.layers import MBConv
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.zoo.catalog import Entries
from scalenet_zoo.zoo.create import create_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.trace import Trace
    from scalenet_zoo.latency.runners import Runner

KERNELS = (3, 5, 7)
"""The kernel sizes of sampled base models."""
MOST_LAYERS = 4
"""The most layers in a stage of a sampled base model. A first or last stage with one layer keeps one."""
JITTER = 0.25
"""The log of the largest factor by which sampled depths, widths and resolutions may differ from the growth law."""
VISITS = 3
"""The number of quiet visits to each item."""
TRIES = 20
"""The most draws per layer to measure, since a small space has few distinct layers."""
YARDSTICK_PIXELS = 64
"""The height and width of a dense yardstick's images: it takes milliseconds, instead of seconds at its own size."""


class Settings(Strict):
    """The settings that a profile is for.

    Attributes:
        family: the name of the networks' family, entries or space.
        backend: the back end, as `--on` takes it.
        precision: the precision of the networks; int8 only on `precisions.QUANTISED_ON`.
        threads: the number of CPU threads.
        batch: images per inference.
        divisor: all channels are multiples of it, in families with a base model.
    """

    family: Name
    backend: str
    precision: Precision = "fp32"
    threads: Annotated[int, Field(ge=1, le=THREADS)]
    batch: Annotated[int, Field(ge=1)] = 1
    divisor: Annotated[int, Field(ge=1, le=1024)] = 8

    @property
    def place(self) -> str:
        """The back end for the name of a network at a budget: `ort-cpu`, or `ort-cpu_int8`."""
        return f"{self.backend}_int8" if self.precision == "int8" else self.backend

    @property
    def conditions(self) -> str:
        """The conditions of a latency on this machine: `ort-cpu, fp32, batch of 1, 2 CPU threads, AMD EPYC`."""
        threads = f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"
        return f"{self.backend}, {self.precision}, batch of {self.batch}, {threads}, {device_name(self.backend)}"


QUICK = Plan(layers=20, networks=20, held_out=5)
"""The plan of a quick profile, for a latency budget that cannot wait for a full one."""

Role = Literal["layers", "networks", "held_out"]

LARGEST = 1e12
"""The largest number in a profile or a model, so that sums of squares and products stay finite; terms may be larger."""
Milliseconds = Annotated[float, Field(gt=0, le=LARGEST)]


class Measurement(Strict):
    """An item with its visits.

    Attributes:
        role: the use of the item.
        terms: the terms of its latency, in the order of `terms.terms_of`.
        macs: its MACs for one image.
        visits: for each visit, the item's milliseconds, and the yardstick's before and after it.
    """

    role: Role
    terms: tuple[Annotated[float, Field(ge=0, le=LARGEST**2)], ...]
    macs: Annotated[int, Field(ge=1)]
    visits: Annotated[tuple[tuple[Milliseconds, Milliseconds, Milliseconds], ...], Field(min_length=1)]


class Profile(Document):
    """Measurements of a family on a back end."""

    format: Literal["scalenet-zoo/profile"] = "scalenet-zoo/profile"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    settings: Settings
    plan: Plan
    machine: dict[str, JsonValue]
    terms: Annotated[tuple[str, ...], Field(description="The names of each measurement's terms.")]
    measurements: tuple[Measurement, ...]

    @model_validator(mode="after")
    def _a_figure_a_term(self) -> Self:
        for i, measurement in enumerate(self.measurements):
            if (found := len(measurement.terms)) != (expected := len(self.terms)):
                raise ValueError(f"measurements.{i}.terms: found {found} numbers, expected {expected}, one per term")
        return self

    @property
    def yardstick(self) -> float:
        """The yardstick's milliseconds on the undisturbed machine."""
        return best_of(self.readings)

    @property
    def readings(self) -> list[float]:
        """All readings of the yardstick in milliseconds."""
        return [
            reading for measurement in self.measurements for _, *readings in measurement.visits for reading in readings
        ]

    def with_measurement(self, position: int, measurement: Measurement) -> Self:
        """Return a copy with a measurement replaced at its position, or added at the end."""
        before, after = self.measurements[:position], self.measurements[position + 1 :]
        return self.model_copy(update={"measurements": (*before, measurement, *after)})

    @property
    def milliseconds(self) -> list[float]:
        """Each item's milliseconds on the undisturbed machine."""
        best = self.yardstick
        return [quiet_ms([Visit(*visit) for visit in measurement.visits], best) for measurement in self.measurements]


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


def measure_profile(
    family: Family | Entries,
    settings: Settings,
    plan: Plan,
    path: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Profile:
    """Measure a family on a back end and write the profile; the measurements of an interrupted run are reused.

    Args:
        family: the family or entries that `settings` name.
        settings: back end, precision, threads and batch.
        plan: the number of items.
        path: the profile's file.
        on_progress: reports the next item.

    Raises:
        BackendError, OutputError, InputError, TrainingError: as for `measure_items`.
    """
    items = sample_items(family, plan, settings.divisor)
    return measure_items(items, yardstick_network(family, settings.divisor), settings, plan, path, on_progress)


def measure_items(
    items: Sequence[Item],
    constant: ArchSpec,
    settings: Settings,
    plan: Plan,
    path: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Profile:
    """Measure items on a back end and write the profile; the measurements of an interrupted run are reused.

    Args:
        items: the items of `plan`.
        constant: the network that serves as the yardstick.
        settings: back end, precision, threads and batch.
        plan: the number of items.
        path: the profile's file; measurements so far are beside it, in the folder `NAME.partial`, which one process at
            a time may use.
        on_progress: reports the next item.

    Raises:
        BackendError: the back end cannot run here.
        OutputError: the file cannot be written.
        InputError: the partial file is from another machine, or for other settings or items.
        TrainingError: another process is measuring for this file.
    """
    check_writable(path)
    folder, terms = path.with_suffix(".partial"), terms_of(settings.precision)
    with hold(folder):
        part = folder / path.name
        found = load_profile(part, settings, plan)
        profile = found or Profile(settings=settings, plan=plan, machine=machine(), terms=terms, measurements=())
        _check_items(profile, items, part)
        with prepare_yardstick(constant, settings, profile.readings) as yardstick:
            for again in (False, True):  # only the end shows what counts as quiet, so some items need more visits
                for i, item in enumerate(items):
                    made = profile.measurements[i].visits if i < len(profile.measurements) else ()
                    if made and not (again and len(quiet([Visit(*visit) for visit in made], yardstick.best)) < VISITS):
                        continue
                    tenths = f"{10 * (10 * i // len(items))}%"  # a log has one line per tenth
                    on_progress(f"profiling on {settings.backend}{', again' * again}: {tenths}", i, len(items))
                    visits = [*(Visit(*visit) for visit in made), *visit_item(item, settings, yardstick)]
                    profile = profile.with_measurement(i, item.measured(settings.precision, visits))
                    profile.save(part)
        on_progress(f"profiling on {settings.backend}: 100%", len(items), len(items))
        profile.save(path)
        shutil.rmtree(folder)
    return profile


def _check_items(profile: Profile, items: Sequence[Item], path: Path) -> None:
    """Check that an interrupted run measured the first of these items.

    Raises:
        InputError: it measured other items.
    """
    known = [(item.role, item.macs, tuple(item.terms(profile.settings.precision))) for item in items]
    found = [(each.role, each.macs, each.terms) for each in profile.measurements]
    if found != known[: len(found)]:
        raise InputError(
            f"{path}: measurements: found another run's, expected this run's; delete the file to start over"
        )


def visit_item(item: Item, settings: Settings, yardstick: Yardstick) -> list[Visit]:
    """Time an item on a back end, in turn with the yardstick."""
    with _ready(item, settings) as runner:
        return yardstick.visit(runner, VISITS)


def device_name(backend: str) -> str:
    """Name the processor or GPU that a back end runs on here."""
    about = find_backend(backend).about
    return str(machine()["cpu"]) if about == "CPU" else about


def yardstick_network(family: Family | Entries, divisor: int) -> ArchSpec:
    """Choose the yardstick: the family's smallest published network, or the first entry with small images."""
    if isinstance(family, Entries):
        return family.specs[0].replace(height=YARDSTICK_PIXELS, width=YARDSTICK_PIXELS)
    return apply_strategy(family, min(family.strategies, key=lambda strategy: strategy.stage), divisor)


@contextmanager
def prepare_yardstick(
    constant: ArchSpec, settings: Settings, readings: Sequence[float] = (), known: float = math.inf
) -> Iterator[Yardstick]:
    """Open a network as the yardstick.

    Args:
        constant: the network.
        settings: back end, precision, threads and batch.
        readings: its times so far in milliseconds.
        known: its best time from earlier in milliseconds.

    Raises:
        BackendError: the back end cannot run here.
    """
    with _ready(network_item(constant), settings) as runner:
        yield Yardstick(runner, list(readings), known)


def _ready(item: Item, settings: Settings) -> AbstractContextManager[Runner]:
    check_batch(settings.batch, item.shape)
    images = torch.randn(settings.batch, *item.shape, generator=torch.Generator().manual_seed(0))
    return open_runner(item.module(), images, settings.backend, settings.threads, settings.precision)


def load_profile(path: Path, settings: Settings, plan: Plan) -> Profile | None:
    """Load the profile of an earlier run, finished or interrupted; return None if there is none.

    Raises:
        InputError: the profile is from another machine, or for other settings.
    """
    if not path.exists():
        return None
    profile = Profile.load(path)
    here = machine()
    for field, found, expected in (
        ("settings", profile.settings, settings),
        ("plan", profile.plan, plan),
        ("machine.cpu", profile.machine.get("cpu"), here["cpu"]),
        ("machine.gpu", profile.machine.get("gpu"), here["gpu"]),
        ("machine.versions", profile.machine.get("versions"), here["versions"]),
        ("terms", profile.terms, terms_of(settings.precision)),
    ):
        if found != expected:
            raise InputError(
                f"{path}: {field}: found another run's, expected this run's; delete the file to start over"
            )
    return profile
