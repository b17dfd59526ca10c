"""Profiles: files with the measured latencies of layers and networks on a back end, and the settings that they are for.

items.py --> measuring.py --> Profile (JSON) --> model.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scalenet_zoo.arch.spec import Name
from scalenet_zoo.core.backends import Precision, find_backend, machine
from scalenet_zoo.core.bounds import THREADS
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.terms import terms_of
from scalenet_zoo.latency.yardstick import Visit, best_of, quiet_ms


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


def device_name(backend: str) -> str:
    """Name the processor or GPU that a back end runs on here."""
    about = find_backend(backend).about
    return str(machine()["cpu"]) if about == "CPU" else about


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
