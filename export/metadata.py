"""The metadata of exported files: spec, preprocessing, class names, versions and options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from onnx import TensorProto
from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.backends import Precision, TargetBackend
from scalenet_zoo.core.bounds import JSON_BYTES
from scalenet_zoo.core.documents import Strict, first_complaint
from scalenet_zoo.core.errors import ExportError, InputError, SpecError
from scalenet_zoo.core.files import parse_json
from scalenet_zoo.core.quoting import printable, quoted
from scalenet_zoo.export.onnx_file import OnnxFile, shape_of
from scalenet_zoo.zoo.interface import Interface

Calibrator = Literal["minmax", "percentile", "entropy"]
Output = Literal["raw", "softmax", "argmax", "joints"]
TensorType = Literal["uint8", "fp16", "fp32", "int32"]
OUTPUT_TASKS: dict[Output, Task] = {"softmax": "classification", "argmax": "segmentation", "joints": "pose"}


def _ordered(batch: tuple[int, int, int]) -> tuple[int, int, int]:
    if list(batch) != sorted(batch):
        raise ValueError("expected the smallest, optimal and largest batch size, in ascending order")
    return batch


BatchSize = Annotated[int, Field(ge=1, le=65_536)]
BatchRange = Annotated[tuple[BatchSize, BatchSize, BatchSize], AfterValidator(_ordered)]


class OnnxOptions(Strict):
    """How a network is exported to a graph.

    Attributes:
        precision: fp16: weights and activations are float16; int8: those of convolutions and linear layers are bytes.
        batch: the smallest, optimal and largest batch size, all equal for a fixed one; None: any.
        preprocess: the graph takes uint8 images (batch, height, width, channels) and normalises them.
        output: raw: the network's own output; softmax: probabilities; argmax: the class of each pixel;
            joints: x and y as shares of the image's width and height, and score.
        io: the type of the float inputs and outputs of an fp16 graph.
        keep_fp32: what stays in fp32: operators by their names in ONNX (`Softmax`); in an int8 graph also layers, by
            their names in the network (`stem`, `stages.1.0`).
        target: the back end that an int8 graph is for; None: TensorRT, as in files from before this option.
        activation_bits: the bits of an int8 graph's activations; ONNX Runtime computes 16-bit ones in fp32.
        calibrator: how the ranges of an int8 graph are found; None before an export: the calibrator that agrees best.
    """

    precision: Precision = "fp32"
    batch: BatchRange | None = None
    preprocess: bool = False
    output: Output = "raw"
    io: Literal["fp32", "fp16"] = "fp32"
    keep_fp32: tuple[str, ...] = ()
    target: TargetBackend | None = None
    activation_bits: Literal[8, 16] = 8
    calibrator: Calibrator | None = None

    def doubt(self, backend: str) -> str | None:
        """Explain why an int8 file may not suit a back end; return None if it does.

        Args:
            backend: the name of the back end.
        """
        made_for = self.target or "tensorrt"
        if self.precision != "int8" or backend in _SUITED[made_for]:
            return None
        return f"found int8 made for {made_for}, which may be slow or less exact on {backend}: export it for that one"

    def check(self, spec: ArchSpec) -> None:
        """Check that the options fit one another and the network.

        Raises:
            ExportError: the options contradict one another, or do not fit the network.
        """
        if self.precision != "fp16" and self.io == "fp16":
            raise ExportError(f"precision: found {self.precision} with io, expected fp16")
        if self.precision == "fp32" and self.keep_fp32:
            raise ExportError("precision: found fp32 with keep_fp32, expected fp16 or int8")
        if self.precision != "int8" and (self.target or self.calibrator or self.activation_bits != 8):
            raise ExportError(
                f"precision: found {self.precision} with target, calibrator or activation_bits, expected int8"
            )
        if self.activation_bits == 16 and self.target != "ort-cpu":
            raise ExportError(f"activation_bits: found 16 for {self.target or 'tensorrt'}, expected 8 or ort-cpu")
        if self.output != "raw" and not (spec.task == OUTPUT_TASKS[self.output] and spec.classes):
            raise ExportError(
                f"output: found {self.output} for {spec.name} ({spec.task}, {spec.classes} classes), expected a network"
                f" for {OUTPUT_TASKS[self.output]} with classes"
            )
        if self.output == "joints" and spec.bottom_up:
            raise ExportError(f"output: found joints for {spec.name}, which finds several people, expected raw")
        if self.preprocess and spec.input.channels not in (1, 3):
            raise ExportError(f"preprocess: found {spec.input.channels} channels in {spec.name}, expected 1 or 3")


@dataclass(frozen=True)
class Tensor:
    """The input or the output that an exported graph should have.

    Attributes:
        name: its name in the graph.
        type: the type of its elements.
        shape: its shape for one image.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output that a graph has.

    Attributes:
        name: its name in the graph.
        type: the type of its elements: a `TensorType` or "another type".
        shape: its shape for a batch; None: an axis without a fixed size.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = "x".join("any" if size is None else str(size) for size in self.shape)
        return f"{printable(self.name)}, {self.type} of {sizes or 'one'}"


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file: `metadata_props` under `scalenet_zoo.` in ONNX, in an IR, or beside an engine.

    Attributes:
        spec: the spec of the network.
        interface: how images are prepared, and what the network's outputs mean.
        options: the options of the export.
        class_names: one name per class, or none if they are not known.
        versions: the versions of the packages that wrote the file.
        timm: the other entries of timm's dict for the network, such as where its weights are published.
    """

    spec: ArchSpec
    interface: Interface
    options: OnnxOptions
    class_names: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    timm: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, in the form that the graph takes."""
        size = self.spec.input
        if self.options.preprocess:
            return size.height, size.width, size.channels
        return size.channels, size.height, size.width

    @property
    def real(self) -> TensorType:
        """The type of the graph's float inputs and outputs."""
        return self.options.io

    @property
    def input(self) -> Tensor:
        """The input that the graph should have."""
        return Tensor("image", "uint8" if self.options.preprocess else self.real, self.image_shape)

    @property
    def output(self) -> Tensor:
        """The output that the graph should have."""
        spec, kind = self.spec, self.options.output
        raw = "heatmaps" if spec.task == "pose" else "logits"
        name = {"raw": raw, "softmax": "probabilities", "argmax": "classes", "joints": "joints"}[kind]
        channels, height, width = spec.trace.shapes[spec.trace.output]
        shape = {
            "raw": (channels,) if spec.task == "classification" else (channels, height, width),
            "softmax": (channels,),
            "argmax": (height, width),
            "joints": (channels, 3),
        }[kind]
        return Tensor(name, "int32" if kind == "argmax" else self.real, shape)

    @classmethod
    def read(cls, path: str | Path) -> Metadata:
        """Read the metadata of an ONNX file, and check its graph against them.

        Raises:
            InputError: the file cannot be read, `export` did not write it, or its graph is not what its metadata say.
            BackendError: its external data do not fit into memory.
        """
        return cls.of(OnnxFile.read(path))

    @classmethod
    def of(cls, file: OnnxFile) -> Metadata:
        """Read the metadata of an ONNX file that is in memory, and check its graph against them.

        Raises:
            InputError: as for `read`.
        """
        metadata = cls.parse(file.entries, str(file.path))
        metadata.check_graph(file)
        return metadata

    def check_graph(self, file: OnnxFile) -> None:
        """Check the names, types, shapes and batches of an ONNX graph's inputs and outputs against these metadata.

        Raises:
            InputError: they differ.
        """
        inputs, outputs = (
            [Port(v.name, _TYPES.get(v.type.tensor_type.elem_type, "another type"), shape_of(v)) for v in values]
            for values in (file.inputs, file.model.graph.output)
        )
        self.check_ports(file.path, inputs, outputs)

    def check_ports(self, path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """Check the inputs and outputs of a graph in any format against these metadata.

        Args:
            path: the file, for errors.
            inputs: the inputs that the graph has.
            outputs: the outputs that the graph has.

        Raises:
            InputError: they differ.
        """
        smallest, _, largest = self.options.batch or (1, 1, None)
        batch = smallest if smallest == largest else None
        for side, ports, tensor in (("input", inputs, self.input), ("output", outputs, self.output)):
            if len(ports) != 1:
                raise InputError(f"{path}: found {len(ports)} {side}s, expected one")
            port, shape = ports[0], ports[0].shape
            open_axes = side == "output"  # their sizes may be computed at run time; those of images must be known
            fits = shape[:1] == (batch,) and len(shape) == 1 + len(tensor.shape)
            fits &= all(a == b or (open_axes and a is None) for a, b in zip(shape[1:], tensor.shape, strict=False))
            if not fits or (port.name, port.type) != (tensor.name, tensor.type):
                raise InputError(
                    f"{path}: {side}: found {port} in the graph, expected"
                    f" {Port(tensor.name, tensor.type, (batch, *tensor.shape))}, as its metadata say"
                )

    @classmethod
    def parse(cls, entries: Mapping[str, str], source: str) -> Metadata:
        """Read metadata from the entries of a file, in the form that `entries` returns.

        Args:
            entries: the names and values of the entries.
            source: the file, for errors.

        Raises:
            InputError: there are no such entries, or they are not valid.
        """
        if f"{_PREFIX}spec" not in entries:
            raise InputError(f"{source}: found no spec in its metadata, expected a file that `export` wrote")
        if f"{_PREFIX}preprocessing" not in entries:
            raise InputError(f"{source}: found no preprocessing in its metadata, expected a file that `export` wrote")
        key = "spec"
        try:
            spec = ArchSpec.from_dict(_value(entries, key), source)
            options = _OPTIONS.validate_json(_json(entries, key := "export", "{}"))
            options.check(spec)
            cfg = _OBJECT.validate_json(_json(entries, key := "preprocessing"))
            interface = Interface.of_timm(cfg, spec, f"{source}: {_about(key)}")
            names = _NAMES.validate_json(_json(entries, key := "classes", "[]"))
            if len(names) not in (0, spec.classes):
                raise ValueError(f"found {len(names):,} names, expected {spec.classes:,}, one per class")
            versions = _VERSIONS.validate_json(_json(entries, key := "versions", "{}"))
        except SpecError as error:
            raise InputError(str(error)) from None
        except ValidationError as error:
            raise InputError(f"{source}: {_about(key)}: {first_complaint(error)}") from None
        except (ValueError, ExportError) as error:
            raise InputError(f"{source}: {_about(key)}: {error}") from None
        if entries.get(f"{_PREFIX}spec_hash", spec.hash) != spec.hash:
            stated = quoted(entries[f"{_PREFIX}spec_hash"])
            raise InputError(f"{source}: found the spec's hash {stated}, expected {spec.hash}")
        return cls(spec, interface, options, names, versions, cfg)

    def entries(self) -> dict[str, str]:
        """Format the metadata as the entries of a file."""
        return {
            "scalenet_zoo.spec": json.dumps(self.spec.model_dump(mode="json")),
            "scalenet_zoo.spec_hash": self.spec.hash,
            "scalenet_zoo.preprocessing": json.dumps(self.interface.to_timm(self.spec, self.timm)),
            "scalenet_zoo.export": self.options.model_dump_json(),
            "scalenet_zoo.versions": json.dumps(dict(self.versions)),
            **({"scalenet_zoo.classes": json.dumps(self.class_names)} if self.class_names else {}),
        }


def _json(entries: Mapping[str, str], key: str, otherwise: str = "") -> str:
    """Return an entry as JSON text, after a check of its size and strict parsing."""
    return json.dumps(_value(entries, key, otherwise))


def _value(entries: Mapping[str, str], key: str, otherwise: str = "") -> object:
    text = entries.get(f"{_PREFIX}{key}", otherwise)
    if len(text) > JSON_BYTES:
        raise ValueError(f"found {len(text):,} characters, expected at most {JSON_BYTES:,}")
    return parse_json(text)


def _about(key: str) -> str:
    return f"found metadata that are not valid: {key}"


_PREFIX = "scalenet_zoo."
_TYPES: Mapping[int, str] = {
    TensorProto.UINT8: "uint8",
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
    TensorProto.INT32: "int32",
}
_ON_TENSORRT = ("tensorrt", "tensorrt-rtx", "ort-tensorrt")
_SUITED: Mapping[TargetBackend, tuple[str, ...]] = {
    "ort-cpu": ("ort-cpu",),
    "openvino": ("openvino",),
    "tensorrt": _ON_TENSORRT,
    "tensorrt-rtx": _ON_TENSORRT,
}
"""The back ends that suit an int8 file, by the target that it was made for."""
_OPTIONS = TypeAdapter(OnnxOptions)
_OBJECT = TypeAdapter(dict[str, JsonValue])
_NAMES = TypeAdapter(tuple[str, ...])
_VERSIONS = TypeAdapter(dict[str, str])
