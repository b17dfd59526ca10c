"""The ONNX file that an engine is built from: its name for the input, shapes, precision, and what it says of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from scalenet_zoo.export.engine_record import ANY_BATCH, Batch, EngineOptions, Profile
from scalenet_zoo.export.metadata import Metadata, Precision

from scalenet_zoo.errors import EngineError, InputError


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
        """Read a file, without its external data.

        Raises:
            InputError: it cannot be read.
            EngineError: it is not a network with one input and one output.
        """
        try:
            content = path.read_bytes()
            model = onnx.load_model_from_string(content)
            digest = hashlib.sha256(content)
            for name in sorted(external_files(model.graph)):
                digest.update((path.parent / name).read_bytes())
        except OSError as error:
            raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from None
        except DecodeError:
            raise InputError(f"{path}: cannot be read as ONNX: the file is not whole, or is something else") from None
        entries = {e.key: e.value for e in model.metadata_props if e.key.startswith("scalenet_zoo.")}
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise EngineError(
                f"{path}: found {len(inputs)} inputs and {len(model.graph.output)} outputs, expected one of each"
            )
        dims = inputs[0].type.tensor_type.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
        if not shape or None in shape[1:]:
            raise EngineError(
                f"{path}: {inputs[0].name}: found an axis of no fixed size, expected it for the batch alone"
            )
        metadata = Metadata.parse(entries, str(path)) if entries else None
        return cls(path, digest.hexdigest(), entries, metadata, _precision(model.graph), inputs[0].name, shape)

    def choose_batch(self, asked: Batch | None) -> Batch:
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

    def profile(self, options: EngineOptions) -> Profile:
        """The shapes of the input for these batches."""
        assert options.batch is not None
        rest = [size for size in self.shape[1:] if size is not None]
        smallest, optimal, largest = ((size, *rest) for size in options.batch)
        return Profile(tensor=self.input, smallest=smallest, optimal=optimal, largest=largest)


def external_files(graph: onnx.GraphProto) -> set[str]:
    """The names of the files beside an ONNX file that hold weights of its graph."""
    places = (place for tensor in graph.initializer for place in tensor.external_data)
    return {place.value for place in places if place.key == "location"}


def _precision(graph: onnx.GraphProto) -> Precision:
    if any(node.op_type == "DequantizeLinear" for node in graph.node):
        return "int8"
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return "fp16" if half else "fp32"
