"""ONNX files of ours, open in ONNX Runtime."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import torch
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.processing import AROUND

from scalenet_zoo.errors import InputError
from scalenet_zoo.spec import ArchSpec


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file that `export_onnx` wrote, open in ONNX Runtime on the CPU.

    Attributes:
        session: ONNX Runtime's own.
        metadata: what the file says of itself.
    """

    session: onnxruntime.InferenceSession
    metadata: Metadata

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
        metadata = Metadata.parse(session.get_modelmeta().custom_metadata_map, str(path))
        if (shape := session.get_inputs()[0].shape[1:]) != list(metadata.image_shape):
            raise InputError(f"{path}: found images of {shape} in the graph, expected those of its spec")
        return cls(session, metadata)

    @classmethod
    def load_inner(cls, path: str | Path) -> OnnxNetwork:
        """Open the network alone in a file: float32 images in, its raw output out, nothing around it.

        Raises:
            InputError: as `load`.
        """
        metadata = Metadata.read(path)
        graph = onnx.load(path, load_external_data=False).graph
        before, after = ([node for node in graph.node if node.name.startswith(f"{part}/")] for part in AROUND)
        inside = {tensor.name for tensor in graph.initializer} | {name for node in after for name in node.output}
        images = [name for node in before for name in node.output][-1:] or [graph.input[0].name]
        output = [name for node in after for name in node.input if name not in inside][:1] or [graph.output[0].name]
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "inner.onnx"
            onnx.utils.extract_model(path, inner, images, output, check_model=False)
            model = onnx.load(inner)
            options = metadata.options.model_copy(update={"preprocess": False, "output": "raw"})
            onnx.helper.set_model_props(model, replace(metadata, options=options).entries())
            onnx.save(model, inner, save_as_external_data=True)
            return cls.load(inner)

    @property
    def spec(self) -> ArchSpec:
        """The network's spec."""
        return self.metadata.spec

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output for a batch of images, float32 or, of classes, int32.

        Args:
            images: as `inputs.file_input` makes them.
        """
        dtype = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        source = self.session.get_inputs()[0]
        output = np.asarray(self.session.run(None, {source.name: images.astype(dtype[source.type], copy=False)})[0])
        return output.astype(np.float32, copy=False) if output.dtype == np.float16 else output
