"""Exports in the cache: they are reused, made only once by concurrent users, and made again for other requests."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from torch import nn

from scalenet_zoo import create_model
from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.latency.comparison import cached
from scalenet_zoo.latency.comparison.cached import CachedExports, file_bytes, network_digest
from scalenet_zoo.latency.comparison.calibration import CalibrationImages
from tests.helpers.networks import randomise
from tests.helpers.shapes import SPECS


class Exporter:
    """A stand-in for `export_model`, which writes a file and counts its calls."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails = False

    def __call__(self, network: nn.Module, output: Path, to: str, **asked: Any) -> None:
        self.asked.append({"to": to, **asked})
        output.write_text(f"{to} {asked}")
        if self.fails:
            raise ExportError("it cannot")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Exporter:
    fake = Exporter()
    monkeypatch.setattr(cached, "export_model", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake


def network(seed: int = 0) -> nn.Module:
    return randomise(create_model(SPECS["classification"]), seed).eval()


def test_a_file_is_found_again_by_all_that_it_depends_on(exporter: Exporter, tmp_path: Path) -> None:
    first, images = CachedExports.of(network(), 1), CalibrationImages(tmp_path, "a")
    path = first.file("ort-cpu", "fp32")
    assert CachedExports.of(network(), 1).file("ort-cuda", "fp32") == path  # the same format
    assert path.read_text().startswith("onnx ")
    assert len(exporter.asked) == 1
    others = [
        CachedExports.of(network(1), 1).file("ort-cpu", "fp32"),  # other weights
        CachedExports.of(network(), 2).file("ort-cpu", "fp32"),
        first.file("ort-cpu", "fp16"),
        first.file("ort-cpu", "int8", images),
        first.file("ort-cpu", "int8", CalibrationImages(tmp_path, "b")),
        first.file("ort-tensorrt", "int8", images),
        first.file("openvino", "int8", images),
        first.file("openvino", "fp32"),
    ]
    assert len({path, *others}) == len(exporter.asked) == 9
    assert [asked.get("on") for asked in exporter.asked[4:8]] == ["ort-cpu", "ort-cpu", "tensorrt", "openvino"]
    assert [path.name for path in others[-2:]] == ["network.xml"] * 2
    assert all(asked["min_agreement"] == (0.0 if asked["precision"] == "int8" else None) for asked in exporter.asked)


def test_other_versions_make_other_files(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CachedExports.of(network(), 1).file("ort-cpu", "fp32")
    monkeypatch.setattr(cached, "versions", lambda: {"onnxruntime": "9.9"})
    assert CachedExports.of(network(), 1).file("ort-cpu", "fp32") != path


def test_rebuild_makes_each_file_again_once(exporter: Exporter) -> None:
    path = CachedExports.of(network(), 1).file("ort-cpu", "fp32")
    path.write_text("stale")
    again = CachedExports.of(network(), 1, rebuild=True)
    assert again.file("ort-cpu", "fp32") == again.file("ort-cpu", "fp32") == path
    assert path.read_text() != "stale"
    assert len(exporter.asked) == 2


def test_a_failed_export_leaves_nothing(exporter: Exporter) -> None:
    exports = CachedExports.of(network(), 1)
    exporter.fails = True
    with pytest.raises(ExportError):
        exports.file("ort-cpu", "fp32")
    exporter.fails = False
    assert exports.file("ort-cpu", "fp32").is_file()
    assert len(exporter.asked) == 2


def test_two_at_once_export_once(exporter: Exporter) -> None:
    """Descriptors of one process exclude each other as those of two do."""
    found: list[Path] = []
    threads = [
        Thread(target=lambda: found.append(CachedExports.of(network(), 1).file("ort-cpu", "fp32"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(exporter.asked) == 1
    assert len(found) == 3


def test_the_digest_is_of_weights_labels_and_preparation() -> None:
    changed: Any = network()
    assert network_digest(changed) == network_digest(network()) != network_digest(network(1))
    before = network_digest(changed)
    changed.pretrained_cfg["crop_pct"] = 0.5
    cropped = network_digest(changed)
    changed.pretrained_cfg["labels"] = {"names": ["a", "b", "c"]}
    assert len({before, cropped, network_digest(changed)}) == 3


def test_the_size_is_of_all_that_belongs_to_a_file(exporter: Exporter, tmp_path: Path) -> None:
    for name, size in {"a.xml": 10, "a.bin": 500, "b.onnx": 20, "b.onnx.data": 700, "c.engine": 30}.items():
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "c.engine.json").write_text("a record")
    assert [file_bytes(tmp_path / name) for name in ("a.xml", "b.onnx", "c.engine")] == [510, 720, 30]
    weights = CachedExports.of(network(), 1).folder()
    assert file_bytes(weights) == (weights / "model.safetensors").stat().st_size
