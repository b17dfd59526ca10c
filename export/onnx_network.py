"""Exported ONNX files, open in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import torch

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import scratch_folder
from scalenet_zoo.export.inference import checked_output, file_inference
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.processing import AROUND
from scalenet_zoo.inference.prepare import Inference


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file that `export_onnx` wrote, open in ONNX Runtime on the CPU.

    Attributes:
        session: ONNX Runtime's session.
        metadata: the file's metadata.
    """

    session: onnxruntime.InferenceSession
    metadata: Metadata

    @classmethod
    def load(cls, path: str | Path) -> OnnxNetwork:
        """Open a file; it runs on as many threads as torch does.

        Raises:
            InputError: the file is not ONNX, `export` did not write it, or its graph is not what its metadata say.
            BackendError: its external data do not fit into memory.
        """
        return cls.open(path, Metadata.read(path))

    @classmethod
    def open(cls, graph: str | Path | bytes, metadata: Metadata) -> OnnxNetwork:
        """Open a file that was checked, or a graph made from one, with these metadata; its own are not read.

        Raises:
            InputError: ONNX Runtime cannot open it.
        """
        options = metadata.options
        literal = options.precision == "int8" and options.target != "ort-cpu" and bool(options.keep_fp32)
        return cls(open_session(graph, literal), metadata)

    @classmethod
    def load_inner(cls, path: str | Path) -> OnnxNetwork:
        """Open only the network in a file, without its processing: float32 images in, the raw output out.

        Raises:
            InputError: as for `load`, or onnx cannot extract the network.
            BackendError: as for `load`.
        """
        file = OnnxFile.read(path)
        metadata, graph = Metadata.of(file), file.model.graph
        before, after = ([node for node in graph.node if node.name.startswith(f"{part}/")] for part in AROUND)
        inside = {tensor.name for tensor in graph.initializer} | {name for node in after for name in node.output}
        images = [name for node in before for name in node.output][-1:] or [graph.input[0].name]
        output = [name for node in after for name in node.input if name not in inside][:1] or [graph.output[0].name]
        options = metadata.options.model_copy(update={"preprocess": False, "output": "raw"})
        inner = replace(metadata, options=options)
        with scratch_folder() as folder:
            try:
                onnx.utils.extract_model(path, folder / "cut.onnx", images, output, check_model=False)
            except Exception as error:  # onnx's own checks, which raise other types in other versions
                raise InputError(f"{path}: cannot be taken apart by onnx: {first_line(error)}") from error
            # Weights of more than 2 GB must lie beside the graph.
            onnx.save(onnx.load(folder / "cut.onnx"), folder / "inner.onnx", save_as_external_data=True)
            return cls.open(folder / "inner.onnx", inner)

    @property
    def spec(self) -> ArchSpec:
        """The network's spec."""
        return self.metadata.spec

    def inference(self) -> Inference:
        """Make the file ready for `predict` and `evaluate`."""
        return file_inference(self.metadata, self)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on a batch of images, and return its output: float32, or int32 for classes of pixels.

        Args:
            images: the images, as `inputs.file_input` makes them.

        Raises:
            InputError: ONNX Runtime cannot run the graph, or its output does not have the shape in the metadata.
        """
        dtype = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        source = self.session.get_inputs()[0]
        batch = images.astype(dtype[source.type], copy=False)
        try:
            output = np.asarray(self.session.run(None, {source.name: batch})[0])
        except Exception as error:  # onnxruntime's own types derive from Exception only
            raise InputError(f"{self.spec.name}: cannot be run by ONNX Runtime: {first_line(error)}") from error
        return checked_output(self.metadata, output, len(images))


def open_session(graph: str | Path | bytes, literal: bool = False) -> onnxruntime.InferenceSession:
    """Open a file or graph in ONNX Runtime on the CPU, with as many threads as torch uses.

    Args:
        graph: the path of the file, or the bytes of the graph.
        literal: run quantising nodes as they are, without integer kernels. Otherwise ONNX Runtime also quantises the
            fp32 weights of layers between bytes, which other back ends leave in fp32 (see `int8_graph.shield_kept`).

    Raises:
        InputError: ONNX Runtime cannot open it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if literal:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    source = str(graph) if isinstance(graph, Path) else graph
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types derive from Exception only
        name = "a graph" if isinstance(graph, bytes) else graph
        raise InputError(f"{name}: cannot be opened by ONNX Runtime: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of a library's error that is not blank; without one, the name of its type."""
    return next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)
