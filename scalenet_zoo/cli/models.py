"""What a user may name as a model: entries of the zoo, files, folders, repositories. All commands open it alike."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scalenet_zoo.core.errors import InputError, ModelNotFoundError, WeightsError
from scalenet_zoo.core.file_kinds import ENGINE, exported_kind, user_path
from scalenet_zoo.core.files import regular_file

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.inference.prepare import ExportedFile

MODEL = "A name of the zoo, a spec's JSON file, hf-hub:org/name, a folder of `train`, an ONNX file or an engine."
"""Help for commands that take any of them."""


HUB, FOLDER = "hf-hub:", "local-dir:"  # timm's
_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+(@[\w./-]+)?", re.ASCII)


def check_model(model: str, pretrained: bool = False, weights: Path | None = None) -> None:
    """Look whether there is what has this name, and the file of weights; without torch, so that it takes no time.

    Of repositories of the Hub only the name's form is looked at.

    Raises:
        typer.BadParameter: weights are asked for an exported file, which has its own.
        ZooError: there is no such entry, file or folder, or it cannot be read.
    """
    if is_exported(model):
        if pretrained or weights:
            raise typer.BadParameter(
                "found --pretrained or --weights, expected neither: an exported file has its weights"
            )
        try:
            regular_file(user_path(model))
        except ValueError as error:
            raise InputError(f"{model}: {error}") from None
    elif model.startswith(HUB):
        if not _REPOSITORY.fullmatch(name := model.removeprefix(HUB)):
            raise ModelNotFoundError(f"{model}: found {name!r}, expected org/name or org/name@revision after {HUB}")
    else:
        from scalenet_zoo.zoo.sources import load_spec

        load_spec(model)
    if weights is not None:
        try:
            regular_file(user_path(weights))
        except ValueError as error:
            raise WeightsError(f"{weights}: {error}") from None


def is_exported(model: str) -> bool:
    """Whether the name is of a file of `export`: an ONNX file or an engine."""
    return not _is_entry(model) and exported_kind(user_path(model)) is not None


def has_weights(model: str) -> bool:
    """Whether what has this name holds weights: exported files, folders and repositories, not names and specs."""
    if model.startswith((HUB, FOLDER)) or is_exported(model):
        return True
    return not _is_entry(model) and user_path(model).is_dir()


def _is_entry(model: str) -> bool:
    """Whether this is a name of the zoo, which comes before a file's or a folder's."""
    from scalenet_zoo.zoo.catalog import list_models

    return model in list_models()


def open_model(
    model: str, pretrained: bool = False, weights: Path | None = None, seed: int = 0
) -> "nn.Module | ExportedFile":
    """Open what has this name: a network in evaluation, or an exported file ready to run.

    Args:
        model: as `MODEL` says.
        pretrained: load published weights into a network.
        weights: a file to load into a network.
        seed: of weights that are not loaded.

    Raises:
        typer.BadParameter: weights are asked for an exported file, which has its own.
        ZooError: it cannot be opened.
    """
    check_model(model, pretrained, weights)
    if not is_exported(model):
        return open_network(model, pretrained, weights, seed)
    path = user_path(model)
    if exported_kind(path) == ENGINE:
        from scalenet_zoo.export.tensorrt.network import EngineNetwork

        return EngineNetwork.load(path)
    from scalenet_zoo.export.onnx_network import OnnxNetwork

    return OnnxNetwork.load(path)


def open_network(
    model: str,
    pretrained: bool = False,
    weights: Path | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> "nn.Module":
    """The same for networks alone; `size` is another height and width of their input.

    Raises:
        ZooError: as `open_model`.
    """
    import torch

    from scalenet_zoo.zoo.create import create_model

    torch.manual_seed(seed)
    return create_model(model, pretrained, img_size=size, weights=weights).eval()
