"""What a search is told: a YAML file for `supernet train` and `search`.

    name: pets
    data: imagefolder:/data/pets
    space: small            # or a YAML file of a space, or the space itself
    limits: {macs: 20M}
    supernet: {recipe: {epochs: 100}}
    search: {population: 32, generations: 10, rounds: 4}

Everything but `name`, `data` and `space` has a default; the sections are the settings of the modules that use them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue

from scalenet_zoo.errors import InputError
from scalenet_zoo.search.latency import LatencySettings
from scalenet_zoo.search.limits import Limits
from scalenet_zoo.search.mcea import MCEASettings
from scalenet_zoo.search.scoring import ScoringSettings
from scalenet_zoo.search.space import Space, read_packaged
from scalenet_zoo.search.state import Baseline
from scalenet_zoo.spec import Name, Strict, spec_errors
from scalenet_zoo.supernet.train import SupernetSettings


class SearchConfig(Strict):
    """A search: data, space, limits, and how each of its parts works.

    Attributes:
        name: of the family that is found.
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
        extrapolate: how many stages the family gets beyond those searched.
    """

    name: Name
    data: str
    train_split: str = "train"
    val_split: str = "val"
    limit: Annotated[int, Field(ge=1)] | None = None
    space: str | dict[str, JsonValue]
    limits: Limits = Limits()
    supernet: SupernetSettings = SupernetSettings()
    scoring: ScoringSettings = ScoringSettings()
    search: MCEASettings = MCEASettings()
    latency: LatencySettings = LatencySettings()
    baselines: tuple[Baseline, ...] = ()
    extrapolate: Annotated[int, Field(ge=0, le=10)] = 2

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
        import json

        path, values = read_packaged("scalenet_zoo.search.configs", source, "configuration")
        if not isinstance(values, dict):
            raise InputError(
                f"{source}: found no fields with values, expected a configuration with a name, data, space"
            )
        for name, value in (changes or {}).items():
            values[name] = {**(values.get(name) or {}), **value} if isinstance(value, dict) else value
        space = values.get("space")
        if isinstance(space, str) and space.endswith((".yaml", ".yml")):
            values["space"] = str(path.parent / space)
        with spec_errors(str(source)):
            return cls.model_validate_json(json.dumps(values))

    def open_space(self) -> Space:
        """The space.

        Raises:
            InputError: there is no such file, or it is no YAML.
            SpecError: the space is not valid.
        """
        return Space.load(self.space) if isinstance(self.space, str) else Space.from_values(self.space, "space")
