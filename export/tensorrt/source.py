"""The ONNX file that an engine is built from: its name for the input, shapes, precision, and what it says of itself."""

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
    """What matters here of an ONNX file.

    Attributes:
        path: of the file.
        sha256: of its bytes, and of its external data's.
        entries: its metadata, those of ours.
        metadata: the same, read; None if the file is not one of ours.
        precision: int8 with quantised tensors, fp16 with weights in half precision, else fp32.
        input: the name of its input.
        shape: of the input; a batch of None is any.
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
        """Read a file, and of its external data what their hash needs.

        Raises:
            InputError: it cannot be read, names external data that it may not have, or is not what its metadata say.
            EngineError: it is not a network with one input and one output.
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
                f"{path}: {inputs[0].name}: found an axis of no fixed size, expected it for the batch alone"
            )
        return cls(path, file.sha256, entries, metadata, _precision(graph), inputs[0].name, shape)

    def choose_batch(self, asked: BatchSizes | None) -> BatchSizes:
        """The smallest, optimal and largest batch, as asked or as the file was exported for.

        Raises:
            EngineError: the file was not exported for what is asked.
        """
        allowed = self.metadata.options.batch if self.metadata else None
        if (fixed := self.shape[0]) is not None:
            allowed = (fixed, fixed, fixed)
        batch = asked or allowed or ANY_BATCH
        if allowed and not allowed[0] <= batch[0] <= batch[2] <= allowed[2]:
            found, expected = (":".join(map(str, sizes)) for sizes in (batch, allowed))
            raise EngineError(f"batch: found {found}, expected {expected} or within it, which {self.path} is for")
        return batch

    def profile(self, options: EngineOptions) -> OptimizationProfile:
        """The shapes of the input for these batches."""
        assert options.batch is not None
        rest = [size for size in self.shape[1:] if size is not None]
        smallest, optimal, largest = ((size, *rest) for size in options.batch)
        return OptimizationProfile(tensor=self.input, smallest=smallest, optimal=optimal, largest=largest)


def _precision(graph: onnx.GraphProto) -> Precision:
    if any(node.op_type == "DequantizeLinear" for node in graph.node):
        return "int8"
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return "fp16" if half else "fp32"
