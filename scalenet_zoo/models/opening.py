"""From what a user names as a model to a network, or to an exported file, ready to run."""

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
    """Open a model: a network in evaluation, or an exported file ready to run.

    Args:
        model: as `create_model` takes it, or an exported file: ONNX, engine, OpenVINO's IR; what is open already stays.
        pretrained: load published weights into a network.
        weights: a file to load into a network.
        seed: of weights that are not loaded.

    Raises:
        UsageError: weights are asked for what has its own.
        ZooError: it cannot be opened.
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
