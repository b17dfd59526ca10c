"""OpenVINO's IR, open on the CPU with arrays in and out, and ONNX graphs prepared for one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.export.inference import checked_output, file_inference
from scalenet_zoo.export.metadata import Metadata, Port, Tensor
from scalenet_zoo.export.openvino.ir_file import IrFile
from scalenet_zoo.export.openvino.library import bind, compile_model, open_core, open_openvino, openvino_complaint
from scalenet_zoo.inference.prepare import Inference

_TYPES = {"u8": "uint8", "f16": "fp16", "f32": "fp32", "i32": "int32"}
"""OpenVINO's names of types, with ours."""


@dataclass(frozen=True)
class OpenVinoNetwork:
    """An IR that `export` wrote, open on the CPU.

    Attributes:
        compiled: OpenVINO's model, compiled for the batches that the file takes.
        metadata: the file's metadata.
    """

    compiled: Any
    metadata: Metadata

    @classmethod
    def load(cls, path: str | Path, batch: int | None = None) -> OpenVinoNetwork:
        """Open a file; it runs on as many threads as torch does.

        Args:
            path: the path of the XML file.
            batch: the only batch size to compile it for; None: all batch sizes that the file takes.

        Raises:
            InputError: the file or its weights are missing or damaged, `export` did not write them, the graph is not
                what its metadata say, or the file does not take this batch.
            BackendError: OpenVINO is not installed, or the weights do not fit into memory.
        """
        openvino, core = open_openvino(), open_core()
        file = IrFile.read(path)
        try:
            model = core.read_model(file.xml, openvino.Tensor(file.weights))
            taken, given = file.metadata.input, file.metadata.output
            file.metadata.check_ports(file.path, _ports(model.inputs, taken), _ports(model.outputs, given))
            if batch is not None:
                model.reshape([batch, *file.metadata.image_shape])
            compiled = compile_model(model, torch.get_num_threads(), file.metadata.options.precision)
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be opened by OpenVINO: {openvino_complaint(error)}") from None
        return cls(compiled, file.metadata)

    @classmethod
    def open(cls, graph: bytes | Path, metadata: Metadata) -> OpenVinoNetwork:
        """Open an ONNX graph, or an ONNX file that was checked, just as its IR would be opened.

        Raises:
            InputError: OpenVINO cannot open it.
            BackendError: OpenVINO is not installed.
        """
        try:
            model = open_core().read_model(graph)
            return cls(compile_model(model, torch.get_num_threads(), metadata.options.precision), metadata)
        except RuntimeError as error:
            name = "a graph" if isinstance(graph, bytes) else graph
            raise InputError(f"{name}: cannot be opened by OpenVINO: {openvino_complaint(error)}") from None

    @cached_property
    def _request(self) -> Any:  # noqa: ANN401 - OpenVINO is imported late
        return self.compiled.create_infer_request()

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
            InputError: OpenVINO cannot run the model, or its output does not have the shape in the metadata.
        """
        kind = np.dtype(self.compiled.input(0).element_type.to_dtype())
        batch = np.ascontiguousarray(images, kind)
        try:  # OpenVINO checks the shape only of arrays that it shares
            output = np.asarray(self._request.infer(batch, share_inputs=True)[0])
        except RuntimeError as error:
            raise InputError(f"{self.spec.name}: cannot be run by OpenVINO: {openvino_complaint(error)}") from None
        return checked_output(self.metadata, output, len(images))


def bind_file(path: Path, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Prepare an IR that `export` wrote to run on one batch repeatedly; see `library.bind`.

    Args:
        path: the path of the XML file.
        images: the batch, in the form that the file takes.

    Raises:
        InputError, BackendError: as for `OpenVinoNetwork.load`.
        RuntimeError: the images are not what the file takes.
    """
    return bind(OpenVinoNetwork.load(path, len(images)).compiled, images)


def bind_graph(
    graph: bytes | Path, images: torch.Tensor, threads: int, precision: Precision
) -> Callable[[], torch.Tensor]:
    """Prepare an ONNX graph, or an ONNX file that was checked, to run on one batch repeatedly; see `library.bind`.

    Args:
        graph: a graph in memory, or a file, whose weights may be in other files beside it.
        images: the batch, in the form that the graph takes.
        threads: CPU threads that an operator may use.
        precision: the precision of the graph.

    Raises:
        BackendError: OpenVINO is not installed.
        RuntimeError: OpenVINO cannot read or run the graph.
    """
    model = open_core().read_model(graph)
    model.reshape(list(images.shape))
    return bind(compile_model(model, threads, precision), images)


def _ports(ports: Any, expected: Tensor) -> list[Port]:  # noqa: ANN401 - OpenVINO is imported late
    """Describe a model's inputs or outputs; of several names, the expected one is taken."""
    return [
        Port(
            expected.name if expected.name in port.names else min(port.names, default=""),
            _TYPES.get(port.element_type.to_string(), "another type"),
            tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
        )
        for port in ports
    ]
