"""YAML files that come with the package, by name."""

from pathlib import Path
from typing import Any

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import read_yaml


def packaged_names(folder: Path) -> list[str]:
    """The YAML files of a folder of the package, by name."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def read_packaged(folder: Path, source: str | Path, kind: str) -> tuple[Path, Any]:
    """Read a YAML file of a folder of the package by its name, or any other by its path.

    Returns:
        The file, and what it holds.

    Raises:
        InputError: there is no such file, or it is no YAML; `kind` says what was looked for.
    """
    names = packaged_names(folder)
    path = folder / f"{source}.yaml" if str(source) in names else user_path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{source}: found no such {kind}, expected {', '.join(names)} or a YAML file")
    try:
        return path, read_yaml(path)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
