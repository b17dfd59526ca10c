"""ONNX export: what the file holds and computes, in real ONNX Runtime sessions."""

import json
import os
import re
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from scalenet_zoo import create_model, list_models, load_spec
from scalenet_zoo.arch.spec import ArchSpec, DenseHead, Input
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import BackendError, EngineError, ExportError, InputError, OutputError, VerificationError
from scalenet_zoo.data.image_files import find_images, sample_photographs
from scalenet_zoo.export import onnx as exporter
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.export.inputs import file_input, network_input
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.tensorrt.source import EngineSource
from scalenet_zoo.export.verify import TOLERANCES, run_torch
from scalenet_zoo.latency.cases import Subject
from scalenet_zoo.spaces.scalenas import Groups, MultipathSpace
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.networks import random_model, small
from tests.helpers.onnx_files import PLACES, with_external_data
from tests.helpers.shapes import SPECS


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = random_model(small("scalenet_s0"))
    path = tmp_path_factory.mktemp("onnx") / "new" / "scalenet_s0.onnx"
    check = export_onnx(model, path)
    assert check.relative < 1e-5
    assert 0 < check.exported_ms < 10_000
    assert [file.name for file in path.parent.iterdir()] == ["scalenet_s0.onnx"]  # no leftovers, no second file
    return model, path


def test_the_batch_is_dynamic_and_the_rest_is_not(exported: tuple[nn.Module, Path]) -> None:
    _, path = exported
    graph = onnx.load(path).graph
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (graph.input[0], graph.output[0])
    ]
    assert shapes == [["batch", 3, 64, 96], ["batch", 1000]]
    assert (graph.input[0].name, graph.output[0].name) == ("image", "logits")
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_any_batch_computes_what_the_network_does(exported: tuple[nn.Module, Path], batch: int) -> None:
    model, path = exported
    images = np.random.default_rng(batch).standard_normal((batch, 3, 64, 96), dtype=np.float32)
    np.testing.assert_allclose(OnnxNetwork.load(path)(images), run_torch(model, images), rtol=1e-3, atol=1e-4)


def test_metadata_hold_the_spec_and_the_preprocessing(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata["scalenet_zoo.spec_hash"] == load_spec("scalenet_s0").hash
    assert json.loads(metadata["scalenet_zoo.versions"])["torch"] == torch.__version__
    network = OnnxNetwork.load(path)
    assert network.spec == model.spec
    assert json.loads(metadata["scalenet_zoo.preprocessing"])["input_size"] == [3, 64, 96]
    assert network.metadata.interface == Interface.of(load_spec("scalenet_s0"))


@pytest.mark.parametrize(
    "spec",
    [
        SPECS["classification"],
        *(pytest.param(small(f"scalenet_s{i}"), marks=pytest.mark.slow) for i in (0, 1, 2, 3)),
    ],
    ids=lambda spec: spec.name,
)
def test_untrained_networks_export(spec: ArchSpec, tmp_path: Path) -> None:
    """Their folded biases are zeros, which torch leaves out."""
    check = export_onnx(create_model(spec), tmp_path / "untrained.onnx")
    assert check.relative < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["scalenas_s1", "scalenas_p1"])
def test_dense_networks_export(name: str, tmp_path: Path) -> None:
    spec = small(name).replace(height=66, width=100)  # sizes that no power of two divides
    model = random_model(spec)
    check = export_onnx(model, tmp_path / "dense.onnx")
    assert check.relative < 1e-4
    assert check.expected.shape == (spec.classes, 17, 25)


