"""Profiles: what a back end takes for layers and networks of a family, measured; resumable.

    family --sample--> items: layers in context, whole networks --measure--> Profile (JSON)

A search samples its space instead (`draw_items`, `measure_items`). Layers are measured in context: between the
neighbours that they have in a sampled network or, of multipath networks, as the modules of a shorter one. The networks
of a family lie around its growth law, with other base models too; those of dense tasks are of the widths and sizes of
the zoo's entries. The same seed gives the same items, so a profile that was interrupted goes on where it stopped.
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
from scalenet_zoo.arch.spec import ArchSpec, Document, MBConvNetwork, Module, MultipathNetwork, Name, Strict
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.core.backends import Precision, find_backend, machine
from scalenet_zoo.core.bounds import THREADS
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
"""Kernels that sampled base models choose from."""
MOST_LAYERS = 4
"""Layers that a stage of a sampled base model has at most, unless the family's own has but one."""
JITTER = 0.25
"""Natural logarithm of how far sampled depths, widths and resolutions may lie from the growth law's."""
VISITS = 3
"""Quiet visits to each item."""
TRIES = 20
"""Draws for each layer to measure, at most: a small space has few distinct ones."""
YARDSTICK_PIXELS = 64
"""Height and width that a dense network is the yardstick with: milliseconds, where its own size takes seconds."""


class Settings(Strict):
    """What a profile is for.

    Attributes:
        family: what the networks are of.
        backend: as `--on` takes it.
        precision: of the networks; int8 where `precisions.QUANTISED_ON` says.
        threads: CPU threads.
        batch: images at once.
        divisor: channels are multiples of it, of the families that have a base model.
    """

    family: Name
    backend: str
    precision: Precision = "fp32"
    threads: Annotated[int, Field(ge=1, le=THREADS)]
    batch: Annotated[int, Field(ge=1)] = 1
    divisor: Annotated[int, Field(ge=1, le=1024)] = 8

    @property
    def place(self) -> str:
        """Where a network of a budget runs, for its name: `ort-cpu`, `ort-cpu_int8`."""
        return f"{self.backend}_int8" if self.precision == "int8" else self.backend

    @property
    def conditions(self) -> str:
        """What a latency is of, on this machine: `ort-cpu, fp32, batch of 1, 2 CPU threads, AMD EPYC`."""
        threads = f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"
        return f"{self.backend}, {self.precision}, batch of {self.batch}, {threads}, {device_name(self.backend)}"


QUICK = Plan(layers=20, networks=20, held_out=5)
"""A profile for a latency budget that cannot wait for a full one."""

Role = Literal["layers", "networks", "held_out"]

LARGEST = 1e12
"""Of what stands in a profile or a model, so that it can be squared, multiplied and added up; but terms may be more."""
Milliseconds = Annotated[float, Field(gt=0, le=LARGEST)]


class Measurement(Strict):
    """An item and its visits.

    Attributes:
        role: what it is for.
        terms: what its latency is made of, as `terms.terms_of` the precision.
        macs: of one image.
        visits: milliseconds of each: its own, and the yardstick's before and after it.
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
    terms: Annotated[tuple[str, ...], Field(description="Names of each measurement's terms.")]
    measurements: tuple[Measurement, ...]

    @model_validator(mode="after")
    def _a_figure_a_term(self) -> Self:
        for i, measurement in enumerate(self.measurements):
            if (found := len(measurement.terms)) != (expected := len(self.terms)):
                raise ValueError(f"measurements.{i}.terms: found {found} numbers, expected {expected}, one a term")
        return self

    @property
    def yardstick(self) -> float:
        """The yardstick's milliseconds on the undisturbed machine."""
        return best_of(self.readings)

    @property
    def readings(self) -> list[float]:
        """All of the yardstick's milliseconds."""
        return [
            reading for measurement in self.measurements for _, *readings in measurement.visits for reading in readings
        ]

    def with_measurement(self, position: int, measurement: Measurement) -> Self:
        """The same with a measurement at its position, or one more at the end."""
        before, after = self.measurements[:position], self.measurements[position + 1 :]
        return self.model_copy(update={"measurements": (*before, measurement, *after)})

    @property
    def milliseconds(self) -> list[float]:
        """Each item's on the undisturbed machine."""
        best = self.yardstick
        return [quiet_ms([Visit(*visit) for visit in measurement.visits], best) for measurement in self.measurements]


