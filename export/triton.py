"""Model repositories for NVIDIA's Triton Inference Server, from exported ONNX files and engines.

REPOSITORY/NAME/config.pbtxt            the server's configuration: tensors, batches
REPOSITORY/NAME/labels.txt              one class per line, if the file names its classes
REPOSITORY/NAME/1/model.onnx or model.plan
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf.text_encoding import CEscape

from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.core.file_kinds import ENGINE, exported_kind
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quoting import printable, quoted
from scalenet_zoo.export.metadata import Metadata, Tensor, TensorType
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.tensorrt.record import ANY_BATCH, BatchSizes, EngineRecord, read_engine

QUEUE_DELAY_US = 1_000
"""Microseconds that a request waits for others to share its batch."""

_TYPES: Mapping[TensorType, str] = {
    "uint8": "TYPE_UINT8",
    "fp16": "TYPE_FP16",
    "fp32": "TYPE_FP32",
    "int32": "TYPE_INT32",
}


def write_model_repository(source: Path, repository: Path) -> Path:
    """Put an ONNX file or an engine into a model repository under its spec's name; an older one is replaced.

    Args:
        source: a file that `export` wrote; an engine must be for TensorRT, since Triton does not run TensorRT-RTX.
        repository: the folder that Triton is started with.

    Returns:
        The model's folder.

    Raises:
        InputError: the file cannot be read, or `export` did not write it.
        EngineError: the engine or its record is missing or damaged.
        ExportError: the engine is for TensorRT-RTX, or external data do not fit beside `model.onnx`.
        OutputError: the folder cannot be written.
    """
    if exported_kind(source) == ENGINE:
        record, plan = read_engine(source)
        if record.library != "tensorrt":
            raise ExportError(
                f"{source}: found an engine for {record.library}, expected one for tensorrt, which Triton runs"
            )
        return _write(repository, record.metadata, record, lambda version: _write_plan(plan, version))
    file = OnnxFile.read(source)
    return _write(repository, Metadata.of(file), None, lambda version: _write_onnx(file, version))


def _write(
    repository: Path, metadata: Metadata, record: EngineRecord | None, write_version: Callable[[Path], None]
) -> Path:
    target = repository / metadata.spec.name
    with replacing_folder(target) as folder:
        (folder / "1").mkdir()
        write_version(folder / "1")
        (folder / "config.pbtxt").write_text(configuration(target.name, metadata, record), encoding="utf-8")
        if metadata.class_names:
            labels = [f"{_label(*pair)}\n" for pair in enumerate(metadata.class_names)]
            (folder / "labels.txt").write_text("".join(labels), encoding="utf-8")
    return target


def _write_plan(plan: bytes, version: Path) -> None:
    (version / "model.plan").write_bytes(plan)


def _write_onnx(file: OnnxFile, version: Path) -> None:
    """Write an ONNX file under Triton's name for it, and its external data under their names in the graph."""
    (version / "model.onnx").write_bytes(file.content)
    for name, source in file.external.items():
        target = version / name
        if target.exists() or ".." in Path(name).parts:
            raise ExportError(
                f"{file.path}: found external data in {quoted(name)}, expected a name that fits beside model.onnx"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def configuration(name: str, metadata: Metadata, record: EngineRecord | None = None) -> str:
    """Format the text of `config.pbtxt`.

    Args:
        name: the name of the model.
        metadata: the metadata of the file.
        record: the record of the engine; None: the file is ONNX.
    """
    batch = record.batch if record else metadata.options.batch or ANY_BATCH
    backend = "tensorrt" if record else "onnxruntime"
    fixed = batch[0] == batch[2]  # then the batch is an ordinary axis, and Triton does not gather requests
    labelled = bool(metadata.class_names) and metadata.spec.task == "classification"
    labels = ' label_filename: "labels.txt"' if labelled else ""
    return "\n".join(
        [
            f"name: {_text(name)}",
            f'backend: "{backend}"',
            f"max_batch_size: {0 if fixed else batch[2]}",
            f"input [ {{ {_tensor(metadata.input, batch, fixed)} }} ]",
            f"output [ {{ {_tensor(metadata.output, batch, fixed)}{labels} }} ]",
            *([] if fixed else [_dynamic_batching(batch)]),
            "",
        ]
    )


def _tensor(tensor: Tensor, batch: BatchSizes, fixed: bool) -> str:
    shape = (batch[0], *tensor.shape) if fixed else tensor.shape
    return f"name: {_text(tensor.name)} data_type: {_TYPES[tensor.type]} dims: [ {', '.join(map(str, shape))} ]"


def _dynamic_batching(batch: BatchSizes) -> str:
    preferred = sorted({size for size in batch[1:] if size > 1})
    return (
        f"dynamic_batching {{ preferred_batch_size: [ {', '.join(map(str, preferred))} ]"
        f" max_queue_delay_microseconds: {QUEUE_DELAY_US} }}"
    )


def _text(text: str) -> str:
    """Quote a string in protobuf's text format."""
    return f'"{CEscape(text.encode(), as_utf8=False)}"'


def _label(index: int, name: str) -> str:
    """Make a class's line in labels.txt: its name with escaped line ends; if the name is blank, its number."""
    return printable(name).strip() or str(index)
