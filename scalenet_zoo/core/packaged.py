"""YAML files that come with the package, found by name."""

from pathlib import Path
from typing import Any

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import read_yaml


def packaged_names(folder: Path) -> list[str]:
    """List the names of the YAML files in one of the package's folders, without their suffix."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def read_packaged(folder: Path, source: str | Path, kind: str) -> tuple[Path, Any]:
    """Read a YAML file from one of the package's folders by its name, or any other YAML file by its path.

    Args:
        folder: the folder of the package.
        source: the name or the path.
        kind: the kind of file, named in the message.

    Returns:
        The file's path, and its content.

    Raises:
        InputError: there is no such file, or it is not valid YAML.
    """
    names = packaged_names(folder)
    path = folder / f"{source}.yaml" if str(source) in names else user_path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{source}: found no such {kind}, expected {', '.join(names)} or a YAML file")
    try:
        return path, read_yaml(path)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
