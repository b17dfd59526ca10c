"""ONNX files from any source, and the files beside them that they may read.

Weights of more than 2 GB are in other files, "external data", which a graph names. As in ONNX Runtime, these must be
regular files in the folder of the ONNX file or below it, after all links are followed. So a graph can make us read
neither /dev/zero nor somebody's keys.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from scalenet_zoo.core.bounds import ONNX_BYTES
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_bytes, regular_file
from scalenet_zoo.core.memory import check_memory
from scalenet_zoo.core.quoting import quoted

_PACKED = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}
"""The bits of types of which one byte holds several values."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file without its external data, whose places and sizes have been checked.

    Attributes:
        path: the path of the file.
        content: its bytes.
        model: its parsed content.
        external: the files beside it that hold weights, by their names in the graph.
    """

    path: Path
    content: bytes
    model: onnx.ModelProto
    external: dict[str, Path]

    @classmethod
    def read(cls, path: str | Path) -> OnnxFile:
        """Read a file, and check the external data that it names.

        Raises:
            InputError: the file cannot be read, is not ONNX, or names external data that it may not read.
            BackendError: its external data do not fit into memory.
        """
        path = Path(path)
        try:
            content = read_bytes(path, ONNX_BYTES)
            model = onnx.load_model_from_string(content)
            if not model.HasField("graph"):
                raise InputError(f"{path}: cannot be read as ONNX: found no graph in it")
            external = _external_data(model, path)
        except DecodeError:
            raise InputError(f"{path}: cannot be read as ONNX: the file is incomplete, or not ONNX") from None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        if external:
            check_memory(sum(file.stat().st_size for file in set(external.values())), f"{path}: its external data")
        return cls(path, content, model, external)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file's bytes followed by those of its external data."""
        digest = hashlib.sha256(self.content)
        for name in sorted(self.external):
            with self.external[name].open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The graph's inputs without its weights, which old files list among the inputs."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return [value for value in self.model.graph.input if value.name not in weights]

    @property
    def entries(self) -> dict[str, str]:
        """Its metadata.

        Raises:
            InputError: a key occurs twice.
        """
        entries: dict[str, str] = {}
        for entry in self.model.metadata_props:
            if entry.key in entries:
                raise InputError(f"{self.path}: found the key {quoted(entry.key)} twice in its metadata, expected once")
            entries[entry.key] = entry.value
        return entries


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the shape of an input or output, with None for an axis without a fixed size."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def _external_data(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Find and check the external data of every tensor anywhere in the model."""
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        place = _place(tensor)
        name = place.get("location", "")
        if name not in files:
            files[name] = _inside(path.parent, name)
            sizes[name] = _size(files[name], name)
        start = _number(place, "offset", 0)
        length = _number(place, "length", needed := _bytes(tensor))
        if length != needed or start + length > sizes[name]:
            raise ValueError(
                f"{quoted(tensor.name)}: found {length:,} bytes at offset {start:,} in the {sizes[name]:,} bytes of"
                f" {quoted(name)}, expected {needed:,} within it"
            )
    return files


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Yield every tensor in a message: weights, sparse weights, attributes, and tensors in subgraphs and functions.

    Raises:
        ValueError: a text is not UTF-8, which protobuf accepts.
    """
    if isinstance(message, TensorProto):
        yield message  # it contains no other tensors
        return
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for child in (value,) if isinstance(value, Message) else value:
                yield from _tensors(child)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ValueError(f"{field.name}: found {quoted(text)}, expected UTF-8 text")


def _place(tensor: TensorProto) -> dict[str, str]:
    place = {entry.key: entry.value for entry in tensor.external_data}
    texts = (tensor.name, *place, *place.values())
    if len(place) < len(tensor.external_data) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{quoted(tensor.name)}: found repeated keys or invalid text in its external data, expected unique keys"
            " and UTF-8"
        )
    return place


def _inside(folder: Path, name: str) -> Path:
    """Find the file that a name stands for; with links followed, it must be in the folder or below it."""
    try:
        root, found = folder.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # circular links, or a null character in the name
        root, found = folder, Path()
    if not name or "\\" in name or Path(name).is_absolute() or not found.is_relative_to(root):
        raise ValueError(f"found external data in {quoted(name)}, expected a file in the ONNX file's folder")
    return found


def _size(path: Path, name: str) -> int:
    try:
        return regular_file(path)
    except ValueError as error:
        raise ValueError(f"external data in {quoted(name)}: {error}") from None


def _number(place: dict[str, str], key: str, otherwise: int) -> int:
    if not re.fullmatch(r"\d{1,19}", digits := place.get(key, str(otherwise)), re.ASCII):
        raise ValueError(f"external data: {key}: found {quoted(digits)}, expected a number of bytes")
    return int(digits)


def _bytes(tensor: TensorProto) -> int:
    """Compute the bytes of a tensor's numbers."""
    try:
        kind = TensorProto.DataType.Name(tensor.data_type)
        bits = _PACKED.get(kind) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError):
        kind, bits = str(tensor.data_type), 0
    if kind in ("UNDEFINED", "STRING") or not bits or any(size < 0 for size in tensor.dims):
        raise ValueError(f"{quoted(tensor.name)}: found {kind} {list(tensor.dims)[:8]}, expected numbers")
    return -(-math.prod(tensor.dims) * bits // 8)
