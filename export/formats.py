"""Export to any of the formats: an ONNX file, OpenVINO's IR, a TensorRT engine, a model repository for Triton.

network --export_onnx--> NAME.onnx --write_engine--> NAME.engine
                             +-------write_ir--> NAME.xml, NAME.bin
                             +-------write_model_repository--> REPOSITORY/NAME
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import scratch_folder
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.export.arguments import ENGINES, ExportFormat, check_arguments
from scalenet_zoo.zoo.model_folder import HUB_PREFIX
from scalenet_zoo.zoo.sources import NetworkSource, check_model, file_stem, has_weights, is_exported, load_spec

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.export.gain import Gain
    from scalenet_zoo.export.metadata import Output
    from scalenet_zoo.export.tensorrt.record import EngineOptions, EngineRecord
    from scalenet_zoo.export.verify import Verification

_log = logging.getLogger(__name__)

PASSING = ("openvino", "triton")
"""Formats whose ONNX file is temporary."""
REPOSITORY = Path("model_repository")
"""The default model repository for Triton."""


@dataclass(frozen=True)
class ModelExport:
    """What `export_model` wrote.

    Attributes:
        name: the name of the network, or of the file that was given.
        trained: whether the network has trained weights; None: a file was given.
        files: the files by their kind: onnx, openvino, openvino_weights, engine, triton (a folder).
        verification: how the ONNX file or OpenVINO's IR compares with the network; None: a file was given.
        engine: the record of the engine; None: there is none.
        gain: the file's latency compared with fp32 on its back end; None: the file is in fp32 or was given, or that
            back end cannot run here.
    """

    name: str
    trained: bool | None
    files: Mapping[str, Path]
    verification: "Verification | None" = None
    engine: "EngineRecord | None" = None
    gain: "Gain | None" = None


def export_model(
    model: "NetworkSource | nn.Module",
    output: str | Path | None = None,
    to: ExportFormat = "onnx",
    *,
    precision: str | None = None,
    on: str | None = None,
    batch: int | tuple[int, int, int] | None = None,
    img_size: int | Sequence[int] | None = None,
    with_preprocess: bool = False,
    with_softmax: bool = False,
    with_argmax: bool = False,
    with_joints: bool = False,
    calibration: str | Path | None = None,
    calibration_images: int = 128,
    min_agreement: float | None = None,
    io: str | None = None,
    keep_fp32: Sequence[str] = (),
    auto: bool = False,
    calibrator: str | None = None,
    activation_bits: int | None = None,
    compute_capability: Sequence[str] = (),
    workspace: int | None = None,
    level: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    compress: bool = False,
    rebuild: bool = False,
    pretrained: bool = False,
    weights: str | Path | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> ModelExport:
    """Export a network, and check that the file computes what the network does.

    An engine is built from an ONNX file, which is written first, beside the engine, unless `model` is such a file.
    The check runs on the images in `calibration`; without it, on validation images of the data that the network was
    trained on, if they can be found; otherwise on two photographs.

    Everything that takes no time to check (names, quantities, images, output paths) is checked before any work starts.

    Args:
        model: what `create_model` takes, or a network; for every format but ONNX also an ONNX file, and for Triton also
            an engine.
        output: the file to write, or Triton's repository; None: NAME.onnx, NAME.xml, NAME.engine, `REPOSITORY`.
        to: the format.
        precision: fp32, fp16 or int8; None: fp32.
        on: the back end that an int8 file is for: ort-cpu, openvino, tensorrt or tensorrt-rtx; None: the format's own;
            ort-cpu for an ONNX file, tensorrt for Triton.
        batch: images per inference: a number, or the smallest, optimal and largest; None: any.
        img_size: the side of square images in pixels, or height and width; None: the network's own.
        with_preprocess: take uint8 images (batch, height, width, channels).
        with_softmax: return a classifier's probabilities.
        with_argmax: return the class of each pixel.
        with_joints: return the joints' x, y and score.
        calibration: a folder of images, for the ranges of int8 and for the check.
        calibration_images: the most images to take from that folder.
        min_agreement: the least share of decisions on these images in which an int8 file must agree with the network;
            None: for networks with weights, 0.8 in segmentation and 0.9 in other tasks; 0 for networks without.
        io: the type of an fp16 file's inputs and outputs: fp32 or fp16; None: fp32.
        keep_fp32: what stays in fp32: operators, and in int8 also layers.
        auto: find the few layers whose rounding costs an int8 file most, and keep them in fp32.
        calibrator: how int8 finds ranges: minmax, percentile or entropy; None: the one that agrees best.
        activation_bits: bits of int8 activations: 8; on ort-cpu also 16, which is a little more exact but slower than
            fp32; None: 8.
        compute_capability: the compute capabilities, such as 8.9, for which TensorRT-RTX builds without a GPU.
        workspace: MiB that a layer may use in TensorRT.
        level: the effort of TensorRT's builder, from 0 to 5.
        version_compatible: the engine also runs in newer versions of TensorRT.
        hardware_compatible: the engine also runs on other GPUs, Ampere and newer.
        compress: keep the engine gzip-compressed.
        rebuild: build the engine even if there is one.
        pretrained: load published weights.
        weights: a file of weights to load.
        seed: the seed of weights that are not loaded.
        on_progress: reports the current task, the steps done and the number of steps.

    Raises:
        UsageError: the arguments do not fit one another, the model or the format.
        ModelNotFoundError, SpecError, WeightsError: the model cannot be opened.
        InputError: calibration images are missing or cannot be read.
        ExportError, EngineError, BackendError: the network cannot be exported with these options, or the engine cannot
            be built here.
        OutputError: a file cannot be written.
        VerificationError: a file does not compute what the network does; the file is not left behind.
    """
    of_network = {
        "precision": precision,
        "img_size": img_size,
        "with_preprocess": with_preprocess,
        "with_softmax": with_softmax,
        "with_argmax": with_argmax,
        "with_joints": with_joints,
        "calibration": calibration,
        "min_agreement": min_agreement,
        "io": io,
        "keep_fp32": keep_fp32,
        "on": on,
        "auto": auto,
        "calibrator": calibrator,
        "activation_bits": activation_bits,
        "pretrained": pretrained,
        "weights": weights,
    }
    of_engine = {
        "compute_capability": compute_capability,
        "workspace": workspace,
        "level": level,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "compress": compress,
        "rebuild": rebuild,
    }
    output = user_path(output) if output else None
    check_arguments(model, to, output, of_network, of_engine, batch)
    opened = check_model(model, pretrained, weights)

    from scalenet_zoo.export.metadata import OnnxOptions
    from scalenet_zoo.export.tensorrt.record import EngineOptions

    batches = (batch, batch, batch) if isinstance(batch, int) else batch
    engine_options = EngineOptions(
        library="tensorrt" if to == "tensorrt" else "tensorrt-rtx",
        batch=batches,
        workspace_mib=workspace,
        level=level,
        compute_capabilities=tuple(compute_capability),
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        compress=compress,
    )
    options = OnnxOptions(
        precision=cast("Any", precision or "fp32"),
        batch=batches,
        preprocess=with_preprocess,
        output=_output(with_softmax, with_argmax, with_joints),
        io=cast("Any", io or "fp32"),
        keep_fp32=tuple(keep_fp32),
        target=cast("Any", _target(on, to) if precision == "int8" else None),
        activation_bits=cast("Any", activation_bits or 8),
        calibrator=cast("Any", calibrator),
    )
    engine_options.check()
    is_file = is_exported(model)
    on_hub = isinstance(model, str) and model.startswith(HUB_PREFIX)
    if not (is_file or on_hub):
        options.check(_spec(opened, img_size))
    images = _find_images(Path(calibration), calibration_images) if calibration else []
    stem = file_stem(model) if isinstance(model, str | Path) else _spec(opened).name
    for path in _targets(stem, to, output, with_onnx=not is_file):
        check_writable(path)
    _check_library(to, engine_options)

    from scalenet_zoo.export.conversions import OnnxSource, compare_with_fp32, write_engine, write_ir
    from scalenet_zoo.export.onnx import export_onnx
    from scalenet_zoo.export.triton import write_model_repository

    files: dict[str, Path] = {}
    record = gain = None
    with scratch_folder() as scratch:
        if is_file:
            name, trained, fp32 = Path(str(model)).stem, None, None
            source = OnnxSource(user_path(str(model)))
        else:
            if on_hub:  # its spec is fetched only now
                options.check(_spec(opened, img_size))
            network = _open(opened, seed, pretrained=pretrained, weights=weights, img_size=img_size)
            name = spec_of(network).name
            trained = bool(pretrained or weights or has_weights(model))
            fp32 = scratch / "fp32" / f"{name}.onnx" if options.precision != "fp32" else None
            onnx = _onnx_path(name, to, output, scratch)
            least = _least_agreement(network, trained, min_agreement)
            seen = images or (_data_images(model, network, scratch) if trained else [])
            on_progress(f"exporting {onnx.name}", 0, 0)
            exported = export_onnx(
                network,
                onnx,
                options,
                images,
                seen,
                min_agreement=least,
                auto=auto,
                fp32_beside=fp32,
                on_progress=on_progress,
            )
            source = OnnxSource(onnx, network, exported, seen, least)
            if to not in PASSING:
                files["onnx"] = onnx
        verification = source.verification
        if to in ENGINES:
            files["engine"] = output or Path(source.path.name).with_suffix(".engine")
            record = write_engine(source, files["engine"], engine_options, rebuild, on_progress)
        if to == "openvino":
            target = output or Path(f"{name}.xml")
            verification = write_ir(source, target)
            files |= {"openvino": target, "openvino_weights": target.with_suffix(".bin")}
        if to == "triton":
            files["triton"] = write_model_repository(source.path, output or REPOSITORY)
        if fp32 is not None:
            backend = options.target or (to if to in (*ENGINES, "openvino") else "ort-cpu")
            gain = compare_with_fp32(fp32, {"onnx": source.path, **files}, backend, engine_options, on_progress)
    return ModelExport(name, trained, files, verification, record, gain)


def _output(softmax: bool, argmax: bool, joints: bool) -> "Output":
    """Return what the file returns."""
    return "softmax" if softmax else "argmax" if argmax else "joints" if joints else "raw"


def _check_library(to: ExportFormat, engine_options: "EngineOptions") -> None:
    """Check that the library of a format is installed, and that it can build such an engine here."""
    if to in ENGINES:
        from scalenet_zoo.export.tensorrt.build import find_target

        find_target(engine_options)
    if to == "openvino":
        from scalenet_zoo.export.openvino.library import open_openvino

        open_openvino()


def _data_images(model: "NetworkSource | nn.Module", network: "nn.Module", scratch: Path) -> list[Path]:
    """Return validation images of the data that a network was trained on, if they can be found."""
    from scalenet_zoo.export.data_images import data_images

    (scratch / "images").mkdir()
    return list(data_images(model, spec_of(network), scratch / "images"))


def _spec(model: "NetworkSource | nn.Module", img_size: int | Sequence[int] | None = None) -> ArchSpec:
    """Load the spec of a network, for images of this size."""
    from scalenet_zoo.zoo.catalog import height_and_width

    if not isinstance(model, NetworkSource):
        return spec_of(model)
    height, width = height_and_width(img_size)
    return load_spec(model).replace(height=height, width=width)


def _open(model: "NetworkSource | nn.Module", seed: int, **kwargs: Any) -> "nn.Module":  # noqa: ANN401
    from scalenet_zoo.zoo.create import create_seeded

    return create_seeded(model, seed, **kwargs).eval() if isinstance(model, NetworkSource) else model


def _onnx_path(name: str, to: ExportFormat, output: Path | None, scratch: Path) -> Path:
    """Return the path of a network's ONNX file: beside the engine, or in `scratch` if it is temporary."""
    if to in PASSING:
        return scratch / f"{name}.onnx"
    path = output or Path(f"{name}.onnx")
    return path.with_suffix(".onnx") if to in ENGINES else path


