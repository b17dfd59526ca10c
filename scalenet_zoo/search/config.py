"""What a search is told: a YAML file for `supernet train` and `search`.

    name: pets                                        name: streets
    data: imagefolder:/data/pets                      method: scalenas
    space: small                                      data: masks:/data/streets
    limits: {macs: 20M}                               space: scalenas_segmentation
    supernet: {recipe: {epochs: 100}}                 limits: {latency: 40ms, backend: ort-cpu}
    search: {population: 32, generations: 10}         search: {first: 200, evaluations: 600}

`method` says which search: `scalenet` (as if nothing is said) or `scalenas`. A space is one of the package, a YAML file
of one, or the space itself. Everything but `name`, `data` and `space` has a default; the sections are the settings of
the modules that use them. Here is what all methods are told; `scalenet.config` and `scalenas.config` have the rest.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, JsonValue

from scalenet_zoo.arch.spec import Name, Strict, Task, spec_errors
from scalenet_zoo.core.backends import require_backend
from scalenet_zoo.core.errors import InputError, SpecError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import read_json
from scalenet_zoo.core.packaged import read_packaged
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.search.limits import SearchLimits
from scalenet_zoo.search.settings import LatencySettings, ScoringSettings, SearchSettings
from scalenet_zoo.spaces.space_file import SpaceFile
from scalenet_zoo.supernet.settings import LoopSettings

if TYPE_CHECKING:
    from scalenet_zoo.training.recipe import Recipe


class SearchConfig(Strict):
    """What every search is told.

    Attributes:
        name: of what is found.
        data: as `--data` of `train` takes it.
        train_split: the part that the supernet learns from, and that batch-norm statistics are estimated from.
        val_split: the part that networks are scored on.
        limit: use so many images of each part; null: all.
        space: the name of a space of the package, a YAML file, or the space itself.
        limits: what networks may cost.
        supernet: how it is trained.
        scoring: how networks are scored.
        search: how is searched.
        latency: how it is modelled and measured, where it is limited.
        baselines: other searches to compare with, each with as many networks scored.
    """

    name: Name
    data: str
    train_split: str = "train"
    val_split: str = "val"
    limit: Annotated[int, Field(ge=1)] | None = None
    space: str | dict[str, JsonValue]
    limits: SearchLimits
    supernet: LoopSettings
    scoring: ScoringSettings
    search: SearchSettings
    latency: LatencySettings
    baselines: tuple[str, ...] = ()

    @classmethod
    def load(cls, source: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """A configuration of the package by its name, or a YAML file of one.

        Args:
            source: the name or the file; a space's file is looked for beside it.
            changes: values to take instead of the file's: of a section, those that are named.

        Raises:
            InputError: there is no such file, or it is no YAML.
            SpecError: a field is missing, unknown or out of range.
        """
        return cls.from_values(read_config(source, changes or {}), str(source))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The same with changes; see `load`.

        Raises:
            SpecError: a value is out of range.
        """
        return self.from_values(_change(self.model_dump(mode="json", exclude_unset=True), changes), self.name)

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str) -> Self:
        """A configuration from what a YAML file holds; `source` names it in errors.

        Raises:
            SpecError: a field is missing, unknown or out of range.
        """
        if values.get("method") == "scalenet":  # which has always been what is meant where nothing is said
            del values["method"]
        with spec_errors(source):
            return cls.model_validate_json(json.dumps(values))

    @abstractmethod
    def open_space(self) -> SpaceFile:
        """The space.

        Raises:
            InputError: there is no such file, or it is no YAML.
            SpecError: the space is not valid.
        """

    @property
    @abstractmethod
    def task(self) -> Task:
        """What the networks are for."""

    @property
    def reading(self) -> dict[str, Any]:
        """How the data are opened, beside their source, task and split: arguments of `open_data`."""
        return {}

    @abstractmethod
    def make_recipe(self) -> "Recipe":
        """The recipe that the supernet is trained by.

        Raises:
            InputError: a value is unknown or out of range.
        """

    def check(self) -> None:
        """Refuse what cannot be run, as far as that can be known before the data are opened and torch is imported.

        Raises:
            InputError: data or space are not there, or settings do not fit the space or the task.
            SpecError: the space is not valid.
            BudgetError: the limits do not fit the space.
            UsageError: its precision is none of the back end's.
            BackendError: the back end whose latency is limited cannot run here.
        """
        check_source(self.data, self.task)
        self.make_recipe()
        self.check_settings()
        if self.limits.on_latency:
            backend = str(self.limits.backend)
            check_precision(self.latency.precision, backend)
            require_backend(backend)

    @abstractmethod
    def check_settings(self) -> None:
        """Refuse settings that fit neither each other nor the space; see `check`."""


def read_config(source: str | Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration's file holds, with changes; see `SearchConfig.load`.

    Raises:
        InputError: there is no such file, or it is no YAML.
    """
    path, values = read_packaged(Path(str(files("scalenet_zoo.search"))) / "configs", source, "configuration")
    if not isinstance(values, dict):
        raise InputError(f"{source}: found no fields with values, expected a configuration with a name, data, space")
    _change(values, changes)
    for name in ("space", "joints"):
        if isinstance(file := values.get(name), str) and file.endswith((".yaml", ".yml")):
            values[name] = str((path.parent / user_path(file)).resolve())
    return values


def _change(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Take values instead of others: of a section, those that are named."""
    for name, value in changes.items():
        if not isinstance(value, dict):
            values[name] = value
        elif isinstance(section := values.get(name) or {}, dict):  # else the file is wrong, as will be said
            values[name] = {**section, **value}
    return values


ABOUT_RUN = "run.json"


class RunAbout(Strict):
    """RUN/run.json: what a run was asked for, where it began.

    Attributes:
        config: the configuration, the space in full; without what may change at any time.
        machine: the machine, and versions of what computes.
    """

    config: dict[str, JsonValue]
    machine: dict[str, JsonValue]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            SpecError: it is damaged.
        """
        try:
            values = read_json(path)
        except ValueError as error:
            raise SpecError(f"{path}: {error}") from None
        with spec_errors(str(path)):
            return cls.model_validate(values)