@dataclass(frozen=True)
class Item:
    """Something to measure.

    Attributes:
        module: makes the network, or the layers.
        trace: of what it executes on one image.
    """

    role: Role
    module: Callable[[], nn.Module]
    trace: Trace

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its input."""
        return self.trace.shapes[0]

    @property
    def macs(self) -> int:
        """Of one image."""
        return self.trace.macs

    def terms(self, precision: Precision) -> NDArray[np.float64]:
        """What its latency in a precision is made of, (terms,); see `terms.py`."""
        return trace_terms(self.trace, precision)

    def measured(self, precision: Precision, visits: Sequence[Visit]) -> Measurement:
        """It with its visits, made in a precision."""
        return Measurement(
            role=self.role,
            terms=tuple(self.terms(precision)),
            macs=self.macs,
            visits=tuple((visit.ms, visit.before, visit.after) for visit in visits),
        )


def sample_network(family: Family | Entries, rng: np.random.Generator, divisor: int) -> ArchSpec:
    """Draw a network.

    Of a family, half of the time its own base model, else another; scaled around the growth law. Of entries, any
    topology of the width and input of one of them.
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
        head="segmentation" if network.head == "segmentation" else "pose",  # what else reads the first branch alone
        modules=(two, three, four),
        input=entry.input,
    )
    return _with_modules(entry, network, space.to_modules(space.sample(rng, 1)[0]))


def _with_modules(spec: ArchSpec, network: MultipathNetwork, modules: tuple[Module, ...]) -> ArchSpec:
    changed = network.model_copy(update={"modules": modules})
    return ArchSpec.create(spec.name, spec.task, spec.input, spec.classes, changed, spec.provenance)


def sample_items(family: Family | Entries, plan: Plan, divisor: int) -> list[Item]:
    """Draw what is to be measured of a family; see `draw_items`."""
    return draw_items(lambda rng: sample_network(family, rng, divisor), plan)


def draw_items(draw: Callable[[np.random.Generator], ArchSpec], plan: Plan) -> list[Item]:
    """Draw what is to be measured, in the order of measuring; the same plan gives the same items.

    Args:
        draw: draws a network.
        plan: how many; layers are distinct, so there are fewer of them where `draw` gives no others.
    """
    rng = np.random.default_rng(plan.seed)
    roles: list[tuple[Role, int]] = [("networks", plan.networks), ("held_out", plan.held_out)]
    items = [network_item(draw(rng), role) for role, count in roles for _ in range(count)]
    windows: dict[tuple[object, ...], Item] = {}  # distinct ones
    for _ in range(TRIES * plan.layers):
        if len(windows) == plan.layers:
            break
        key, item = _part(draw(rng), rng)
        windows.setdefault(key, item)
    items += windows.values()
    return [items[i] for i in rng.permutation(len(items))]


def network_item(spec: ArchSpec, role: Role = "networks") -> Item:
    """A whole network to measure."""
    return Item(role, partial(create_model, spec), spec.trace)


def _part(spec: ArchSpec, rng: np.random.Generator) -> tuple[tuple[object, ...], Item]:
    """A part of a network, and what it is known by."""
    return _layers(spec, spec.network, rng) if spec.network.type == "mbconv" else _short(spec, spec.network, rng)


