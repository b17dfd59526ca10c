"""int8 on this machine's CPU: latency on ONNX Runtime and OpenVINO, loss of accuracy, and time of an export.

python -m benchmarks.int8 [--data FOLDER] [--threads 1]: five networks in int8 and fp32 are timed in turn on each back
end. Ratios are int8 / fp32 on the same back end; below 1 is faster. Weights are random, since latency does not depend
on them; only EfficientNet-Lite0's accuracy is measured with trained weights. If FOLDER is given, which has
Imagenette-128, that accuracy is measured among ImageNet's 1,000 classes on the 2,000 images of val, in fp32 and in
int8, calibrated on 128 images of train. An int8 export of EfficientNet-B0 with 200 calibration images is timed, too.
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.imagenette import FOLDER, accuracies, imagenette
from benchmarks.interleave import record
from scalenet_zoo import create_model
from scalenet_zoo.core.backends import TargetBackend
from scalenet_zoo.core.timing import Timing
from scalenet_zoo.data.image_files import find_images, sample_photographs
from scalenet_zoo.export.gain import measure_gain
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.openvino.convert import convert_onnx
from scalenet_zoo.export.openvino.network import OpenVinoNetwork
from scalenet_zoo.export.verify import Exported

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100", "efficientnet_b0", "scalenet_s0", "hrnet_w18_pose")
BACKENDS: tuple[TargetBackend, ...] = ("ort-cpu", "openvino")
TIMING = Timing(warmup=0.5, seconds=4.0, runs=60, visits=15)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
"""The instruction sets of x86 CPUs that matter to integer kernels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that has imagenette-128, unpacked")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    measured: dict[str, object] = {"threads": given.threads, "instructions": instructions()}
    with tempfile.TemporaryDirectory() as folder:
        measured["export_seconds"] = export_seconds(Path(folder), given.data)
        if given.data:
            measured["accuracy"] = accuracy(Path(folder), given.data)
        torch.set_num_threads(given.threads)
        measured["latency"] = {name: ratios(name, Path(folder)) for name in NETWORKS}
    record("int8", measured)


def instructions() -> list[str]:
    """List the instruction sets of this CPU that matter to integer kernels."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text().split() if path.exists() else []
    return [name for name in INSTRUCTIONS if name in flags]


def ratios(name: str, folder: Path) -> dict[str, object]:
    """Measure the latencies of a network in int8 and fp32 on each back end."""
    model = create_model(name).eval()
    found: dict[str, object] = {}
    for backend in BACKENDS:
        path, beside = folder / f"{name}-{backend}.onnx", folder / f"{name}-{backend}-fp32.onnx"
        options = OnnxOptions(precision="int8", target=backend)
        export_onnx(model, path, options, sample_photographs(), fp32_beside=beside)
        gain = measure_gain(opened(beside, backend), opened(path, backend), backend, TIMING)
        found[backend] = {
            "fp32_ms": gain.fp32.median,
            "int8_ms": gain.latency.median,
            **{f"ratio_{key}": value for key, value in asdict(gain.ratio).items()},
        }
        print(name, backend, found[backend], flush=True)
    return found


def opened(path: Path, backend: str) -> Exported:
    """Open an ONNX file on a back end."""
    if backend == "ort-cpu":
        return OnnxNetwork.load(path)
    ir = path.with_suffix(".xml")
    convert_onnx(path, ir, lambda network: None)
    return OpenVinoNetwork.load(ir)


def accuracy(folder: Path, data: Path) -> dict[str, object]:
    """Compute EfficientNet-Lite0's top-1 among 1,000 classes in fp32 and int8, and how often both decide the same."""
    model = create_model("tf_efficientnet_lite0", pretrained=True).eval()
    calibration, _ = find_images(data / FOLDER / "train", 128)
    examples = imagenette(data, "val")
    found: dict[str, object] = {"images": len(examples)}
    for backend in BACKENDS:
        files = {precision: folder / f"lite0-{backend}-{precision}.onnx" for precision in ("int8", "fp32")}
        options = OnnxOptions(precision="int8", target=backend)
        check = export_onnx(model, files["int8"], options, calibration, min_agreement=0.9, fp32_beside=files["fp32"])
        right: dict[str, float] = {}
        decided: dict[str, np.ndarray] = {}
        for precision, path in files.items():
            network = opened(path, backend)
            asked: list[np.ndarray] = []
            run = partial(remembered, network, asked)
            metadata = network.metadata
            right[precision] = accuracies(run, metadata.spec, metadata.interface, examples)["top1_of_1000"]
            decided[precision] = np.concatenate(asked)
        same = decided["int8"] == decided["fp32"]
        found[backend] = {
            **{f"{precision}_top1_of_1000": share for precision, share in right.items()},
            "agreement": float(same.mean()),
            "calibrator": check.metadata.options.calibrator,
        }
        print("accuracy", backend, found[backend], flush=True)
    return found


def remembered(network: Exported, asked: list[np.ndarray], images: torch.Tensor) -> np.ndarray:
    """Compute a file's logits (n, 1000), and append the most likely classes to `asked`."""
    logits = network(images.numpy())
    asked.append(logits.argmax(1))
    return logits


def export_seconds(folder: Path, data: Path | None) -> dict[str, float]:
    """Time an int8 export of EfficientNet-B0 with 200 images and all checks, in seconds; the second of two counts."""
    images = find_images(data / FOLDER / "train", 200)[0] if data else sample_photographs() * 100
    model: nn.Module = create_model("efficientnet_b0").eval()
    for _ in range(2):
        start, used = time.perf_counter(), time.process_time()
        export_onnx(model, folder / "b0.onnx", OnnxOptions(precision="int8", target="ort-cpu"), images)
        seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - used}
        print("export", seconds, flush=True)
    return seconds


if __name__ == "__main__":
    main()
