"""Names of networks: entries of the zoo, files, folders, and repositories of the Hub."""

import difflib
import os
import re
from pathlib import Path
from typing import TypeVar

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError, ModelNotFoundError, SpecError, UsageError, WeightsError
from scalenet_zoo.core.file_kinds import exported_kind, is_folder, no_network, user_path
from scalenet_zoo.core.files import regular_file
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.zoo.catalog import find_entry, is_entry, list_models
from scalenet_zoo.zoo.installed import pretrained_interface
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import FOLDER_PREFIX, HUB_PREFIX, ModelFolder, find_folder, read_folder
from scalenet_zoo.zoo.published import is_tagged, split_tag

NetworkSource = str | Path | ArchSpec | ModelFolder
"""What `create_model` builds a network from: a name of the zoo, a spec or its file, `hf-hub:org/name`, a model folder.

A name of the zoo may have the tag of published weights: `efficientnet_b0.ra_in1k`.
"""
_Model = TypeVar("_Model")

UNTRAINED = "the weights are initial, not trained: predictions mean nothing yet"
"""The warning about a network without trained weights."""
_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+(@[\w./-]+)?", re.ASCII)


def is_exported(model: object) -> bool:
    """Return whether this is an exported file: ONNX, OpenVINO IR, or an engine. Names of the zoo come before files."""
    return isinstance(model, str | Path) and not is_entry(str(model)) and exported_kind(user_path(model)) is not None


def file_stem(model: str | Path) -> str:
    """Return the default name of what is built from a name of the zoo or from a file."""
    return str(model) if is_tagged(str(model)) else Path(model).stem


def has_weights(model: object) -> bool:
    """Return whether a model, as a user names it, has its own weights.

    Networks, exported files, folders and repositories have their own weights; names of the zoo and specs have none.
    """
    if isinstance(model, ArchSpec):
        return False
    if not isinstance(model, str | Path) or is_exported(model):
        return True
    name = str(model)
    return name.startswith((HUB_PREFIX, FOLDER_PREFIX)) or (not is_entry(name) and user_path(name).is_dir())


def check_model(
    model: _Model, pretrained: bool = False, weights: str | Path | None = None
) -> _Model | ArchSpec | ModelFolder:
    """Check that a model and a file of weights exist. This does not import torch, so it is fast.

    For a repository of the Hub only the form of its name is checked.

    Args:
        model: a name of the zoo, a spec, a file, a folder, a repository, or a network.
        pretrained: whether published weights are requested.
        weights: the file of weights that is requested.

    Returns:
        The opened spec or folder, so that its files are read only once; otherwise the model as given.

    Raises:
        UsageError: weights are requested for a model that has its own.
        ZooError: there is no such entry, file or folder, or it cannot be read.
    """
    opened: _Model | ArchSpec | ModelFolder = model
    if is_exported(model):
        if pretrained or weights:
            raise UsageError("found `pretrained` or `weights`, expected neither: an exported file has its own weights")
        try:
            regular_file(user_path(str(model)))
        except ValueError as error:
            raise InputError(f"{model}: {error}") from None
    elif not isinstance(model, NetworkSource):
        if pretrained or weights:
            raise UsageError("found `pretrained` or `weights`, expected neither: a network has its own weights")
    elif isinstance(model, str) and model.startswith(HUB_PREFIX):
        if not _REPOSITORY.fullmatch(name := model.removeprefix(HUB_PREFIX)):
            raise ModelNotFoundError(
                f"{model}: found {name!r}, expected org/name or org/name@revision after {HUB_PREFIX}"
            )
    else:
        opened = open_source(model)
    if weights is not None:
        try:
            regular_file(user_path(weights))
        except ValueError as error:
            raise WeightsError(f"{weights}: {error}") from None
    return opened


def load_spec(source: NetworkSource, revision: str | None = None) -> ArchSpec:
    """Return the spec of a network: `load_spec("scalenet_s0")`.

    Args:
        source: a name of the zoo, a spec or its JSON file, `hf-hub:org/name`, `local-dir:path` or a folder of `train`.
            The spec of NAME.TAG keeps this name, so that `pretrained` finds the weights with the tag.
        revision: a branch, tag or commit of `hf-hub:org/name`.

    Raises:
        ModelNotFoundError: no entry and no file has this name; the message suggests the nearest names.
        SpecError: the file is not a valid spec.
        WeightsError: the Hub cannot be reached, or does not have the file.
    """
    opened = open_source(source, revision, with_weights=False)
    return opened.spec if isinstance(opened, ModelFolder) else opened


def open_interface(source: NetworkSource) -> Interface:
    """Return how images are prepared for a network, according to its folder, repository or published weights.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: as for `load_spec`.
    """
    opened = open_source(source, with_weights=False)
    return opened.interface if isinstance(opened, ModelFolder) else pretrained_interface(opened)


def open_source(
    source: NetworkSource, revision: str | None = None, with_weights: bool = True
) -> ArchSpec | ModelFolder:
    """Open the spec or the model folder that a source of `create_model` stands for.

    Args:
        source: a name of the zoo, a spec's file, `hf-hub:org/name`, `local-dir:path`, or a folder's path.
        revision: a branch, tag or commit of `hf-hub:org/name`.
        with_weights: whether the weights are fetched from the Hub.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: as for `load_spec`.
    """
    if isinstance(source, (ArchSpec, ModelFolder)):
        return source
    name = str(source)
    if revision is not None and not name.startswith(HUB_PREFIX):
        raise ModelNotFoundError(f"{name}: found the revision {revision}, expected one for hf-hub:org/name only")
    if spec := find_entry(name):
        return spec
    if folder := open_folder(name, revision, with_weights):
        return folder
    file = user_path(name)
    if about := no_network(file):
        raise SpecError(f"{name}: {about}")
    if name.endswith(".json") or os.path.exists(file):  # noqa: PTH110 - Path raises for names that are too long
        return ArchSpec.load(file)
    if tagged := split_tag(name):
        entry, tag = tagged
        raise ModelNotFoundError(
            f"{name}: found no published weights of {entry.name} with the tag {quoted(tag)}, expected one of"
            f" {', '.join(entry.tags)}"
        )
    near = difflib.get_close_matches(name, list_models(), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`scalenet-zoo list` shows the names"
    raise ModelNotFoundError(f"{name}: found no such entry in the zoo and no such file; {hint}")


def open_folder(source: str | Path, revision: str | None = None, with_weights: bool = True) -> ModelFolder | None:
    """Open the model folder of `hf-hub:org/name`, `local-dir:path` or a folder's path; None for anything else.

    Args:
        source: one of these three; `hf-hub:org/name@revision` also selects a revision.
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
        raise ModelNotFoundError(f"{name}: found the revision {revision}, expected one for hf-hub:org/name only")
    if name.startswith(FOLDER_PREFIX):
        return read_folder(find_folder(name.removeprefix(FOLDER_PREFIX)))
    return read_folder(find_folder(name)) if is_folder(user_path(name)) else None
