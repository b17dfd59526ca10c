"""What an exported file says of itself in its metadata: spec, preprocessing, class names, versions and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
from google.protobuf.message import DecodeError
from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from scalenet_zoo.errors import ExportError, InputError, SpecError
from scalenet_zoo.labels import Labels
from scalenet_zoo.spec import ArchSpec, Strict, Task

Precision = Literal["fp32", "fp16", "int8"]
Output = Literal["raw", "softmax", "argmax", "joints"]
OUTPUT_TASKS: dict[Output, Task] = {"softmax": "classification", "argmax": "segmentation", "joints": "pose"}


def _ordered(batch: tuple[int, int, int]) -> tuple[int, int, int]:
    if list(batch) != sorted(batch):
        raise ValueError("expected the smallest, the optimal and the largest batch in this order")
    return batch


BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Batch = Annotated[tuple[BatchSize, BatchSize, BatchSize], AfterValidator(_ordered)]


class OnnxOptions(Strict):
    """How a network becomes a graph.

    Attributes:
        precision: fp16: weights and activations are halves; int8: those of convolutions and linear layers are bytes.
        batch: the smallest, optimal and largest batch, all equal for a fixed one; None: any.
        preprocess: the graph takes uint8 (batch, height, width, channels) and normalises it.
        output: raw: as the network gives it; softmax: probabilities; argmax: the class of each pixel;
            joints: x and y as shares of the image's width and height, and score.
        io: the type of float inputs and outputs of an fp16 graph.
        keep_fp32: operators that an fp16 graph computes in fp32, by their names in ONNX.
    """

    precision: Precision = "fp32"
    batch: Batch | None = None
    preprocess: bool = False
    output: Output = "raw"
    io: Literal["fp32", "fp16"] = "fp32"
    keep_fp32: tuple[str, ...] = ()

    def check(self, spec: ArchSpec) -> None:
        """Compare with what a network is.

        Raises:
            ExportError: the options contradict one another, or do not fit the network.
        """
        if self.precision != "fp16" and (self.io == "fp16" or self.keep_fp32):
            raise ExportError(f"precision: found {self.precision} with io or keep_fp32, expected them with fp16 alone")
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
class Metadata:
    """What stands in `metadata_props` of an ONNX file of ours, under `scalenet_zoo.`, and beside an engine.

    Attributes:
        spec: of the network.
        pretrained_cfg: how images are prepared.
        options: of the export.
        class_names: one a class, or none where they are not known.
        versions: of the packages that wrote the file.
    """

    spec: ArchSpec
    pretrained_cfg: dict[str, Any]
    options: OnnxOptions
    class_names: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one image, as the graph takes it."""
        size = self.spec.input
        if self.options.preprocess:
            return size.height, size.width, size.channels
        return size.channels, size.height, size.width

    @classmethod
    def read(cls, path: str | Path) -> Metadata:
        """Of an ONNX file.

        Raises:
            InputError: the file cannot be read, or is not one of ours.
        """
        try:
            model = onnx.load(path, load_external_data=False)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except DecodeError:
            raise InputError(f"{path}: cannot be read as ONNX, expected a whole file that `export` wrote") from None
        return cls.parse({entry.key: entry.value for entry in model.metadata_props}, str(path))

    @classmethod
    def parse(cls, entries: Mapping[str, str], source: str) -> Metadata:
        """From the entries that `entries` gives; `source` names them in errors.

        Raises:
            InputError: there are none, or they are not valid.
        """
        values = {key.removeprefix("scalenet_zoo."): value for key, value in entries.items()}
        if "spec" not in values:
            raise InputError(f"{source}: found no spec in its metadata, expected a file that `export` wrote")
        try:
            spec = ArchSpec.from_dict(json.loads(values["spec"]), source)
            found = cls(
                spec=spec,
                pretrained_cfg=_OBJECT.validate_json(values["preprocessing"]),
                options=OnnxOptions.model_validate_json(values.get("export", "{}")),
                class_names=_NAMES.validate_json(values.get("classes", "[]")),
                versions=_VERSIONS.validate_json(values.get("versions", "{}")),
            )
            found.options.check(spec)
            Labels.of(found.pretrained_cfg)
        except KeyError:
            raise InputError(f"{source}: found no preprocessing in its metadata") from None
        except ValidationError as error:
            details = error.errors(include_url=False)[0]
            raise InputError(f"{source}: found metadata that are not valid: {details['msg']}") from None
        except SpecError as error:
            raise InputError(str(error)) from None
        except (ValueError, ExportError) as error:
            raise InputError(f"{source}: found metadata that are not valid: {error}") from None
        if values.get("spec_hash", spec.hash) != spec.hash:
            raise InputError(f"{source}: found the spec's hash {values['spec_hash']}, expected {spec.hash}")
        return found

    def entries(self) -> dict[str, str]:
        """The entries as they stand in a file."""
        return {
            "scalenet_zoo.spec": json.dumps(self.spec.model_dump(mode="json")),
            "scalenet_zoo.spec_hash": self.spec.hash,
            "scalenet_zoo.preprocessing": json.dumps(self.pretrained_cfg),
            "scalenet_zoo.export": self.options.model_dump_json(),
            "scalenet_zoo.versions": json.dumps(dict(self.versions)),
            **({"scalenet_zoo.classes": json.dumps(self.class_names)} if self.class_names else {}),
        }


_OBJECT = TypeAdapter(dict[str, JsonValue])
_NAMES = TypeAdapter(tuple[str, ...])
_VERSIONS = TypeAdapter(dict[str, str])
