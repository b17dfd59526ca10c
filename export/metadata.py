"""What an exported file says of itself in its metadata: spec, preprocessing, class names, versions and options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from onnx import TensorProto
from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from scalenet_zoo.arch.spec import ArchSpec, Strict, Task, first_complaint
from scalenet_zoo.core.backends import Precision, TargetBackend
from scalenet_zoo.core.bounds import JSON_BYTES
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
        raise ValueError("expected the smallest, the optimal and the largest batch in this order")
    return batch


BatchSize = Annotated[int, Field(ge=1, le=65_536)]
BatchRange = Annotated[tuple[BatchSize, BatchSize, BatchSize], AfterValidator(_ordered)]


class OnnxOptions(Strict):
    """How a network becomes a graph.

    Attributes:
        precision: fp16: weights and activations are halves; int8: those of convolutions and linear layers are bytes.
        batch: the smallest, optimal and largest batch, all equal for a fixed one; None: any.
        preprocess: the graph takes uint8 (batch, height, width, channels) and normalises it.
        output: raw: as the network gives it; softmax: probabilities; argmax: the class of each pixel;
            joints: x and y as shares of the image's width and height, and score.
        io: the type of float inputs and outputs of an fp16 graph.
        keep_fp32: what is computed in fp32: of an fp16 graph operators, by their names in ONNX (`Softmax`), of an int8
            graph layers too, by their names in the network (`stem`, `stages.1.0`).
        target: the back end that an int8 graph is for; None: there was but one, which suits TensorRT.
        activation_bits: of an int8 graph; ONNX Runtime computes in fp32 what has 16.
        calibrator: that the ranges of an int8 graph were found with; None, before an export: whichever agrees best.
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
        """What speaks against running an int8 file on a back end: it was made for another one."""
        made_for = self.target or "tensorrt"
        if self.precision != "int8" or backend in _SUITED[made_for]:
            return None
        return f"found int8 made for {made_for}, which may be slow or less exact on {backend}: export it for that one"

    def check(self, spec: ArchSpec) -> None:
        """Compare with what a network is.

        Raises:
            ExportError: the options contradict one another, or do not fit the network.
        """
        if self.precision != "fp16" and self.io == "fp16":
            raise ExportError(f"precision: found {self.precision} with io, expected it with fp16 alone")
        if self.precision == "fp32" and self.keep_fp32:
            raise ExportError("precision: found fp32 with keep_fp32, expected it with fp16 or int8")
        if self.precision != "int8" and (self.target or self.calibrator or self.activation_bits != 8):
            raise ExportError(
                f"precision: found {self.precision} with target, calibrator or activation_bits, expected them with int8"
            )
        if self.activation_bits == 16 and self.target != "ort-cpu":
            raise ExportError(f"activation_bits: found 16 for {self.target or 'tensorrt'}, expected 8, or ort-cpu")
        if self.output != "raw" and not (spec.task == OUTPUT_TASKS[self.output] and spec.classes):
            raise ExportError(
                f"output: found {self.output} for {spec.name} ({spec.task}, {spec.classes} classes), expected it for"
                f" {OUTPUT_TASKS[self.output]}"
            )
        if self.output == "joints" and spec.bottom_up:
            raise ExportError(f"output: found joints for {spec.name}, which finds several people, expected raw")
        if self.preprocess and spec.input.channels not in (1, 3):
            raise ExportError(
                f"preprocess: found {spec.input.channels} channels of {spec.name}, expected 1 or 3 to normalise"
            )


@dataclass(frozen=True)
class Tensor:
    """What goes into an exported graph, or comes out of it.

    Attributes:
        name: that the graph has for it.
        type: of its elements.
        shape: of one image.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """What a graph was found to take or to give.

    Attributes:
        name: that the graph has for it.
        type: of its elements, `TensorType` or "another type".
        shape: of the batch; None: an axis of no fixed size.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = "x".join("any" if size is None else str(size) for size in self.shape)
        return f"{printable(self.name)}, {self.type} of {sizes or 'one'}"


