"""Model repositories for NVIDIA's Triton Inference Server, from ONNX files and engines of ours.

REPOSITORY/NAME/config.pbtxt            what the server reads: tensors, batches
REPOSITORY/NAME/labels.txt              a class a line, where the file names them
REPOSITORY/NAME/1/model.onnx or model.plan
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
from scalenet_zoo.export.engine_record import ANY_BATCH, Batch, EngineRecord, read_engine
from scalenet_zoo.export.engine_source import external_files
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.processing import output_name

from scalenet_zoo._files import replacing_folder
from scalenet_zoo.errors import ExportError

QUEUE_DELAY_US = 1_000
"""Microseconds that a request waits for others to share its batch."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model, as Triton's configuration names it.

    Attributes:
        type: such as TYPE_FP32.
        shape: of one image.
    """

    name: str
    type: str
    shape: tuple[int, ...]


def write_model_repository(source: Path, repository: Path) -> Path:
    """Put an ONNX file or an engine into a model repository, under its spec's name, in place of an older one.

    Args:
        source: a file that `export` wrote; an engine must be TensorRT's: Triton does not run TensorRT-RTX.
        repository: the folder that Triton is started with.

    Returns:
        The model's folder.

    Raises:
        InputError: the file cannot be read, or is not one of ours.
        EngineError: the engine, or its record, is damaged.
        ExportError: the engine is TensorRT-RTX's.
        OutputError: the folder cannot be written.
    """
    record, plan = read_engine(source) if source.suffix == ".engine" else (None, b"")
    if record and record.library != "tensorrt":
        raise ExportError(f"{source}: found an engine of {record.library}, expected one of tensorrt, which Triton runs")
    metadata = record.metadata if record else Metadata.read(source)
    target = repository / metadata.spec.name
    with replacing_folder(target) as folder:
        version = folder / "1"
        version.mkdir()
        if record:
            (version / "model.plan").write_bytes(plan)
        else:
            _copy_onnx(source, version / "model.onnx")
        (folder / "config.pbtxt").write_text(configuration(target.name, metadata, record), encoding="utf-8")
        if metadata.class_names:
            (folder / "labels.txt").write_text("\n".join(metadata.class_names) + "\n", encoding="utf-8")
    return target


def configuration(name: str, metadata: Metadata, record: EngineRecord | None = None) -> str:
    """The text of `config.pbtxt`.

    Args:
        name: of the model.
        metadata: of the file.
        record: of the engine; None: the file is ONNX.
    """
    batch = record.batch if record else metadata.options.batch or ANY_BATCH
    backend = "tensorrt" if record else "onnxruntime"
    fixed = batch[0] == batch[2]  # then the batch is an axis like others, and requests are not gathered
    image, output = tensors(metadata)
    labelled = bool(metadata.class_names) and metadata.spec.task == "classification"
    labels = ' label_filename: "labels.txt"' if labelled else ""
    return "\n".join(
        [
            f'name: "{name}"',
            f'backend: "{backend}"',
            f"max_batch_size: {0 if fixed else batch[2]}",
            f"input [ {{ {_tensor(image, batch, fixed)} }} ]",
            f"output [ {{ {_tensor(output, batch, fixed)}{labels} }} ]",
            *([] if fixed else [_dynamic_batching(batch)]),
            "",
        ]
    )


def tensors(metadata: Metadata) -> tuple[Tensor, Tensor]:
    """The input and the output of a file."""
    spec, options = metadata.spec, metadata.options
    real = "TYPE_FP16" if options.io == "fp16" else "TYPE_FP32"
    image = Tensor("image", "TYPE_UINT8" if options.preprocess else real, metadata.image_shape)
    channels, height, width = spec.trace.shapes[spec.trace.output]
    shape = {
        "raw": (channels,) if spec.task == "classification" else (channels, height, width),
        "softmax": (channels,),
        "argmax": (height, width),
        "joints": (channels, 3),
    }[options.output]
    kind = "TYPE_INT32" if options.output == "argmax" else real
    return image, Tensor(output_name(spec, options), kind, shape)


def _tensor(tensor: Tensor, batch: Batch, fixed: bool) -> str:
    shape = (batch[0], *tensor.shape) if fixed else tensor.shape
    return f'name: "{tensor.name}" data_type: {tensor.type} dims: [ {", ".join(map(str, shape))} ]'


def _dynamic_batching(batch: Batch) -> str:
    preferred = sorted({size for size in batch[1:] if size > 1})
    return (
        f"dynamic_batching {{ preferred_batch_size: [ {', '.join(map(str, preferred))} ]"
        f" max_queue_delay_microseconds: {QUEUE_DELAY_US} }}"
    )


def _copy_onnx(source: Path, target: Path) -> None:
    """Copy an ONNX file, and its external data under the name that the graph calls them by."""
    shutil.copyfile(source, target)
    for name in external_files(onnx.load(source, load_external_data=False).graph):
        shutil.copyfile(source.parent / name, target.parent / name)