@pytest.mark.parametrize(
    ("head", "precision", "batch"),
    [
        ("segmentation", "fp32", (2, 2, 2)),
        pytest.param("pose", "fp16", None, marks=pytest.mark.slow),
        pytest.param("bottom_up", "int8", (1, 2, 3), marks=pytest.mark.slow),
    ],
)
def test_any_topology_exports(head: DenseHead, precision: Precision, batch: Any, tmp_path: Path) -> None:
    """Sampled topologies for images of an odd size, with blocks and paths that no output needs."""
    space = MultipathSpace(
        name="tiny",
        width=4,
        head="segmentation" if head == "segmentation" else "pose",
        modules=(1, 1, 1),
        input=Input(height=42, width=58),
        depths=(1, 2),
        groups=Groups(depths=((1, 2),), fusion=(0.5,)),
    )
    drawn = space.spec(space.sample(np.random.default_rng(1), 1)[0], classes=5)
    network = drawn.network.model_copy(update={"head": head})
    spec = ArchSpec.create(f"tiny_{head}", drawn.task, drawn.input, 5, network, drawn.provenance)
    assert (len(spec.trace.live_ops) < len(spec.trace.ops)) == (head != "segmentation")
    options = OnnxOptions(precision=precision, batch=batch)
    check = export_onnx(random_model(spec), tmp_path / "a.onnx", options, sample_photographs())
    assert check.expected.shape == {"bottom_up": (15, 22, 30)}.get(head, (5, 11, 15))
    exported = OnnxNetwork.load(tmp_path / "a.onnx")
    assert exported.spec == spec
    assert exported.session.get_inputs()[0].shape == [2 if head == "segmentation" else "batch", 3, 42, 58]
    assert exported.session.get_outputs()[0].name == ("logits" if head == "segmentation" else "heatmaps")


def test_training_mode_and_other_channels_survive(tmp_path: Path) -> None:
    model = random_model(SPECS["classification"], in_chans=4).train()
    export_onnx(model, tmp_path / "four.onnx")
    assert model.training
    assert OnnxNetwork.load(tmp_path / "four.onnx").spec.input.channels == 4


def test_wrapped_networks_are_exported_as_what_is_in_them(tmp_path: Path) -> None:
    model = random_model(SPECS["classification"])
    compiled: Any = torch.compile(model)
    export_onnx(nn.DataParallel(compiled), tmp_path / "a.onnx")
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(OnnxNetwork.load(tmp_path / "a.onnx")(images), run_torch(model, images), atol=1e-4)


@pytest.mark.parametrize("name", ["scalenet_s0", "hrnet_w18", "hrnet_w18_pose"])
@pytest.mark.parametrize(
    "stated", [{}, {"interpolation": "nearest", "mean": (0.1, 0.2, 0.3)}], ids=["as made", "changed"]
)
def test_metadata_say_how_images_are_prepared(name: str, stated: dict[str, object]) -> None:
    """A reader with nothing but the metadata, Pillow and numpy can prepare an image."""
    spec = load_spec(name).replace(height=64, width=64)
    with torch.device("meta"):
        model: Any = create_model(spec)
    model.pretrained_cfg |= stated
    metadata = exporter.metadata_of(model, OnnxOptions())
    cfg = json.loads(metadata.entries()["scalenet_zoo.preprocessing"])
    how = Image.Resampling[cfg["interpolation"].upper()]
    photograph = Image.open(sample_photographs()[0])  # 640 x 427
    if spec.task == "classification":
        high = int(64 / cfg["crop_pct"])
        wide = int(high * 640 / 427)
        left, upper = round((wide - 64) / 2), round((high - 64) / 2)
        seen = photograph.resize((wide, high), how).crop((left, upper, left + 64, upper + 64))
    else:
        assert (cfg["interpolation"], cfg["crop_pct"]) == ("bilinear", 1)
        seen = photograph.resize((64, 64), how)
    expected = ((np.asarray(seen) / 255 - cfg["mean"]) / cfg["std"]).transpose(2, 0, 1)
    np.testing.assert_allclose(network_input(metadata, sample_photographs(), 1)[0], expected, atol=1e-5)


def test_preprocessing_that_is_not_supported_is_refused(tmp_path: Path) -> None:
    model: Any = create_model(small("scalenet_s0"), num_classes=2)
    model.pretrained_cfg["crop_pct"] = 2
    with pytest.raises(ExportError, match="scalenet_s0: pretrained_cfg: crop_pct: found 2"):
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


class Liar:
    """Stands for an exported network that is wrong."""

    def __init__(self, honest: OnnxNetwork) -> None:
        self.honest, self.metadata = honest, honest.metadata

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.honest(images) + np.float32(1)


