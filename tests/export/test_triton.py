"""Model repositories for Triton: the files, and a configuration that agrees with the model's file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.errors import ExportError, InputError, OutputError
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.tensorrt.record import EngineOptions, EngineRecord
from scalenet_zoo.export.triton import configuration, write_model_repository
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.networks import random_model, shallow, small
from tests.helpers.shapes import SPECS

FIELDS = {  # of Triton's model_config.proto: those used here
    "Input": {"name": "s", "data_type": "s", "dims": "i*"},
    "Output": {"name": "s", "data_type": "s", "dims": "i*", "label_filename": "s"},
    "Batching": {"preferred_batch_size": "i*", "max_queue_delay_microseconds": "i"},
    "Config": {
        "name": "s",
        "backend": "s",
        "max_batch_size": "i",
        "input": "Input*",
        "output": "Output*",
        "dynamic_batching": "Batching",
    },
}
TYPES = {"TYPE_FP32": "tensor(float)", "TYPE_FP16": "tensor(float16)", "TYPE_UINT8": "tensor(uint8)"}
TYPES["TYPE_INT32"] = "tensor(int32)"


def parse(text: str) -> Any:
    """Read a configuration with protobuf's own parser."""
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="test", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, what) in enumerate(fields.items(), start=1):
            added = message.field.add(name=field, number=number)
            added.label = kind.LABEL_REPEATED if what.endswith("*") else kind.LABEL_OPTIONAL
            types = {"s": kind.TYPE_STRING, "i": kind.TYPE_INT64}
            added.type = types.get(what.rstrip("*"), kind.TYPE_MESSAGE)
            if added.type == kind.TYPE_MESSAGE:
                added.type_name = f".test.{what.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # An enumeration's value is a bare word; the schema above has strings in its place.
    for word in TYPES:
        text = text.replace(f"data_type: {word} ", f'data_type: "{word}" ')
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Config"))())


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (SPECS["classification"], OnnxOptions()),
        (SPECS["classification"], OnnxOptions(batch=(1, 4, 16), preprocess=True, output="softmax")),
        (SPECS["classification"], OnnxOptions(batch=(2, 2, 2), precision="fp16", io="fp16")),
        (shallow("hrnet_w18"), OnnxOptions(output="argmax")),
        (shallow("hrnet_w18_pose"), OnnxOptions(output="joints")),
        (shallow("hrnet_w18_pose"), OnnxOptions()),
    ],
)
def test_the_configuration_agrees_with_the_file(spec: ArchSpec, options: OnnxOptions, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(random_model(spec), path, options)
    folder = write_model_repository(path, tmp_path / "repository")
    config = parse((folder / "config.pbtxt").read_text())
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (config.name, config.backend) == (spec.name, "onnxruntime")
    for ours, theirs in ((config.input[0], image), (config.output[0], output)):
        assert ours.name == theirs.name
        assert TYPES[ours.data_type] == theirs.type
        shape = theirs.shape if config.max_batch_size == 0 else theirs.shape[1:]
        sizes = [size if isinstance(size, int) else None for size in shape]
        assert all(size in (None, dim) for size, dim in zip(sizes, ours.dims, strict=True))
    batch = options.batch or (1, 8, 32)
    assert config.max_batch_size == (0 if options.batch == (2, 2, 2) else batch[2])
    assert list(config.dynamic_batching.preferred_batch_size) == ([] if config.max_batch_size == 0 else list(batch[1:]))
    any_batch = [2] if config.max_batch_size else []
    dtype = {"TYPE_FP32": np.float32, "TYPE_FP16": np.float16, "TYPE_UINT8": np.uint8}[config.input[0].data_type]
    found = session.run(None, {"image": np.zeros([*any_batch, *config.input[0].dims], dtype=dtype)})[0]
    assert list(found.shape) == [*any_batch, *config.output[0].dims]


@pytest.mark.parametrize("name", ["scalenet_s0", "hrnet_w18", "hrnet_w18_pose", "scalenas_p1"])
@pytest.mark.parametrize("classes", [0, 7])
def test_the_output_has_the_networks_shape(name: str, classes: int) -> None:
    with torch.device("meta"):
        model = create_model(small(name), num_classes=classes).eval()
        found = model(torch.zeros(1, 3, 64, 96)).shape[1:]
    assert Metadata(spec_of(model), Interface(), OnnxOptions()).output.shape == tuple(found)


def test_labels_are_the_class_names(s0: Path, tmp_path: Path) -> None:
    folder = write_model_repository(s0, tmp_path / "repository")
    assert folder == tmp_path / "repository" / "scalenet_s0"
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*")) == [
        "1",
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    labels = (folder / "labels.txt").read_text().splitlines()
    assert len(labels) == 1000
    assert labels[97].startswith("drake")
    assert parse((folder / "config.pbtxt").read_text()).output[0].label_filename == "labels.txt"


def test_a_label_is_a_line_whatever_it_is_called(tmp_path: Path) -> None:
    names = ("cat", "", " ", "two\nlines", "\x1b[31mred", "a\u2028b", "\u202eright to left", "Größe", "r\r")
    model = random_model(SPECS["classification"], num_classes=len(names))
    export_onnx(model, tmp_path / "a.onnx", class_names=names)
    assert Metadata.read(tmp_path / "a.onnx").class_names == names  # in JSON they stay as they are
    folder = write_model_repository(tmp_path / "a.onnx", tmp_path / "repository")
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == [
        "cat",
        "1",
        "2",
        r"two\nlines",
        r"\x1b[31mred",
        r"a\u2028b",
        r"\u202eright to left",
        "Größe",
        r"r\r",
    ]


def test_names_are_escaped_in_the_configuration(s0: Path) -> None:
    name = 'a"b\\c\nd\x1be'
    assert parse(configuration(name, Metadata.read(s0))).name == name


def test_an_older_model_is_replaced_and_others_stay(s0: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "scalenet_s0" / "7").mkdir(parents=True)
    (repository / "other").mkdir()
    write_model_repository(s0, repository)
    assert sorted(path.name for path in repository.iterdir()) == ["other", "scalenet_s0"]
    assert not (repository / "scalenet_s0" / "7").exists()


def test_external_data_come_along(s0: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(onnx.load(s0), path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    folder = write_model_repository(path, tmp_path / "repository")
    assert (folder / "1" / "weights.bin").exists()
    onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("below/weights.bin", None),
        ("model.onnx", r"found external data in 'model.onnx', expected a name that fits beside model.onnx"),
        ("below/../weights.bin", r"found external data in 'below/../weights.bin', expected a name that fits"),
        ("../weights.bin", r"found external data in '../weights.bin', expected a file in the ONNX file's folder"),
    ],
)
def test_external_data_stay_in_the_models_folder(
    location: str, complaint: str | None, s0: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source" / "large.onnx"
    (source.parent / "below").mkdir(parents=True)
    onnx.save(onnx.load(s0), source, save_as_external_data=True, location="w", size_threshold=1024)
    (source.parent / "w").rename(source.parent / location)
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(model, source)
    if complaint is None:
        folder = write_model_repository(source, tmp_path / "repository")
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        assert session.get_outputs()[0].name == "logits"
        return
    with pytest.raises((ExportError, InputError), match=complaint):
        write_model_repository(source, tmp_path / "repository")
    assert list(tmp_path.rglob("config.pbtxt")) == []


def engine(folder: Path, source: Path, library: str) -> Path:
    """A fake engine, which TensorRT did not build, with a valid record."""
    import hashlib

    path = folder / "network.engine"
    path.write_bytes(b"plan")
    entries = {e.key: e.value for e in onnx.load(source).metadata_props}
    record = {
        "engine_sha256": hashlib.sha256(b"plan").hexdigest(),
        "engine_bytes": 4,
        "onnx_sha256": "0" * 64,
        "entries": entries,
        "precision": "fp32",
        "options": EngineOptions(library="tensorrt" if library == "tensorrt" else "tensorrt-rtx").model_dump(),
        "tensorrt": "10.14.1",
        "profiles": [
            {"tensor": "image", "smallest": [1, 3, 64, 96], "optimal": [4, 3, 64, 96], "largest": [8, 3, 64, 96]}
        ],
    }
    EngineRecord.from_dict(json.loads(json.dumps(record)), "record").sealed().save(folder / "network.engine.json")
    return path


def test_an_engine_of_tensorrt(s0: Path, tmp_path: Path) -> None:
    folder = write_model_repository(engine(tmp_path, s0, "tensorrt"), tmp_path / "repository")
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"
    config = parse((folder / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("tensorrt", 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]


def test_what_triton_cannot_serve_is_refused(s0: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found an engine for tensorrt-rtx, expected one for tensorrt"):
        write_model_repository(engine(tmp_path, s0, "tensorrt-rtx"), tmp_path / "repository")
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(InputError, match=r"text.onnx: cannot be read as ONNX"):
        write_model_repository(tmp_path / "text.onnx", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written: "):
        write_model_repository(s0, tmp_path / "file")


def test_the_configuration_is_stable(s0: Path) -> None:
    text = configuration("a", Metadata.read(s0))
    assert text == configuration("a", Metadata.read(s0))
    assert text.endswith("}\n")
