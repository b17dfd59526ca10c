"""Kept latencies of the zoo's entries on this machine.

There is one JSON file for each combination of back end, number of threads and batch size. Other versions of the
runtimes or of this package, and other devices, have files of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.arch.spec import ArchSpec, Name, Sha256
from scalenet_zoo.core.backends import Precision, machine
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.files import cache_folder
from scalenet_zoo.latency.profile import Milliseconds
from scalenet_zoo.latency.yardstick import Visit, best_of, quiet, quiet_ms

MOST_FIGURES, MOST_VISITS = 10_000, 1_000
"""The most figures in a file, and visits in a figure.

The zoo has some 60 entries in three precisions, and a figure gets three visits at a time.
"""


class Setting(Strict):
    """How the latencies of a file are measured.

    Attributes:
        backend: as `--on` takes it.
        threads: CPU threads.
        batch: images per batch.
    """

    backend: str
    threads: Annotated[int, Field(ge=1, le=THREADS)]
    batch: Annotated[int, Field(ge=1)] = 1


class Figure(Strict):
    """The visits to an entry in one precision.

    Attributes:
        name: the entry's name.
        hash: the hash of its architecture.
        macs: MACs per image. They tell apart the same network at different image sizes.
        precision: the precision it ran in.
        visits: three latencies of each visit, in milliseconds: the entry's, and the yardstick's before and after it.
    """

    name: Name
    hash: Sha256
    macs: Annotated[int, Field(ge=1)]
    precision: Precision
    visits: Annotated[
        tuple[tuple[Milliseconds, Milliseconds, Milliseconds], ...], Field(min_length=1, max_length=MOST_VISITS)
    ]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Name, hash, MACs and precision, which tell the figures of a file apart."""
        return self.name, self.hash, self.macs, self.precision


def key_of(spec: ArchSpec, precision: Precision) -> tuple[str, str, int, str]:
    """The key of an entry's figure; see `Figure.key`."""
    return spec.name, spec.hash, spec.cost.macs, precision


class Figures(Document):
    """All figures of one setting on this machine, with a description of the machine."""

    format: Literal["scalenet-zoo/figures"] = "scalenet-zoo/figures"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    setting: Setting
    machine: dict[str, JsonValue]
    figures: Annotated[tuple[Figure, ...], Field(max_length=MOST_FIGURES)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: set[tuple[str, str, int, str]] = set()
        for i, figure in enumerate(self.figures):
            if figure.key in seen:
                raise ValueError(f"figures.{i}: found {figure.name} in {figure.precision} twice, expected it once")
            seen.add(figure.key)
        return self

    @property
    def readings(self) -> list[float]:
        """All latencies of the yardstick, in milliseconds."""
        return [reading for figure in self.figures for _, *readings in figure.visits for reading in readings]

    @property
    def yardstick(self) -> float:
        """The yardstick's latency on the undisturbed machine, in milliseconds; there must be a figure."""
        return best_of(self.readings)

    def find(self, spec: ArchSpec, precision: Precision) -> Figure | None:
        """Find an entry's figure; None: it was not measured."""
        key = key_of(spec, precision)
        return next((figure for figure in self.figures if figure.key == key), None)

    def with_visits(self, spec: ArchSpec, precision: Precision, visits: Sequence[Visit]) -> Self:
        """The same figures with more visits to an entry."""
        made = tuple((visit.ms, visit.before, visit.after) for visit in visits)
        before = self.find(spec, precision)
        name, digest, macs, _ = key_of(spec, precision)
        visited = ((*before.visits, *made) if before else made)[-MOST_VISITS:]
        figure = Figure(name=name, hash=digest, macs=macs, precision=precision, visits=visited)
        others = tuple(each for each in self.figures if each is not before)
        return self.model_copy(update={"figures": (*others, figure)})

    def ms(self, figure: Figure) -> float:
        """A figure's latency on the undisturbed machine at its best speed, in milliseconds."""
        return quiet_ms(_visits(figure), self.yardstick)

    def least_a_mac(self, precision: Precision) -> float:
        """The least measured time per MAC in a precision, in milliseconds; 0: no network was measured in it."""
        best = self.yardstick if self.figures else 0.0
        of_it = (figure for figure in self.figures if figure.precision == precision)
        return min((quiet_ms(_visits(figure), best) / figure.macs for figure in of_it), default=0.0)

    def quiet(self, figure: Figure) -> int:
        """The number of undisturbed visits of a figure."""
        return len(quiet(_visits(figure), self.yardstick))


def _visits(figure: Figure) -> list[Visit]:
    return [Visit(*visit) for visit in figure.visits]


def figures_path(setting: Setting) -> Path:
    """Where the figures of a setting are kept."""
    here = machine()
    known = [setting.model_dump_json(), *(here[key] for key in ("cpu", "cores", "gpu", "driver", "versions"))]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "explore" / f"{setting.backend}-{setting.threads}-{setting.batch}-{digest[:12]}.json"


def load_figures(setting: Setting) -> Figures:
    """Load the kept figures of a setting; an empty collection if nothing was measured yet.

    Raises:
        SpecError: the file is damaged.
    """
    path = figures_path(setting)
    if path.exists():
        return Figures.load(path)
    return Figures(setting=setting, machine=machine())