def test_a_failed_check_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    honest = OnnxNetwork.load
    monkeypatch.setattr(exporter.OnnxNetwork, "load", lambda path: Liar(honest(path)))
    (tmp_path / "old.onnx").write_text("what was there before")
    with pytest.raises(VerificationError):
        export_onnx(random_model(small("scalenet_s0")), tmp_path / "old.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "what was there before"


def test_weights_above_the_limit_go_into_a_second_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exporter, "LARGEST_FILE", 1_000)
    model = random_model(small("scalenet_s0"))
    export_onnx(model, tmp_path / "large.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    network = OnnxNetwork.load(tmp_path / "large.onnx")
    images = file_input(network.metadata, sample_photographs(), 1)
    np.testing.assert_allclose(network(images), run_torch(model, images), atol=1e-4)


def test_files_that_are_not_ours_are_refused(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    foreign: Any = onnx.load(exported[1])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign.onnx: found no spec in its metadata"):
        OnnxNetwork.load(tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(InputError, match=r"text.onnx: cannot be read as ONNX: "):
        OnnxNetwork.load(tmp_path / "text.onnx")
    other = onnx.load(exported[1])
    entry = next(entry for entry in other.metadata_props if entry.key == "scalenet_zoo.spec")
    entry.value = json.dumps(load_spec("scalenet_s0").model_dump(mode="json"))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other.onnx: input: found image, fp32 of anyx3x64x96 in the graph, expected"):
        OnnxNetwork.load(tmp_path / "other.onnx")
    entry.value = "no JSON"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other.onnx: found metadata that are not valid: spec: is not valid JSON"):
        OnnxNetwork.load(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("spec", '{"format": 1}', "format: found 1, expected 'scalenet-zoo/arch'"),
        ("spec_hash", "0" * 64, "found the spec's hash '0000"),
        ("preprocessing", "[]", ""),
        ("export", '{"precision": "fp8"}', ""),
        ("export", '{"batch": [3, 2, 1]}', ""),
        (
            "export",
            '{"output": "joints"}',
            "export: output: found joints for scalenet_s0",
        ),
        ("classes", "{}", ""),
        ("classes", '["a", "b"]', "classes: found 2 names, expected 1,000"),
        ("classes", "[1]", "classes: "),
        ("classes", '["a\\ud800"]', "classes: "),
        ("classes", '["a', "classes: is not valid JSON: "),
        ("classes", "[" * 9999, "classes: is nested too deeply"),
        ("classes", f'["{"a" * 2**23}"]', "classes: found 8,388,612 characters"),
        ("versions", '{"a": "1", "a": "2"}', "versions: found the key 'a' twice"),
        ("versions", '{"a": 1}', "versions: a: found 1, expected a valid string"),
        ("preprocessing", '{"crop_pct": 2}', "preprocessing: crop_pct: found 2"),
        ("preprocessing", '{"mean": ["a"]}', "preprocessing: mean.0: found 'a'"),
        ("preprocessing", '{"mean": [0, 0]}', "preprocessing: mean: found 2 numbers"),
        ("preprocessing", '{"std": [0, 1, 1]}', "preprocessing: std.0: found 0"),
        ("preprocessing", '{"mean": [NaN, 0, 0]}', "preprocessing: mean.0: found NaN"),
        ("preprocessing", '{"interpolation": "random"}', "preprocessing: interpol"),
    ],
    ids=lambda text: text[:20],
)
def test_metadata_are_checked(exported: tuple[nn.Module, Path], key: str, value: str, complaint: str) -> None:
    entries = Metadata.read(exported[1]).entries()
    with pytest.raises(InputError, match=f"^file.onnx: (found metadata that are not valid: )?{complaint}"):
        Metadata.parse(entries | {f"scalenet_zoo.{key}": value}, "file.onnx")
    del entries["scalenet_zoo.preprocessing"]
    with pytest.raises(InputError, match=r"^file.onnx: found no preprocessing in its metadata"):
        Metadata.parse(entries, "file.onnx")


def test_networks_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="found Linear, expected a whole network"):
        export_onnx(nn.Linear(1, 1), tmp_path / "linear.onnx")
    with pytest.raises(TypeError, match="found FeatureGetterNet, expected a whole network"):
        export_onnx(create_model("scalenet_s0", features_only=True), tmp_path / "features.onnx")
    with pytest.raises(ExportError, match=r"scalenet_s0: found weights of torch.float16, expected torch.float32"):
        export_onnx(create_model("scalenet_s0").half(), tmp_path / "half.onnx")
    assert list(tmp_path.iterdir()) == []


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "dim"), [((1, 4, 8), "batch"), ((1, 1, 1), 1)])
def test_ranges_and_fixed_batches(batch: Any, dim: Any, tmp_path: Path) -> None:
    model = random_model(SPECS["classification"])
    check = export_onnx(model, tmp_path / "a.onnx", OnnxOptions(batch=batch))
    assert check.batch_sizes == tuple(sorted(set(batch)))
    network = OnnxNetwork.load(tmp_path / "a.onnx")
    assert network.session.get_inputs()[0].shape == [dim, 3, 32, 32]
    assert network.metadata.options.batch == batch


