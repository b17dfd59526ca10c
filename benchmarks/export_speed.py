"""The export of S0 to a checked ONNX file against a bare call of torch.onnx.export, and the sizes of files and engines.

python -m benchmarks.export_speed: about 3 minutes; ratios ours / bare, below 1 is faster or smaller. The engines are
for TensorRT-RTX and compute capabilities 8.9 and 12.0, without and with `compress`.
"""

import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo import create_model
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.tensorrt.build import EngineOptions, build_engine

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def main() -> None:
    torch.manual_seed(0)
    model = create_model("scalenet_s0").eval()
    example = torch.zeros(2, 3, 224, 224)
    batch = torch.export.Dim("batch")

    def bare() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)

    measured: dict[str, object] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scalenet_s0.onnx"
        measured["checked_export"] = ratio(*interleave(lambda: export_onnx(model, path), bare, 9))
        sizes: dict[str, dict[str, int]] = {"onnx": {}, "engine": {}, "compressed engine": {}}
        for precision in PRECISIONS:
            options = OnnxOptions(precision=precision, target="tensorrt-rtx" if precision == "int8" else None)
            export_onnx(model, path, options, calibration=sample_photographs())
            sizes["onnx"][precision] = path.stat().st_size
            for kind, compress in (("engine", False), ("compressed engine", True)):
                engine = path.with_suffix(".engine")
                how = EngineOptions(library="tensorrt-rtx", compute_capabilities=("8.9", "12.0"), compress=compress)
                build_engine(path, engine, how, rebuild=True)
                sizes[kind][precision] = engine.stat().st_size
    measured["bytes"] = sizes
    measured["size_ratios"] = {
        kind: {precision: size / of_kind["fp32"] for precision, size in of_kind.items()}
        for kind, of_kind in sizes.items()
    }
    record("export_speed", measured)


if __name__ == "__main__":
    main()
