"""Export of networks to simplified ONNX graphs in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxslim
import torch
from torch import nn

from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.export.processing import AROUND
from scalenet_zoo.networks.modes import evaluation_mode


def trace_graph(
    module: nn.Module,
    images: torch.Tensor,
    output_name: str = "output",
    batch: torch.export.Dim | None = None,
) -> onnx.ModelProto:
    """Trace a module with one input, `image`, and one output to a simplified ONNX graph; batch norms are folded.

    The nodes of a module that `processing.AROUND` names have names that begin with the module's.

    Args:
        module: the module; it is traced in evaluation mode.
        images: an example of its input; with `batch`, at least two images.
        output_name: the name of the graph's output.
        batch: the batch sizes that the graph takes; None: that of `images`.

    Raises:
        ExportError: torch cannot export the module.
    """
    with warnings.catch_warnings(), _for_export(module):
        warnings.simplefilter("ignore")  # they concern torch's internals
        try:
            program = torch.onnx.export(
                module,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: batch},) if batch is not None else None,
                input_names=["image"],
                output_names=[output_name],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"network: cannot be exported by torch: {str(error).splitlines()[0]}") from error
    assert program is not None
    for node in program.model.graph:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        part = next((name for name in AROUND if f"'{name}'" in scopes), None)
        if part:
            node.name = f"{part}/{node.name}"
    # This folds constants, removes dead and repeated nodes, and drops torch's notes on its sources.
    simplified: onnx.ModelProto = onnxslim.slim(program.model_proto)
    return simplified


@contextmanager
def _for_export(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, with activations that do not overwrite their input, and restore it at the end.

    The graph is the same, but torch exports a network with hard-swish in a third of the time.
    """
    in_place = [part for part in module.modules() if getattr(part, "inplace", False) is True]
    for part in in_place:
        part.inplace = False  # type: ignore[assignment]
    try:
        with evaluation_mode(module):
            yield
    finally:
        for part in in_place:
            part.inplace = True  # type: ignore[assignment]