def test_bytes_in_and_probabilities_out(tmp_path: Path) -> None:
    model = random_model(SPECS["classification"], num_classes=1000)
    options = OnnxOptions(precision="fp16", io="fp16", preprocess=True, output="softmax", keep_fp32=("Gemm",))
    export_onnx(model, tmp_path / "a.onnx", options, class_names=[f"name {i}" for i in range(1000)])
    network = OnnxNetwork.load(tmp_path / "a.onnx")
    assert network.metadata == Metadata.read(tmp_path / "a.onnx")
    assert network.metadata.options == options
    assert network.metadata.class_names[999] == "name 999"
    source, result = network.session.get_inputs()[0], network.session.get_outputs()[0]
    assert (source.type, source.shape) == ("tensor(uint8)", ["batch", 32, 32, 3])
    assert (result.type, result.name) == ("tensor(float16)", "probabilities")
    images = file_input(network.metadata, sample_photographs(), 2)
    expected = torch.from_numpy(run_torch(model, network_input(network.metadata, sample_photographs(), 2))).softmax(1)
    np.testing.assert_allclose(network(images), expected, atol=2e-3)


def test_imagenets_names_are_in_a_classifier_of_a_thousand_classes(exported: tuple[nn.Module, Path]) -> None:
    names = Metadata.read(exported[1]).class_names
    assert (len(names), names[0], names[17]) == (1000, "tench", "jay")


def test_fp16_and_int8_files_are_small(tmp_path: Path) -> None:
    model = random_model(small("scalenet_s0"))
    sizes: dict[Precision, int] = {}
    for precision in TOLERANCES:
        path = tmp_path / f"{precision}.onnx"
        check = export_onnx(model, path, OnnxOptions(precision=precision), sample_photographs())
        assert check.relative <= TOLERANCES[precision].largest
        sizes[precision] = path.stat().st_size
    assert sizes["fp16"] <= 0.55 * sizes["fp32"]
    assert sizes["int8"] <= 0.35 * sizes["fp32"]


