"""The gain of an export in another precision, timed in turn with fp32 on the back end that the file is for."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenet_zoo import create_model, export_model
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.timing import Timing
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export import gain as gain_module
from scalenet_zoo.export.gain import Gain, measure_gain
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import metadata_of
from tests.helpers.networks import shallow

QUICK = Timing(warmup=0.0, seconds=0.02, runs=4, visits=2)
PHOTOGRAPHS = sample_photographs()[0].parent


class Sleeper:
    """An exported file that takes a given number of milliseconds, and remembers its inputs."""

    def __init__(self, metadata: Metadata, ms: float) -> None:
        self.metadata, self.ms = metadata, ms
        self.batches: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(images)
        time.sleep(self.ms / 1000)
        return images


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain_module, "TIMING", QUICK)


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    return metadata_of(create_model(shallow("scalenet_s0")), OnnxOptions(precision="int8", target="ort-cpu"))


@pytest.mark.parametrize(("ms", "slower"), [(2.0, False), (8.0, True)])
def test_the_ratio_is_of_the_file_to_fp32(ms: float, slower: bool, metadata: Metadata) -> None:
    fp32 = replace(metadata, options=OnnxOptions())
    found = measure_gain(Sleeper(fp32, 4.0), Sleeper(metadata, ms), "ort-cpu", QUICK)
    assert (found.backend, found.precision, found.batch) == ("ort-cpu", "int8", 1)
    assert found.slower is slower
    assert found.ratio.low <= found.ratio.median <= found.ratio.high
    assert found.latency.median >= ms
    assert found.fp32.median >= 4.0


@pytest.mark.parametrize(
    ("options", "dtype", "shape"),
    [
        (OnnxOptions(precision="int8", target="ort-cpu", preprocess=True), np.uint8, (1, 64, 96, 3)),
        (OnnxOptions(precision="int8", target="ort-cpu", batch=(3, 3, 3)), np.float32, (3, 3, 64, 96)),
    ],
)
def test_files_are_given_what_they_take(
    options: OnnxOptions, dtype: Any, shape: tuple[int, ...], metadata: Metadata
) -> None:
    file = Sleeper(replace(metadata, options=options), 0.1)
    measure_gain(Sleeper(replace(metadata, options=options), 0.1), file, "ort-cpu", QUICK)
    assert {(batch.dtype, batch.shape) for batch in file.batches} == {(np.dtype(dtype), shape)}


def export(tmp_path: Path, **arguments: Any) -> Gain | None:
    to = arguments.get("to", "onnx")
    output = tmp_path / {"onnx": "x.onnx", "openvino": "x.xml"}.get(to, "x")
    made = export_model(shallow("scalenet_s0"), output, min_agreement=0, calibration=PHOTOGRAPHS, **arguments)
    return made.gain


@pytest.mark.parametrize(
    ("arguments", "backend"),
    [
        ({"precision": "int8"}, "ort-cpu"),
        ({"precision": "int8", "on": "openvino"}, "openvino"),
        ({"precision": "int8", "to": "openvino"}, "openvino"),
        ({"precision": "fp16"}, "ort-cpu"),
    ],
)
def test_an_export_is_timed_on_the_back_end_that_it_is_for(
    arguments: dict[str, Any], backend: str, tmp_path: Path
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    found = export(tmp_path, **arguments)
    assert found is not None
    assert (found.backend, found.precision) == (backend, arguments["precision"])
    assert found.ratio.median > 0


def test_what_cannot_run_here_is_not_timed(tmp_path: Path) -> None:
    assert export(tmp_path, precision="int8", on="tensorrt") is None  # an ONNX file; and there is no GPU, or no engine
    assert export(tmp_path) is None  # fp32 has nothing to be compared with


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"precision": "int8", "on": "coreml"}, "`on`: found 'coreml', expected ort-cpu, openvino, tensorrt or"),
        ({"precision": "int8", "to": "openvino", "on": "ort-cpu"}, "`on`: found ort-cpu with `to` openvino, expected"),
        ({"precision": "int8", "calibrator": "best"}, "`calibrator`: found 'best', expected minmax, percentile or"),
        ({"precision": "fp16", "on": "ort-cpu"}, "`on`: found it with `precision` fp16, expected it with int8"),
        ({"activation_bits": 16}, "`activation_bits`: found it with `precision` fp32, expected it with int8"),
    ],
)
def test_arguments_that_do_not_fit_one_another_are_refused(
    arguments: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=complaint):
        export(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())
