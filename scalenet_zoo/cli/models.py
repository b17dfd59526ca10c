"""What a user may name as a model: entries of the zoo, files, folders, repositories. All commands open it alike."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.export.verify import Exported

MODEL = "A name of the zoo, a spec's JSON file, hf-hub:org/name, a folder of `train`, an ONNX file or an engine."
"""Help for commands that take any of them."""


def is_exported(model: str) -> bool:
    """Whether the name is of a file of `export`."""
    return model.endswith((".onnx", ".engine"))


def has_weights(model: str) -> bool:
    """Whether what has this name holds weights: exported files, folders and repositories, not names and specs."""
    if is_exported(model) or model.startswith(("hf-hub:", "local-dir:")):
        return True
    from scalenet_zoo.zoo import list_models

    return Path(model).is_dir() and model not in list_models()  # a name of the zoo comes before a folder's


def open_model(
    model: str, pretrained: bool = False, weights: Path | None = None, seed: int = 0
) -> "nn.Module | Exported":
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
    if not is_exported(model):
        return open_network(model, pretrained, weights, seed)
    if pretrained or weights:
        raise typer.BadParameter("found --pretrained or --weights, expected neither: an exported file has its weights")
    if model.endswith(".engine"):
        from scalenet_zoo.export.engine_network import EngineNetwork

        return EngineNetwork.load(model)
    from scalenet_zoo.export.onnx_network import OnnxNetwork

    return OnnxNetwork.load(model)


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

    from scalenet_zoo.zoo import create_model

    torch.manual_seed(seed)
    return create_model(model, pretrained, img_size=size, weights=weights).eval()