@dataclass(frozen=True)
class Metadata:
    """What stands in `metadata_props` of an ONNX file of ours, under `scalenet_zoo.`, in an IR and beside an engine.

    Attributes:
        spec: of the network.
        interface: how images are prepared, and what the network's outputs mean.
        options: of the export.
        class_names: one a class, or none where they are not known.
        versions: of the packages that wrote the file.
        timm: what else timm's dict of the network says, such as where its weights are published.
    """

    spec: ArchSpec
    interface: Interface
    options: OnnxOptions
    class_names: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    timm: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one image, as the graph takes it."""
        size = self.spec.input
        if self.options.preprocess:
            return size.height, size.width, size.channels
        return size.channels, size.height, size.width

    @property
    def real(self) -> TensorType:
        """The type of the graph's floats, where they go in and come out."""
        return self.options.io

    @property
    def input(self) -> Tensor:
        """What the graph takes."""
        return Tensor("image", "uint8" if self.options.preprocess else self.real, self.image_shape)

    @property
    def output(self) -> Tensor:
        """What it gives."""
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
        """Of an ONNX file.

        Raises:
            InputError: the file cannot be read, is not one of ours, or its graph is not for what its metadata say.
        """
        return cls.of(OnnxFile.read(path))

    @classmethod
    def of(cls, file: OnnxFile) -> Metadata:
        """The same of a file that was read.

        Raises:
            InputError: as `read`.
        """
        metadata = cls.parse(file.entries, str(file.path))
        metadata.check_graph(file)
        return metadata

    def check_graph(self, file: OnnxFile) -> None:
        """Compare what a graph takes and gives with what its metadata say: names, types, shapes, batches.

        Raises:
            InputError: they differ.
        """
        inputs, outputs = (
            [Port(v.name, _TYPES.get(v.type.tensor_type.elem_type, "another type"), shape_of(v)) for v in values]
            for values in (file.inputs, file.model.graph.output)
        )
        self.check_ports(file.path, inputs, outputs)

    def check_ports(self, path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """The same for what was found in a graph of any format; `path` names its file in errors.

        Raises:
            InputError: they differ.
        """
        smallest, _, largest = self.options.batch or (1, 1, None)
        batch = smallest if smallest == largest else None
        for side, ports, tensor in (("input", inputs, self.input), ("output", outputs, self.output)):
            if len(ports) != 1:
                raise InputError(f"{path}: found {len(ports)} {side}s, expected one")
            port, shape = ports[0], ports[0].shape
            open_axes = side == "output"  # their sizes are worked out when it runs; those of images must be known
            fits = shape[:1] == (batch,) and len(shape) == 1 + len(tensor.shape)
            fits &= all(a == b or (open_axes and a is None) for a, b in zip(shape[1:], tensor.shape, strict=False))
            if not fits or (port.name, port.type) != (tensor.name, tensor.type):
                raise InputError(
                    f"{path}: {side}: found {port} in the graph, expected"
                    f" {Port(tensor.name, tensor.type, (batch, *tensor.shape))}, as its metadata say"
                )

    @classmethod
    def parse(cls, entries: Mapping[str, str], source: str) -> Metadata:
        """From the entries that `entries` gives; `source` names them in errors.

        Raises:
            InputError: there are none, or they are not valid.
        """
        if f"{_PREFIX}spec" not in entries:
            raise InputError(f"{source}: found no spec in its metadata, expected a file that `export` wrote")
        if f"{_PREFIX}preprocessing" not in entries:
            raise InputError(f"{source}: found no preprocessing in its metadata")
        key = "spec"
        try:
            spec = ArchSpec.from_dict(_value(entries, key), source)
            options = _OPTIONS.validate_json(_json(entries, key := "export", "{}"))
            options.check(spec)
            cfg = _OBJECT.validate_json(_json(entries, key := "preprocessing"))
            interface = Interface.of_timm(cfg, spec, f"{source}: {_about(key)}")
            names = _NAMES.validate_json(_json(entries, key := "classes", "[]"))
            if len(names) not in (0, spec.classes):
                raise ValueError(f"found {len(names):,} names, expected {spec.classes:,}, one a class")
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
        """The entries as they stand in a file."""
        return {
            "scalenet_zoo.spec": json.dumps(self.spec.model_dump(mode="json")),
            "scalenet_zoo.spec_hash": self.spec.hash,
            "scalenet_zoo.preprocessing": json.dumps(self.interface.to_timm(self.spec, self.timm)),
            "scalenet_zoo.export": self.options.model_dump_json(),
            "scalenet_zoo.versions": json.dumps(dict(self.versions)),
            **({"scalenet_zoo.classes": json.dumps(self.class_names)} if self.class_names else {}),
        }


def _json(entries: Mapping[str, str], key: str, otherwise: str = "") -> str:
    """The text of an entry, of bounded size and strict JSON."""
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
"""Back ends that run the int8 files that are made for one of them well."""
_OPTIONS = TypeAdapter(OnnxOptions)
_OBJECT = TypeAdapter(dict[str, JsonValue])
_NAMES = TypeAdapter(tuple[str, ...])
_VERSIONS = TypeAdapter(dict[str, str])
