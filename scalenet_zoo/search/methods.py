"""The search methods by their names in a configuration; the engine itself imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.search.config import SearchConfig, read_config
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenet.config import ScaleNetConfig

if TYPE_CHECKING:
    from scalenet_zoo.search.driver import Run, RunOptions
    from scalenet_zoo.search.method import Method

CONFIGS: Mapping[object, type[SearchConfig]] = {"scalenet": ScaleNetConfig, "scalenas": ScaleNASConfig}


def load_config(source: str | Path, changes: Mapping[str, Any] | None = None) -> SearchConfig:
    """Load a configuration of any method; see `SearchConfig.load`.

    Raises:
        InputError: there is no such file, it is not YAML, or its method is unknown.
        SpecError: a field is missing, unknown or out of range.
    """
    values = read_config(source, changes or {})
    method = values.get("method", "scalenet")
    if not isinstance(method, str) or method not in CONFIGS:
        raise InputError(f"{source}: method: found {quoted(method)}, expected {' or '.join(map(str, CONFIGS))}")
    return CONFIGS[method].from_values(values, str(source))


def open_run(config: SearchConfig, folder: str | Path | None, options: RunOptions) -> Run:
    """Open a run of the configuration's method in a folder, by default runs/NAME; see `Run`, also for errors."""
    from scalenet_zoo.search.driver import Run
    from scalenet_zoo.search.scalenas.method import ScaleNASMethod
    from scalenet_zoo.search.scalenet.method import ScaleNetMethod

    kind: type[Method[Any]] = ScaleNASMethod if isinstance(config, ScaleNASConfig) else ScaleNetMethod
    return Run(kind, config, Path(folder) if folder else Path("runs") / config.name, options)
