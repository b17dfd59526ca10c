"""What names a network: an entry, a file, a folder, a repository of the Hub."""

import difflib
import os
from pathlib import Path

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import ModelNotFoundError, SpecError
from scalenet_zoo.core.file_kinds import is_folder, no_network, user_path
from scalenet_zoo.zoo.catalog import entry_path, list_models
from scalenet_zoo.zoo.model_folder import FOLDER_PREFIX, HUB_PREFIX, ModelFolder, find_folder, read_folder


def load_spec(source: str | Path | ArchSpec, revision: str | None = None) -> ArchSpec:
    """The spec of a zoo entry's name, a JSON file, `hf-hub:org/name`, `local-dir:path` or a folder of `train`.

    Raises:
        ModelNotFoundError: no entry and no file has this name; the message suggests the nearest.
        SpecError: the file is not a valid spec.
        WeightsError: the Hub cannot be reached, or does not have the file.
    """
    opened = open_source(source, revision, with_weights=False)
    return opened.spec if isinstance(opened, ModelFolder) else opened


def open_source(
    source: str | Path | ArchSpec | ModelFolder, revision: str | None = None, with_weights: bool = True
) -> ArchSpec | ModelFolder:
    """What a source stands for, as `create_model` takes it.

    Args:
        source: a name of the zoo, a spec's file, `hf-hub:org/name`, `local-dir:path`, or a folder's path.
        revision: a branch, tag or commit of `hf-hub:org/name`.
        with_weights: whether the weights are fetched from the Hub.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: as `load_spec`.
    """
    if isinstance(source, (ArchSpec, ModelFolder)):
        return source
    name = str(source)
    if revision is not None and not name.startswith(HUB_PREFIX):
        raise ModelNotFoundError(f"{name}: found the revision {revision} for it, expected it for hf-hub:org/name")
    if path := entry_path(name):
        return ArchSpec.load(path)
    if folder := open_folder(name, revision, with_weights):
        return folder
    file = user_path(name)
    if about := no_network(file):
        raise SpecError(f"{name}: {about}")
    if name.endswith(".json") or os.path.exists(file):  # noqa: PTH110 - Path raises for names that are too long
        return ArchSpec.load(file)
    near = difflib.get_close_matches(name, list_models(), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`scalenet-zoo list` shows the names"
    raise ModelNotFoundError(f"{name}: found no such entry in the zoo and no such file; {hint}")


def open_folder(source: str | Path, revision: str | None = None, with_weights: bool = True) -> ModelFolder | None:
    """What `hf-hub:org/name`, `local-dir:path` or a folder's path stands for; None for anything else.

    Args:
        source: `hf-hub:org/name@revision` pins a revision, too.
        revision: a branch, tag or commit of a repository of the Hub.
        with_weights: whether the weights are fetched from the Hub.

    Raises:
        ModelNotFoundError: there is no such folder.
        SpecError: a file of the folder is not valid.
        WeightsError: the Hub cannot be reached, or does not have the files.
    """
    name = str(source)
    if name.startswith(HUB_PREFIX):
        from scalenet_zoo.zoo.hub import fetch_folder

        return fetch_folder(name.removeprefix(HUB_PREFIX), revision, with_weights)
    if revision is not None:
        raise ModelNotFoundError(f"{name}: found the revision {revision} for it, expected it for hf-hub:org/name")
    if name.startswith(FOLDER_PREFIX):
        return read_folder(find_folder(name.removeprefix(FOLDER_PREFIX)))
    return read_folder(find_folder(name)) if is_folder(user_path(name)) else None
