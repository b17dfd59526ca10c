"""Files that are made from an ONNX file: OpenVINO's IR and engines, each checked before it is written, and compared.

A file is checked against the network if it is at hand, otherwise against the ONNX file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from scalenet_zoo.core.backends import find_backend
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.arguments import ENGINES
from scalenet_zoo.export.gain import Gain, measure_gain
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.openvino.convert import convert_onnx
from scalenet_zoo.export.openvino.network import OpenVinoNetwork
from scalenet_zoo.export.tensorrt.build import build_engine
from scalenet_zoo.export.tensorrt.network import EngineNetwork
from scalenet_zoo.export.tensorrt.record import EngineOptions, EngineRecord
from scalenet_zoo.export.verify import Verification, check_decisions, compare_outputs, run_torch
from scalenet_zoo.networks.modes import evaluation_mode


@dataclass(frozen=True)
class OnnxSource:
    """The ONNX file that other files are made from.

    Attributes:
        path: the file.
        network: the network that it was exported from; None: the file was given.
        verification: how it compares with the network; None: the file was given.
        images: the images to check files on; none: the sample photographs.
        min_agreement: the least share of decisions on these images in which a file must agree with the network.
    """

    path: Path
    network: nn.Module | None = None
    verification: Verification | None = None
    images: Sequence[Path] = ()
    min_agreement: float = 0.0


def write_ir(source: OnnxSource, path: Path) -> Verification | None:
    """Write OpenVINO's IR.

    Returns:
        How it compares with the network; None: there is no network, so it was compared with the ONNX file.

    Raises:
        BackendError, InputError, ExportError, OutputError: as for `convert_onnx`.
        VerificationError: it does not compute the same; it is not left behind.
    """
    images = list(source.images) or sample_photographs()
    network, exported = source.network, source.verification
    if network is None or exported is None:
        reference = OnnxNetwork.load_inner(source.path)
        convert_onnx(source.path, path, lambda file: compare_outputs(reference, file, images))
        return None
    run, params, least = partial(run_torch, network), exported.params, source.min_agreement

    def check(file: OpenVinoNetwork) -> Verification:
        return check_decisions(run, file, images, compare_outputs(run, file, images), params, "OpenVINO", least)

    with evaluation_mode(network):
        return convert_onnx(source.path, path, check)


def write_engine(
    source: OnnxSource, path: Path, options: EngineOptions, rebuild: bool, on_progress: OnProgress
) -> EngineRecord:
    """Build an engine, and write it; an engine for this GPU is checked.

    Raises:
        EngineError, BackendError, InputError, OutputError: as for `build_engine`.
        VerificationError: it does not compute the same; it is not left behind.
    """
    network = source.network

    def check(engine: EngineNetwork) -> None:
        reference = partial(run_torch, network) if network is not None else OnnxNetwork.load_inner(source.path)
        compare_outputs(reference, engine, list(source.images) or sample_photographs())

    with evaluation_mode(network):
        return build_engine(source.path, path, options, on_progress, rebuild, check)


def compare_with_fp32(
    fp32: Path, files: Mapping[str, Path], backend: str, options: EngineOptions, on_progress: OnProgress
) -> Gain | None:
    """Time the exported file in turn with the same network in fp32.

    Args:
        fp32: the network's ONNX file in fp32.
        files: the files that were written, by their kind, as in `ModelExport`.
        backend: the back end that they are for.
        options: the options that the engine was built with.
        on_progress: reports that the file is being measured.

    Returns:
        The latencies; None: the back end cannot run here.
    """
    if not find_backend(backend).ready or (backend in ENGINES and "engine" not in files):
        return None
    on_progress(f"comparing the latency with fp32 on {backend}", 0, 0)
    if backend == "ort-cpu":
        return measure_gain(OnnxNetwork.load(fp32), OnnxNetwork.load(files["onnx"]), backend)
    if backend == "openvino":
        ours = files.get("openvino") or fp32.with_name("file.xml")
        if "openvino" not in files:
            convert_onnx(files["onnx"], ours, lambda network: None)
        convert_onnx(fp32, fp32.with_suffix(".xml"), lambda network: None)
        return measure_gain(OpenVinoNetwork.load(fp32.with_suffix(".xml")), OpenVinoNetwork.load(ours), backend)
    build_engine(fp32, fp32.with_suffix(".engine"), options, on_progress)
    return measure_gain(EngineNetwork.load(fp32.with_suffix(".engine")), EngineNetwork.load(files["engine"]), backend)
