"""What a search is told: a YAML file for `supernet train` and `search`.

    name: pets                                        name: streets
    data: imagefolder:/data/pets                      method: scalenas
    space: small                                      data: masks:/data/streets
    limits: {macs: 20M}                               space: scalenas_segmentation
    supernet: {recipe: {epochs: 100}}                 limits: {latency: 40ms, backend: ort-cpu}
    search: {population: 32, generations: 10}         search: {first: 200, evaluations: 600}

`method` says which search: `scalenet` (as if nothing is said) or `scalenas`. A space is one of the package, a YAML file
of one, or the space itself. Everything but `name`, `data` and `space` has a default; the sections are the settings of
the modules that use them.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue

from scalenet_zoo.arch.spec import Name, Strict, spec_errors
from scalenet_zoo.core.backends import require_backend
from scalenet_zoo.core.errors import InputError, SpecError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import read_json, regular_file
from scalenet_zoo.core.packaged import read_packaged
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.search.scalenas.limits import MultipathLimits
from scalenet_zoo.search.scalenas.state import TopologyBaseline
from scalenet_zoo.search.scalenet.limits import Limits
from scalenet_zoo.search.scalenet.record import scaled_stages
from scalenet_zoo.search.scalenet.state import Baseline
from scalenet_zoo.search.settings import (
    LatencySettings,
    MCEASettings,
    MultipathLatencySettings,
    MultipathScoring,
    ScoringSettings,
    TopologySettings,
)
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.settings import MultipathSettings, SupernetSettings


class BaseConfig(Strict):
    """What both kinds of search are told.

    Attributes:
        name: of what is found.
        data: as `--data` of `train` takes it.
        train_split: the part that the supernet learns from, and that batch-norm statistics are estimated from.
        val_split: the part that networks are scored on.
        limit: use so many images of each part; null: all.
        space: the name of a space of the package, a YAML file, or the space itself.
    """

    name: Name
    data: str
    train_split: str = "train"
    val_split: str = "val"
    limit: Annotated[int, Field(ge=1)] | None = None
    space: str | dict[str, JsonValue]

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
        values = _read(source, changes or {})
        if values.get("method") == "scalenet":  # which has always been what is meant where nothing is said
            del values["method"]
        with spec_errors(str(source)):
            return cls.model_validate_json(json.dumps(values))


class SearchConfig(BaseConfig):
    """A search of ScaleNet: base model and scaling strategies.

    Attributes:
        limits: what networks may cost.
        supernet: how it is trained.
        scoring: how networks are scored.
        search: how is searched.
        latency: how it is modelled and measured, where it is limited.
        baselines: other searches to compare with, each with as many networks scored.
        extrapolate: how many stages the family gets beyond those searched.
    """

    limits: Limits = Limits()
    supernet: SupernetSettings = SupernetSettings()
    scoring: ScoringSettings = ScoringSettings()
    search: MCEASettings = MCEASettings()
    latency: LatencySettings = LatencySettings()
    baselines: tuple[Baseline, ...] = ()
    extrapolate: Annotated[int, Field(ge=0, le=10)] = 2

    def open_space(self) -> Space:
        """The space.

        Raises:
            InputError: there is no such file, or it is no YAML.
            SpecError: the space is not valid.
        """
        return Space.load(self.space) if isinstance(self.space, str) else Space.from_values(self.space, "space")

    def check(self) -> None:
        """Refuse what cannot be run, as far as that can be known before the data are opened and torch is imported.

        Raises:
            InputError: data or space are not there, or settings do not fit the space.
            SpecError: the space is not valid.
            BudgetError: there are more limits than stages.
            BackendError: the back end whose latency is limited cannot run here.
        """
        space = self.open_space()
        check_source(self.data, "classification")
        self.search.shares(scaled_stages(space))
        self.supernet.make_recipe()
        self.supernet.make_sampler(space)
        for name in self.limits.given:
            self.limits.amounts(name, [each.stage for each in space.scaling])
        if self.limits.latency:
            require_backend(str(self.limits.backend))


class MultipathConfig(BaseConfig):
    """A search of ScaleNAS: topologies of multipath networks.

    Attributes:
        method: tells this kind from the other.
        ignore_index: of segmentation masks: the value of void pixels; None: 255, where `classes.json` says nothing
            else.
        joints: of persons: a YAML file about their joints, beside the configuration.
        limits: what networks may cost.
        supernet: how it is trained.
        scoring: how networks are scored.
        search: how is searched.
        latency: how it is modelled and measured, where it is limited.
        baselines: other searches to compare with, each with as many networks scored.
    """

    method: Literal["scalenas"]
    ignore_index: Annotated[int, Field(ge=0, le=255)] | None = None
    joints: str | None = None
    limits: MultipathLimits = MultipathLimits()
    supernet: MultipathSettings = MultipathSettings()
    scoring: MultipathScoring = MultipathScoring()
    search: TopologySettings = TopologySettings()
    latency: MultipathLatencySettings = MultipathLatencySettings()
    baselines: tuple[TopologyBaseline, ...] = ()

    def open_space(self) -> MultipathSpace:
        """The space.

        Raises:
            InputError: there is no such file, or it is no YAML.
            SpecError: the space is not valid.
        """
        if isinstance(self.space, str):
            return MultipathSpace.load(self.space)
        return MultipathSpace.from_values(self.space, "space")

    def check(self) -> None:
        """Refuse what cannot be run, as far as that can be known before the data are opened and torch is imported.

        Raises:
            InputError: data, joints or space are not there, or settings do not fit the task.
            SpecError: the space is not valid.
            BackendError: the back end whose latency is limited cannot run here.
        """
        space = self.open_space()
        check_source(self.data, space.head)
        if self.joints:
            check_file(Path(self.joints))
        self.scoring.metric_of(space.head)
        self.supernet.teacher.make_recipe(self.supernet.make_recipe(space.head), space.head)
        if self.limits.latency:
            require_backend(str(self.limits.backend))


KINDS: Mapping[object, type[SearchConfig] | type[MultipathConfig]] = {
    "scalenet": SearchConfig,
    "scalenas": MultipathConfig,
}


def load_config(source: str | Path, changes: Mapping[str, Any] | None = None) -> SearchConfig | MultipathConfig:
    """A configuration of either kind; see `BaseConfig.load`.

    Raises:
        InputError: there is no such file, it is no YAML, or its method is unknown.
        SpecError: a field is missing, unknown or out of range.
    """
    method = _read(source, {}).get("method", "scalenet")
    if not isinstance(method, str) or method not in KINDS:
        raise InputError(f"{source}: method: found {quoted(method)}, expected {' or '.join(map(str, KINDS))}")
    return KINDS[method].load(source, changes)


def check_file(path: Path) -> None:
    """Look whether a file is there.

    Raises:
        InputError: it is not.
    """
    try:
        regular_file(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _read(source: str | Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration's file holds, with changes."""
    path, values = read_packaged(Path(str(files("scalenet_zoo.search"))) / "configs", source, "configuration")
    if not isinstance(values, dict):
        raise InputError(f"{source}: found no fields with values, expected a configuration with a name, data, space")
    for name, value in changes.items():
        if not isinstance(value, dict):
            values[name] = value
        elif isinstance(section := values.get(name) or {}, dict):  # else the file is wrong, as will be said
            values[name] = {**section, **value}
    for name in ("space", "joints"):
        if isinstance(file := values.get(name), str) and file.endswith((".yaml", ".yml")):
            values[name] = str((path.parent / user_path(file)).resolve())
    return values


RUN_FILE = "run.json"


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