def _targets(name: str, to: ExportFormat, output: Path | None, with_onnx: bool) -> list[Path]:
    """List the files that will be written, as far as their names are known; for Triton, a file in the repository."""
    if to == "triton":
        return [(output or REPOSITORY) / "config.pbtxt"]
    if to == "openvino":
        path = output or Path(f"{name}.xml")
        return [path, path.with_suffix(".bin")]
    onnx = [_onnx_path(name, to, output, Path())] if with_onnx else []
    return onnx + ([output or Path(f"{name}.engine")] if to in ENGINES else [])


def _target(on: str | None, to: ExportFormat) -> str:
    """Return the back end that an int8 file is for; Triton's servers have GPUs."""
    return on or {"onnx": "ort-cpu", "triton": "tensorrt"}.get(to, to)


def _find_images(folder: Path, limit: int) -> list[Path]:
    """Find the images of a folder; those that cannot be read are named in a warning and left out."""
    from scalenet_zoo.data.image_files import find_images

    images, broken = find_images(folder, limit)
    if broken:
        names = ", ".join(path.name for path in broken)
        _log.warning("%s: %d images cannot be read and are left out: %s", folder, len(broken), names)
    return images


def _least_agreement(network: "nn.Module", trained: bool, asked: float | None) -> float:
    """Return the agreement that an int8 file must reach."""
    from scalenet_zoo.export.verify import MIN_AGREEMENT

    if asked is None:  # without training, nearly all outputs are equal, so decisions mean nothing
        return MIN_AGREEMENT[spec_of(network).task] if trained else 0.0
    return asked