def _layers(spec: ArchSpec, network: MBConvNetwork, rng: np.random.Generator) -> tuple[tuple[object, ...], Item]:
    """One layer between its neighbours."""
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
    """A network of one module of each stage."""
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
    """Measure a family on a back end and write the profile; what an interrupted run measured is kept and used.

    Args:
        family: that `settings` name.
        settings: back end, threads, batch.
        plan: how much.
        path: the profile's file.
        on_progress: told after each item.

    Raises:
        BackendError, OutputError, InputError: as `measure_items`.
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
    """Measure items on a back end and write the profile; what an interrupted run measured is kept and used.

    Args:
        items: of `plan`.
        constant: the network that is the yardstick.
        settings: back end, threads, batch.
        plan: how much.
        path: the profile's file; measurements so far lie beside it, in the folder `NAME.partial`, in which one process
            at a time works.
        on_progress: told after each item.

    Raises:
        BackendError: the back end cannot run here.
        OutputError: the file cannot be written.
        InputError: the partial file is of another machine, of other settings or of other items.
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
            for again in (False, True):  # what counts as quiet is known only at the end: some items need more visits
                for i, item in enumerate(items):
                    made = profile.measurements[i].visits if i < len(profile.measurements) else ()
                    if made and not (again and len(quiet([Visit(*visit) for visit in made], yardstick.best)) < VISITS):
                        continue
                    tenths = f"{10 * (10 * i // len(items))}%"  # a log has a line for each
                    on_progress(f"profiling on {settings.backend}{', again' * again}: {tenths}", i, len(items))
                    visits = [*(Visit(*visit) for visit in made), *visit_item(item, settings, yardstick)]
                    profile = profile.with_measurement(i, item.measured(settings.precision, visits))
                    profile.save(part)
        on_progress(f"profiling on {settings.backend}: 100%", len(items), len(items))
        profile.save(path)
        shutil.rmtree(folder)
    return profile


def _check_items(profile: Profile, items: Sequence[Item], path: Path) -> None:
    """See that what an interrupted run measured are the first of these items.

    Raises:
        InputError: they are others.
    """
    known = [(item.role, item.macs, tuple(item.terms(profile.settings.precision))) for item in items]
    found = [(each.role, each.macs, each.terms) for each in profile.measurements]
    if found != known[: len(found)]:
        raise InputError(
            f"{path}: measurements: found another run's, expected this one's; delete the file to begin anew"
        )


def visit_item(item: Item, settings: Settings, yardstick: Yardstick) -> list[Visit]:
    """Time an item on a back end, beside the yardstick."""
    with _ready(item, settings) as runner:
        return yardstick.visit(runner, VISITS)


def device_name(backend: str) -> str:
    """The processor or the GPU that a back end runs on here."""
    about = find_backend(backend).about
    return str(machine()["cpu"]) if about == "CPU" else about


def yardstick_network(family: Family | Entries, divisor: int) -> ArchSpec:
    """The family's smallest published network; that of entries for small images."""
    if isinstance(family, Entries):
        return family.specs[0].replace(height=YARDSTICK_PIXELS, width=YARDSTICK_PIXELS)
    return apply_strategy(family, min(family.strategies, key=lambda strategy: strategy.stage), divisor)


@contextmanager
def prepare_yardstick(
    constant: ArchSpec, settings: Settings, readings: Sequence[float] = (), known: float = math.inf
) -> Iterator[Yardstick]:
    """A network as the yardstick, with its milliseconds so far."""
    with _ready(network_item(constant), settings) as runner:
        yield Yardstick(runner, list(readings), known)


def _ready(item: Item, settings: Settings) -> AbstractContextManager[Runner]:
    check_batch(settings.batch, item.shape)
    images = torch.randn(settings.batch, *item.shape, generator=torch.Generator().manual_seed(0))
    return open_runner(item.module(), images, settings.backend, settings.threads, settings.precision)


def load_profile(path: Path, settings: Settings, plan: Plan) -> Profile | None:
    """What an earlier run, interrupted or not, measured, if it did.

    Raises:
        InputError: it was another machine, or other settings.
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
                f"{path}: {field}: found another run's, expected this one's; delete the file to begin anew"
            )
    return profile
