"""Opening of a model that a user names: a network or an exported file, ready to run."""

from pathlib import Path
from typing import TYPE_CHECKING

from scalenet_zoo.core.file_kinds import ENGINE, OPENVINO, exported_kind, user_path
from scalenet_zoo.zoo.sources import NetworkSource, check_model, is_exported

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.inference.prepare import ExportedFile


def open_model(
    model: "NetworkSource | nn.Module | ExportedFile",
    pretrained: bool = False,
    weights: str | Path | None = None,
    seed: int = 0,
) -> "nn.Module | ExportedFile":
    """Open a model: a network in evaluation mode, or an exported file ready to run.

    Args:
        model: what `create_model` takes, or an exported file (ONNX, engine, OpenVINO's IR); an open model is returned
            as it is.
        pretrained: load published weights into a network.
        weights: a file of weights to load into a network.
        seed: the seed of the initial weights, if none are loaded.

    Raises:
        UsageError: weights are requested for a model that has its own.
        ZooError: the model cannot be opened.
    """
    opened = check_model(model, pretrained, weights)
    if is_exported(model):
        path = user_path(str(model))
        kind = exported_kind(path)
        if kind == ENGINE:
            from scalenet_zoo.export.tensorrt.network import EngineNetwork

            return EngineNetwork.load(path)
        if kind == OPENVINO:
            from scalenet_zoo.export.openvino.network import OpenVinoNetwork

            return OpenVinoNetwork.load(path)
        from scalenet_zoo.export.onnx_network import OnnxNetwork

        return OnnxNetwork.load(path)
    if not isinstance(opened, NetworkSource):
        return opened
    from scalenet_zoo.zoo.create import create_seeded

    return create_seeded(opened, seed, pretrained=pretrained, weights=weights).eval()
