"""The configuration of a search: a YAML file for the commands `supernet train` and `search`.

    name: pets                                        name: streets
    data: imagefolder:/data/pets                      method: scalenas
    space: small                                      data: masks:/data/streets
    limits: {macs: 20M}                               space: scalenas_segmentation
    supernet: {recipe: {epochs: 100}}                 limits: {latency: 40ms, backend: ort-cpu}
    search: {population: 32, generations: 10}         search: {first: 200, evaluations: 600}

`method` selects the search: `scalenet` (the default) or `scalenas`. A space is the name of a packaged one, a YAML file,
or the space itself. Everything but `name`, `data` and `space` has a default; the sections are the settings of the
modules that use them. This module has the fields that all methods share; `scalenet.config` and `scalenas.config` have
the rest.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, JsonValue

from scalenet_zoo.arch.spec import Name, Task
from scalenet_zoo.core.backends import require_backend
from scalenet_zoo.core.documents import Strict, spec_errors
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
    """The fields of the configuration that all methods share.

    Attributes:
        name: names the networks that are found.
        data: as `--data` of `train` takes it.
        train_split: the split that the supernet is trained on, and that batch-norm statistics are estimated from.
        val_split: the split that networks are scored on.
        limit: the number of images to use of each split; null: all.
        space: the name of a packaged space, a YAML file, or the space itself.
        limits: limits on the cost of the networks.
        supernet: how the supernet is trained.
        scoring: how networks are scored.
        search: settings of the search.
        latency: how latency is modelled and measured, if it is limited.
        baselines: other searches to compare with; each of them scores as many networks.
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
        """Load a packaged configuration by its name, or one from a YAML file.

        Args:
            source: the name or the file; the path of a space's file is relative to the folder of the configuration.
            changes: values that replace those of the file; a section keeps the values that are not named.

        Raises:
            InputError: there is no such file, or it is not YAML.
            SpecError: a field is missing, unknown or out of range.
        """
        return cls.from_values(read_config(source, changes or {}), str(source))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The same configuration with changes; see `load`.

        Raises:
            SpecError: a value is out of range.
        """
        return self.from_values(_change(self.model_dump(mode="json", exclude_unset=True), changes), self.name)

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str) -> Self:
        """Make a configuration from the values of a YAML file; `source` names the file in errors.

        Raises:
            SpecError: a field is missing, unknown or out of range.
        """
        if values.get("method") == "scalenet":  # the default, which configurations leave out
            del values["method"]
        with spec_errors(source):
            return cls.model_validate_json(json.dumps(values))

    @abstractmethod
    def open_space(self) -> SpaceFile:
        """Load the space.

        Raises:
            InputError: there is no such file, or it is not YAML.
            SpecError: the space is not valid.
        """

    @property
    @abstractmethod
    def task(self) -> Task:
        """What the networks are for."""

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `open_data` other than source, task and split."""
        return {}

    @abstractmethod
    def make_recipe(self) -> "Recipe":
        """Make the recipe that the supernet is trained with.

        Raises:
            InputError: a value is unknown or out of range.
        """

    def check(self) -> None:
        """Refuse what cannot run, as far as that can be known before the data are opened and torch is imported.

        Raises:
            InputError: the data or the space do not exist, or settings do not fit the space or the task.
            SpecError: the space is not valid.
            BudgetError: the limits do not fit the space.
            UsageError: networks do not run in this precision on the back end.
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
        """Refuse settings that do not fit each other or the space; see `check`."""


def read_config(source: str | Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Read the values of a configuration's file, with changes; see `SearchConfig.load`.

    Raises:
        InputError: there is no such file, or it is not YAML.
    """
    path, values = read_packaged(Path(str(files("scalenet_zoo.search"))) / "configs", source, "configuration")
    if not isinstance(values, dict):
        raise InputError(f"{source}: found no fields with values, expected a configuration with name, data and space")
    _change(values, changes)
    for name in ("space", "joints"):
        if isinstance(file := values.get(name), str) and file.endswith((".yaml", ".yml")):
            values[name] = str((path.parent / user_path(file)).resolve())
    return values


def _change(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace values; a section keeps the values that are not named."""
    for name, value in changes.items():
        if not isinstance(value, dict):
            values[name] = value
        elif isinstance(section := values.get(name) or {}, dict):  # else validation will refuse the file
            values[name] = {**section, **value}
    return values


ABOUT_RUN = "run.json"


class RunAbout(Strict):
    """RUN/run.json: the configuration of a run, and where it began.

    Attributes:
        config: the configuration with the whole space, but without fields that may change at any time.
        machine: the machine, and the versions of the libraries that compute.
    """

    config: dict[str, JsonValue]
    machine: dict[str, JsonValue]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            SpecError: the file is damaged.
        """
        try:
            values = read_json(path)
        except ValueError as error:
            raise SpecError(f"{path}: {error}") from None
        with spec_errors(str(path)):
            return cls.model_validate(values)
