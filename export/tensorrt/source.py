"""The ONNX file that an engine is built from: the name and shape of its input, its precision and its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import EngineError
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.onnx_file import OnnxFile, shape_of
from scalenet_zoo.export.tensorrt.record import ANY_BATCH, BatchSizes, EngineOptions, OptimizationProfile


@dataclass(frozen=True)
class EngineSource:
    """The facts about an ONNX file that the build of an engine needs.

    Attributes:
        path: the path of the file.
        sha256: the SHA-256 of its bytes and of its external data.
        entries: the metadata entries that `export` wrote.
        metadata: the parsed metadata; None: `export` did not write the file.
        precision: int8 if it has quantised tensors, fp16 if it has float16 weights, else fp32.
        input: the name of its input.
        shape: the shape of the input; if the first axis is None, any batch size.
    """

    path: Path
    sha256: str
    entries: dict[str, str]
    metadata: Metadata | None
    precision: Precision
    input: str
    shape: tuple[int | None, ...]

    @classmethod
    def read(cls, path: Path) -> EngineSource:
        """Read a file; its external data are only hashed.

        Raises:
            InputError: the file cannot be read, names external data that it may not read, or is not what its metadata
                say.
            EngineError: it is not a network with one input and one output, has open axes other than the batch, or is
                int8 for another back end.
            BackendError: its external data do not fit into memory.
        """
        file = OnnxFile.read(path)
        graph, inputs = file.model.graph, file.inputs
        if len(inputs) != 1 or len(graph.output) != 1:
            raise EngineError(
                f"{path}: found {len(inputs)} inputs and {len(graph.output)} outputs, expected one of each"
            )
        entries = {key: value for key, value in file.entries.items() if key.startswith("scalenet_zoo.")}
        metadata = Metadata.of(file) if entries else None
        if metadata and metadata.options.doubt("tensorrt"):  # TensorRT takes no bytes with zero points
            raise EngineError(f"{path}: found int8 made for {metadata.options.target}, expected it for tensorrt (`on`)")
        shape = shape_of(inputs[0])
        if not shape or None in shape[1:]:
            raise EngineError(
                f"{path}: {inputs[0].name}: found an axis without a fixed size, expected fixed sizes except for the"
                " batch"
            )
        return cls(path, file.sha256, entries, metadata, _precision(graph), inputs[0].name, shape)

    def choose_batch(self, asked: BatchSizes | None) -> BatchSizes:
        """Choose the smallest, optimal and largest batch size: as requested, or as the file was exported for.

        Raises:
            EngineError: the file was not exported for the requested batch sizes.
        """
        allowed = self.metadata.options.batch if self.metadata else None
        if (fixed := self.shape[0]) is not None:
            allowed = (fixed, fixed, fixed)
        batch = asked or allowed or ANY_BATCH
        if allowed and not allowed[0] <= batch[0] <= batch[2] <= allowed[2]:
            found, expected = (":".join(map(str, sizes)) for sizes in (batch, allowed))
            raise EngineError(f"batch: found {found}, expected {expected} or within it, as in {self.path}")
        return batch

    def profile(self, options: EngineOptions) -> OptimizationProfile:
        """Make the shapes of the input for the batch sizes of the options."""
        assert options.batch is not None
        rest = [size for size in self.shape[1:] if size is not None]
        smallest, optimal, largest = ((size, *rest) for size in options.batch)
        return OptimizationProfile(tensor=self.input, smallest=smallest, optimal=optimal, largest=largest)


def _precision(graph: onnx.GraphProto) -> Precision:
    if any(node.op_type == "DequantizeLinear" for node in graph.node):
        return "int8"
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return "fp16" if half else "fp32"
