"""Latencies of the zoo's entries on this machine, kept: one JSON file a back end, number of threads and batch.

Other versions of the runtimes or of this package, or another device, have files of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.arch.spec import ArchSpec, Document, Name, Sha256, Strict
from scalenet_zoo.core.backends import Precision, machine
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.files import cache_folder
from scalenet_zoo.latency.profile import Milliseconds
from scalenet_zoo.latency.yardstick import Visit, best_of, quiet, quiet_ms

MOST_FIGURES, MOST_VISITS = 10_000, 1_000
"""Of a file, and of a figure: the zoo has some 60 entries in three precisions, a figure three visits at a time."""


class Setting(Strict):
    """What the latencies of a file are of, on this machine.

    Attributes:
        backend: as `--on` takes it.
        threads: CPU threads.
        batch: images at once.
    """

    backend: str
    threads: Annotated[int, Field(ge=1, le=THREADS)]
    batch: Annotated[int, Field(ge=1)] = 1


class Figure(Strict):
    """Visits to an entry in one precision.

    Attributes:
        name: of the entry.
        hash: of its architecture.
        macs: of one image, by which another size of the image is another network.
        precision: that it ran in.
        visits: milliseconds of each: its own, and the yardstick's before and after it.
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
        """What tells figures of a file apart."""
        return self.name, self.hash, self.macs, self.precision


def key_of(spec: ArchSpec, precision: Precision) -> tuple[str, str, int, str]:
    """The key of an entry's figure."""
    return spec.name, spec.hash, spec.cost.macs, precision


class Figures(Document):
    """All figures of one setting on this machine, with what the machine is."""

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
        """All of the yardstick's milliseconds."""
        return [reading for figure in self.figures for _, *readings in figure.visits for reading in readings]

    @property
    def yardstick(self) -> float:
        """The yardstick's milliseconds on the undisturbed machine; there has to be a figure."""
        return best_of(self.readings)

    def find(self, spec: ArchSpec, precision: Precision) -> Figure | None:
        """An entry's figure; None: it was not measured."""
        key = key_of(spec, precision)
        return next((figure for figure in self.figures if figure.key == key), None)

    def with_visits(self, spec: ArchSpec, precision: Precision, visits: Sequence[Visit]) -> Self:
        """The same with more visits to an entry."""
        made = tuple((visit.ms, visit.before, visit.after) for visit in visits)
        before = self.find(spec, precision)
        name, digest, macs, _ = key_of(spec, precision)
        visited = ((*before.visits, *made) if before else made)[-MOST_VISITS:]
        figure = Figure(name=name, hash=digest, macs=macs, precision=precision, visits=visited)
        others = tuple(each for each in self.figures if each is not before)
        return self.model_copy(update={"figures": (*others, figure)})

    def ms(self, figure: Figure) -> float:
        """Milliseconds of a figure on the undisturbed machine, at its best speed."""
        return quiet_ms(_visits(figure), self.yardstick)

    def least_a_mac(self, precision: Precision) -> float:
        """Milliseconds a MAC of the network that took the least in a precision; 0: none was measured."""
        best = self.yardstick if self.figures else 0.0
        of_it = (figure for figure in self.figures if figure.precision == precision)
        return min((quiet_ms(_visits(figure), best) / figure.macs for figure in of_it), default=0.0)

    def quiet(self, figure: Figure) -> int:
        """How many visits of a figure were undisturbed."""
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
    """The figures of a setting that are kept; none, if nothing was measured yet.

    Raises:
        SpecError: the file is damaged.
    """
    path = figures_path(setting)
    if path.exists():
        return Figures.load(path)
    return Figures(setting=setting, machine=machine())