@pytest.mark.parametrize(
    ("options", "name", "complaint"),
    [
        (OnnxOptions(output="argmax"), "scalenet_s0", "output: found argmax for scalenet_s0 (classification, 1000"),
        (OnnxOptions(output="softmax"), "hrnet_w18", "output: found softmax for hrnet_w18 (segmentation, 19"),
        (OnnxOptions(output="joints"), "higherhrnet_w32", "output: found joints for higherhrnet_w32, which finds"),
        (OnnxOptions(io="fp16"), "scalenet_s0", "precision: found fp32 with io"),
        (OnnxOptions(precision="int8"), "scalenet_s0", "calibration: found no images"),
    ],
)
def test_options_that_do_not_fit(options: OnnxOptions, name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export_onnx(create_model(small(name)), tmp_path / "a.onnx", options)
    assert str(caught.value).startswith(complaint)
    with pytest.raises(ExportError, match="class_names: found 2, expected"):
        export_onnx(create_model(small(name)), tmp_path / "a.onnx", class_names=["a", "b"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [(0, 1, 2), (3, 2, 4), (1, 2)])
def test_batches_out_of_order_are_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match="batch"):
        OnnxOptions(batch=batch)


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_exports_to_one_path_at_once(tmp_path: Path) -> None:
    """Torch's exporter does not support several threads at once, so here they meet only at the file."""
    one, other = (random_model(SPECS["classification"], num_classes=n) for n in (3, 5))
    path = tmp_path / "a.onnx"
    lock = threading.Lock()
    trace, exports = trace_graph, []

    def one_at_a_time(*arguments: Any) -> Any:
        with lock:
            return trace(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "trace_graph", one_at_a_time)
        threads = [threading.Thread(target=lambda m=m: exports.append(export_onnx(m, path))) for m in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(exports) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    network = OnnxNetwork.load(path)  # the last one, whole
    model = one if network.spec.classes == 3 else other
    images = file_input(network.metadata, sample_photographs(), 1)
    np.testing.assert_allclose(network(images), run_torch(model, images), atol=1e-4)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk, since a write fails half way in the same manner."""
    model = random_model(small("scalenet_s0"))
    (tmp_path / "a.onnx").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OutputError, match=r"a.onnx: cannot be written: File too large"):
            export_onnx(model, tmp_path / "a.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.onnx", "old")]


def test_truncated_files_are_refused(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    content = exported[1].read_bytes()
    for length in (0, 1000, len(content) // 2, len(content) - 100):
        path = tmp_path / "short.onnx"
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="short.onnx: "):
            Metadata.read(path)
        with pytest.raises(InputError, match="short.onnx: "):
            OnnxNetwork.load(path)
    with pytest.raises(InputError, match="none.onnx: cannot be read: No such file"):
        Metadata.read(tmp_path / "none.onnx")


def test_calibration_folders(tmp_path: Path) -> None:
    def complaint(limit: int = 10) -> str:
        with pytest.raises(InputError) as caught:
            find_images(tmp_path / "photos", limit)
        return str(caught.value)

    assert complaint().endswith("photos: found no such folder, expected one with images")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    assert "found no image files" in complaint()
    photograph = sample_photographs()[0].read_bytes()
    for name in ("a.jpg", "b.JPG", "deep/c.jpeg"):
        (tmp_path / "photos" / name).write_bytes(photograph)
    (tmp_path / "photos" / "broken.jpg").write_bytes(photograph[:20_000])
    images, broken = find_images(tmp_path / "photos", 10)
    assert [path.name for path in images] == ["a.jpg", "b.JPG", "c.jpeg"]
    assert [path.name for path in broken] == ["broken.jpg"]
    assert len(find_images(tmp_path / "photos", 2)[0]) <= 2
    (tmp_path / "photos" / "worse.png").write_text("no PNG")
    assert re.search(
        r"found 2 of 5 images that cannot be read, expected at most 1 and at least one that can; the first: "
        r".*broken.jpg: cannot be read as an image: ",
        complaint(),
    )


# --- files from any source ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights in it, below it and outside it, and with links to all of them."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for path in (folder / "weights", folder / "below" / "weights", tmp_path / "secret"):
        path.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link").symlink_to("below/weights")
    (folder / "escape").symlink_to("../secret")
    (folder / "parent").symlink_to("..")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_external_data_are_found_wherever_a_tensor_stands(place: str, folder: Path) -> None:
    good = with_external_data(folder / "good.onnx", place, location="below/weights", offset=0, length=16)
    assert OnnxFile.read(good).external == {"below/weights": folder / "below" / "weights"}
    bad = with_external_data(folder / "bad.onnx", place, location="../secret")
    with pytest.raises(InputError, match=r"bad.onnx: found external data in '../secret', expected a file in the ONNX"):
        EngineSource.read(bad)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"location": "weights"}, None),
        ({"location": "./below/weights", "offset": 0}, None),
        ({"location": "link", "length": 16}, None),
        ({"location": "escape"}, "found external data in 'escape', expected a file in"),
        ({"location": "parent/secret"}, "found external data in 'parent/secret', expected a file in"),
        ({"location": "../secret"}, "found external data in '../secret', expected a file in"),
        ({"location": "/dev/zero", "length": 16}, "found external data in '/dev/zero', expected a file in"),
        ({"location": "/proc/self/environ"}, "found external data in '/proc/self/environ', expected a file in"),
        ({"location": "zero", "length": 16}, "found external data in 'zero', expected a file in"),
        ({"location": "circle"}, "circle"),
        ({"location": "pipe"}, "external data in 'pipe': is not a regular file"),
        ({"location": "below"}, "external data in 'below': is a directory"),
        ({"location": "none"}, "external data in 'none': cannot be read: No such file"),
        ({"location": "a\0b"}, r"found external data in 'a.x00b', expected a file in"),
        ({"location": "a\x1b[31mb" * 99}, r"found external data in 'a.*, expected a file in|cannot be read"),
        ({"location": ""}, "found external data in '', expected a file in"),
        ({}, "found external data in '', expected a file in"),
        ({"location": "weights", "offset": 4}, "'weight': found 16 bytes at offset 4 in the 16 bytes of 'weights'"),
        ({"location": "weights", "offset": -4}, "external data: offset: found '-4', expected a number of bytes"),
        ({"location": "weights", "offset": "0x0"}, "external data: offset: found '0x0', expected a number"),
        (
            {"location": "weights", "length": 8},
            "'weight': found 8 bytes at offset 0 in the 16 bytes of .*, expected 16 within",
        ),
        ({"location": "weights", "length": 10**18}, "'weight': found 1,000,000,000,000,000,000 bytes at offset 0"),
    ],
    ids=repr,
)
def test_external_data_lie_below_the_file(data: dict[str, object], complaint: str | None, folder: Path) -> None:
    path = with_external_data(folder / "a.onnx", "initialiser", **data)
    if complaint is None:
        changed = EngineSource.read(path).sha256
        (folder / str(data["location"])).write_bytes(np.ones(4, dtype=np.float32).tobytes())
        assert EngineSource.read(path).sha256 != changed  # they are part of what an engine is built from
        return
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: .*{complaint}") as caught:
        EngineSource.read(path)
    assert str(caught.value).isprintable()


def test_external_data_fit_into_memory(folder: Path) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(2**42)  # which takes no room on the disk
    with pytest.raises(BackendError, match=r"a.onnx: its external data: found that it takes 4,398.0 GB of memory"):
        EngineSource.read(with_external_data(folder / "a.onnx", location="huge"))


def changed(source: Path, path: Path, change: Callable[[Any], object]) -> Path:
    model = onnx.load(source)
    change(model)
    onnx.save(model, path)
    return path


def shape(value: Any, *sizes: int | str) -> None:
    """Give an input or output of a graph other sizes."""
    value.type.tensor_type.CopyFrom(onnx.helper.make_tensor_type_proto(1, sizes).tensor_type)


def element(value: Any, kind: int) -> None:
    """Give an input or output of a graph another type: 8 is text, 10 fp16."""
    value.type.tensor_type.elem_type = kind


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: shape(m.graph.input[0], 7, 3, 64, 96), "input: found image, fp32 of 7x3x64x96"),
        (lambda m: shape(m.graph.output[0], 7, 1000), "output: found logits, fp32 of 7x1000"),
        (lambda m: shape(m.graph.input[0], 7), "input: found image, fp32 of 7 in the graph, expected image, fp32 of"),
        (lambda m: shape(m.graph.input[0], "b", 3, 64), "input: found image, fp32 of anyx3x64 in the graph"),
        (lambda m: shape(m.graph.input[0], "b", 3, 64, "w"), "input: found image, fp32 of anyx3x64xany in the graph"),
        (lambda m: shape(m.graph.input[0], "b", 3, 2**40, 96), "input: found image, fp32 of anyx3x1099511627776x96"),
        (lambda m: shape(m.graph.output[0], "b", 2000), "output: found logits, fp32 of anyx2000"),
        (lambda m: shape(m.graph.output[0]), "output: found logits, fp32 of one"),
        (lambda m: element(m.graph.input[0], 8), "input: found image, another type of anyx3x64x96 in the graph"),
        (lambda m: element(m.graph.input[0], 10), "input: found image, fp16 of any"),
        (lambda m: setattr(m.graph.output[0], "name", "a\x1bb"), r"output: found a.x1bb, fp32 of any"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "found 2 inputs, expected one"),
        (lambda m: m.graph.ClearField("output"), "found 0 outputs, expected one"),
        (lambda m: m.ClearField("graph"), "cannot be read as ONNX: found no graph in it"),
        (lambda m: m.metadata_props.append(m.metadata_props[0]), "found the key 'scalenet_zoo.spec' twice in its"),
    ],
)  # fmt: skip
def test_graphs_that_are_not_what_their_metadata_say(
    change: Callable[[Any], object], complaint: str, exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    path = changed(exported[1], tmp_path / "a.onnx", change)
    readers: tuple[Callable[[Any], object], ...] = (Metadata.read, OnnxNetwork.load, Subject.load, EngineSource.read)
    for read in (*readers, OnnxNetwork.load_inner):
        with pytest.raises((InputError, EngineError)) as caught:
            read(path)
        found = str(caught.value)
        assert re.match(f"{path}: ({complaint}|found . inputs and . outputs)", found), found


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.graph.ClearField("node"),
        lambda m: setattr(m.graph.node[0], "op_type", "Nonsense"),
        lambda m: m.graph.initializer.pop(),
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"),
        lambda m: m.graph.node[-1].ClearField("input"),
        lambda m: setattr(m.opset_import[0], "version", 10**6),
    ],
)
def test_graphs_that_onnx_runtime_does_not_open(
    change: Callable[[Any], object], exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    path = changed(exported[1], tmp_path / "a.onnx", change)
    with pytest.raises(InputError, match=f"^{path}: cannot be opened by ONNX Runtime: .") as caught:
        OnnxNetwork.load(path)
    assert "\n" not in str(caught.value)


def test_graphs_that_fail_when_they_run(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    """A batch of 1 is written into the middle of the graph, and then another number of classes at its end."""
    images = np.zeros((2, 3, 64, 96), dtype=np.float32)

    def reshaped(m: Any, *sizes: int) -> None:
        last = m.graph.node[-1]
        last.output[0] = "inner"
        m.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes), "sizes"))
        m.graph.node.append(onnx.helper.make_node("Reshape", ["inner", "sizes"], ["logits"]))
        shape(m.graph.output[0], "batch", "classes")

    stuck = changed(exported[1], tmp_path / "stuck.onnx", lambda m: reshaped(m, 1, 1000))
    with pytest.raises(InputError, match=r"^scalenet_s0: cannot be run by ONNX Runtime: .*Reshape"):
        OnnxNetwork.load(stuck)(images)
    other = changed(exported[1], tmp_path / "other.onnx", lambda m: reshaped(m, 1, 2000))
    with pytest.raises(InputError, match=r"^scalenet_s0: found an output of shape \(1, 2000\), expected \(2, 1000\)"):
        OnnxNetwork.load(other)(images)


@pytest.mark.parametrize("text", ["scalenet_zoo.versions", "logits"])
def test_texts_that_are_not_utf8(text: str, exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    content = exported[1].read_bytes()
    (tmp_path / "a.onnx").write_bytes(content.replace(text.encode(), b"\xff" * len(text)))
    for read in (Metadata.read, OnnxNetwork.load, EngineSource.read):
        with pytest.raises(InputError, match=r"a.onnx: (key|output|name): found b'.*, expected UTF-8 text"):
            read(tmp_path / "a.onnx")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_only_regular_files_are_opened(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "a.onnx")
    for read in (Metadata.read, OnnxNetwork.load, EngineSource.read):
        with pytest.raises(InputError, match=r"a.onnx: is (a directory|not a regular file), expected"):
            read(tmp_path / "a.onnx")


# --- every network of the issue, at its own size --------------------------------------------------

NETWORKS = [*list_models("scalenet_s[0-3]"), "scalenas_s1", "scalenas_p2", "efficientnet_b0", "hrnet_w18"]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "scalenet_s0" else pytest.mark.nightly) for name in NETWORKS],
)
def test_every_network_keeps_within_the_tolerances(name: str, precision: Precision, tmp_path: Path) -> None:
    check = export_onnx(random_model(name), tmp_path / "a.onnx", OnnxOptions(precision=precision), sample_photographs())
    print(f"{name} {precision}: largest {check.relative:.2g}, noise {check.noise:.2g}, {check.agreement}")
    assert check.relative <= TOLERANCES[precision].largest
    assert check.noise <= TOLERANCES[precision].noise
