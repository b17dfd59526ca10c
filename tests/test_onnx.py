"""ONNX export: what the file holds and computes, in real ONNX Runtime sessions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from scalenet_zoo.export import onnx as exporter
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.export.verify import photographs, run_torch, verify
from torch import nn

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.errors import ExportError, InputError, VerificationError
from scalenet_zoo.spec import spec_of
from tests.networks import random_model, small


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = random_model(small("scalenet_s0"))
    path = tmp_path_factory.mktemp("onnx") / "new" / "scalenet_s0.onnx"
    check = export_onnx(model, path)
    assert check.relative < 1e-5
    assert 0 < check.onnxruntime_ms < 10_000
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
    assert network.pretrained_cfg["input_size"] == [3, 64, 96]


def test_parameters_of_the_file_are_those_of_the_spec(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    held = sum(w.size for w in weights if w.dtype == np.float32)
    norms = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    # A batch norm folded into its convolution leaves one bias a channel of its weight and bias.
    assert held == spec_of(model).cost.params - norms


@pytest.mark.parametrize("name", ["scalenas_s1", "scalenas_p1"])
def test_dense_networks_export(name: str, tmp_path: Path) -> None:
    spec = small(name).replace(height=66, width=100)  # sizes that no power of two divides
    model = random_model(spec)
    check = export_onnx(model, tmp_path / "dense.onnx")
    assert check.relative < 1e-4
    assert check.expected.shape == (spec.classes, 17, 25)


def test_training_mode_and_other_channels_survive(tmp_path: Path) -> None:
    model = random_model(small("scalenet_s0"), in_chans=4, num_classes=3).train()
    export_onnx(model, tmp_path / "four.onnx")
    assert model.training
    assert OnnxNetwork.load(tmp_path / "four.onnx").spec.input.channels == 4


class Liar:
    """An exported network that is wrong by a little."""

    def __init__(self, honest: OnnxNetwork, error: float) -> None:
        self.honest, self.error = honest, error
        self.spec, self.pretrained_cfg = honest.spec, honest.pretrained_cfg

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.honest(images) + np.float32(self.error)


@pytest.mark.parametrize("error", [1.0, float("nan")])
def test_a_file_that_computes_something_else_is_found_out(exported: tuple[nn.Module, Path], error: float) -> None:
    model, path = exported
    with pytest.raises(VerificationError, match="scalenet_s0: found outputs that differ by"):
        verify(model, Liar(OnnxNetwork.load(path), error))  # type: ignore[arg-type]


def test_a_failed_check_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    honest = OnnxNetwork.load
    monkeypatch.setattr(exporter.OnnxNetwork, "load", lambda path: Liar(honest(path), 1.0))
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
    images = photographs(model.spec, {"crop_pct": 1.0}, 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(OnnxNetwork.load(tmp_path / "large.onnx")(images), run_torch(model, images), atol=1e-4)


def test_files_that_are_not_ours_are_refused(exported: tuple[nn.Module, Path], tmp_path: Path) -> None:
    foreign: Any = onnx.load(exported[1])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign.onnx: found no spec in its metadata"):
        OnnxNetwork.load(tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(InputError, match=r"text.onnx: cannot be opened by ONNX Runtime"):
        OnnxNetwork.load(tmp_path / "text.onnx")
    other = onnx.load(exported[1])
    entry = next(entry for entry in other.metadata_props if entry.key == "scalenet_zoo.spec")
    entry.value = json.dumps(load_spec("scalenet_s0").model_dump(mode="json"))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other.onnx: found images of \[3, 64, 96\] in the graph, expected those of"):
        OnnxNetwork.load(tmp_path / "other.onnx")
    entry.value = "no JSON"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other.onnx: found no spec in its metadata"):
        OnnxNetwork.load(tmp_path / "other.onnx")


def test_networks_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="found Linear, expected a whole network"):
        export_onnx(nn.Linear(1, 1), tmp_path / "linear.onnx")
    with pytest.raises(TypeError, match="found FeatureGetterNet, expected a whole network"):
        export_onnx(create_model("scalenet_s0", features_only=True), tmp_path / "features.onnx")
    with pytest.raises(ExportError, match=r"scalenet_s0: found weights of torch.float16, expected torch.float32"):
        export_onnx(create_model("scalenet_s0").half(), tmp_path / "half.onnx")
    assert list(tmp_path.iterdir()) == []
