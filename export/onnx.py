"""Networks to ONNX files, and ONNX files of ours to running sessions."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from scalenet_zoo.export.verify import Verification, verify

from scalenet_zoo import __version__
from scalenet_zoo._files import replacing
from scalenet_zoo.errors import ExportError, InputError
from scalenet_zoo.spec import ArchSpec, spec_of
from scalenet_zoo.zoo import pretrained_cfg

if TYPE_CHECKING:
    from torch import nn

OUTPUT_NAMES = {"classification": "logits", "segmentation": "logits", "pose": "heatmaps"}
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that fit into one ONNX file (protobuf's limit, less some room for the graph)."""


def export_onnx(model: nn.Module, path: str | Path) -> Verification:
    """Write a network as an ONNX file that takes any number of images, and check it against the network.

    The input `image` is float32 (batch, channels, height, width), prepared as `images.preprocessing`
    does; the output is `logits` or `heatmaps`. The file's metadata hold the spec, its hash, the
    preprocessing and the versions.

    Args:
        model: a network of `create_model`; it is exported as in evaluation.
        path: the file to write; weights above 2 GB go into a second file beside it.

    Raises:
        ExportError: the network cannot be exported.
        OutputError: the file cannot be written.
        VerificationError: the file does not compute what the network does; no file is left behind.
    """
    spec = spec_of(model)
    size = spec.input
    parameter = next(model.parameters())
    if parameter.dtype != torch.float32:
        raise ExportError(f"{spec.name}: found weights of {parameter.dtype}, expected torch.float32")
    example = torch.zeros(2, size.channels, size.height, size.width, device=parameter.device)
    training = model.training
    model.eval()
    try:
        with replacing(Path(path)) as temporary:
            program = _torch_export(model, example, OUTPUT_NAMES[spec.task])
            program.model.metadata_props.update(_metadata(model, spec))
            weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
            program.save(temporary, external_data=weights > LARGEST_FILE)
            return verify(model, OnnxNetwork.load(temporary))
    finally:
        model.train(training)


def _torch_export(model: nn.Module, example: torch.Tensor, output: str) -> Any:  # noqa: ANN401 - torch's ONNXProgram
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=[output],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"torch cannot export the network: {str(error).splitlines()[0]}") from error
    return program


def _metadata(model: nn.Module, spec: ArchSpec) -> dict[str, str]:
    preprocessing: Any = getattr(model, "pretrained_cfg", None) or pretrained_cfg(spec)
    return {
        "scalenet_zoo.spec": json.dumps(spec.model_dump(mode="json")),
        "scalenet_zoo.spec_hash": spec.hash,
        "scalenet_zoo.preprocessing": json.dumps(preprocessing | {"num_classes": spec.classes}),
        "scalenet_zoo.versions": json.dumps({"scalenet_zoo": __version__, "torch": torch.__version__}),
    }


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file that `export_onnx` wrote, open in ONNX Runtime on the CPU."""

    session: onnxruntime.InferenceSession
    spec: ArchSpec
    pretrained_cfg: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> OnnxNetwork:
        """Open a file; it runs on as many threads as torch does.

        Raises:
            InputError: the file is no ONNX file, or not one of ours.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own types derive from Exception only
            raise InputError(f"{path}: cannot be opened by ONNX Runtime: {str(error).splitlines()[0]}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        try:
            spec, cfg = (json.loads(metadata[f"scalenet_zoo.{key}"]) for key in ("spec", "preprocessing"))
        except (KeyError, ValueError):
            raise InputError(f"{path}: found no spec in its metadata, expected a file that `export` wrote") from None
        spec = ArchSpec.from_dict(spec, source=str(path))
        shape = session.get_inputs()[0].shape[1:]
        if shape != [spec.input.channels, spec.input.height, spec.input.width]:
            raise InputError(f"{path}: found images of {shape} in the graph, expected those of its spec")
        return cls(session, spec, cfg)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 (n, channels, height, width) -> the network's output."""
        (output,) = self.session.run(None, {"image": images})
        return np.asarray(output)
