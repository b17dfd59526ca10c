"""Measure a profile: time its items on a back end, in turn with a yardstick; an interrupted run is resumed.

    family --sample_items--> items --measure_items--> Profile

A search gives its own items to `measure_items`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.latency.items import Item, network_item, sample_items
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile, Settings, load_profile
from scalenet_zoo.latency.runners import check_batch, open_runner
from scalenet_zoo.latency.terms import terms_of
from scalenet_zoo.latency.yardstick import Visit, Yardstick, quiet
from scalenet_zoo.zoo.catalog import Entries
from scalenet_zoo.zoo.create import with_seed

if TYPE_CHECKING:
    from scalenet_zoo.latency.runners import Runner

VISITS = 3
"""The number of quiet visits to each item."""
YARDSTICK_PIXELS = 64
"""The height and width of a dense yardstick's images: it takes milliseconds, instead of seconds at its own size."""


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
    with with_seed(0):
        module = item.module()
    return open_runner(module, images, settings.backend, settings.threads, settings.precision)
