"""`export`: networks to ONNX files, engines and model repositories."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scalenet_zoo.cli.models import HUB, MODEL, check_model, has_weights, is_exported, open_network
from scalenet_zoo.cli.options import UNTRAINED, Format, Json, Pretrained, Seed, WeightsOption, parse_size
from scalenet_zoo.core.file_kinds import ENGINE, exported_kind, user_path

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.export.metadata import OnnxOptions, Output, Precision
    from scalenet_zoo.export.tensorrt.record import EngineOptions, EngineRecord
    from scalenet_zoo.export.verify import Verification

ENGINES = (Format.tensorrt, Format.tensorrt_rtx)
REPOSITORY = Path("model_repository")
"""Triton's, if no other is named."""


def export(
    model: Annotated[str, typer.Argument(help=MODEL)],
    to: Annotated[Format, typer.Option(help="The format.")] = Format.onnx,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, or Triton's repository; by default NAME.onnx, NAME.engine in this folder."
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, if not given, fp16 or int8.")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Images at once: 8, or smallest:optimal:largest as 1:8:32; any if not given.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Of the image: 288, or height x width as 288x384.")] = None,
    with_preprocess: Annotated[
        bool, typer.Option("--with-preprocess", help="Take uint8 images (batch, height, width, channels).")
    ] = False,
    with_softmax: Annotated[bool, typer.Option("--with-softmax", help="Give a classifier's probabilities.")] = False,
    with_argmax: Annotated[bool, typer.Option("--with-argmax", help="Give the class of each pixel.")] = False,
    with_joints: Annotated[bool, typer.Option("--with-joints", help="Give the joints' x, y and score.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of images: the ranges of int8, and the check, are taken from them.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="Of that folder, at most.")] = 128,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of int8 with fp32 on these images; for networks with weights 0.9, or 0.8."),
    ] = None,
    io: Annotated[str | None, typer.Option(help="Inputs and outputs of fp16: fp32, if not given, or fp16.")] = None,
    keep_fp32: Annotated[
        str | None, typer.Option(help="Operators that fp16 leaves in fp32, separated by commas: Softmax,Gemm.")
    ] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="TensorRT-RTX: GPUs to build for, without one, such as 8.9,12.0.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(min=1, help="TensorRT: MiB that a layer may use.")] = None,
    level: Annotated[int | None, typer.Option(min=0, max=5, help="TensorRT: the builder's effort.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: the engine runs in newer versions too.")
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="TensorRT: the engine runs on other GPUs too, Ampere and newer."),
    ] = False,
    compress: Annotated[bool, typer.Option("--compress", help="TensorRT: keep the engine gzip-compressed.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="TensorRT: build even if there is an engine.")] = False,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Export a network, and check that the file computes what the network does.

    For an engine and for Triton, the ONNX file is written first, beside the engine; or give one.

    Example: scalenet-zoo export scalenet_s0 --precision fp16 --batch 1:8:32
    """
    is_file = is_exported(model)
    of_network = {
        "--precision": precision,
        "--size": size,
        "--with-preprocess": with_preprocess,
        "--with-softmax": with_softmax,
        "--with-argmax": with_argmax,
        "--with-joints": with_joints,
        "--calibration": calibration,
        "--min-agreement": min_agreement is not None,
        "--io": io,
        "--keep-fp32": keep_fp32,
        "--pretrained": pretrained,
        "--weights": weights,
    }
    of_engine = {
        "--compute-capability": compute_capability,
        "--workspace": workspace is not None,
        "--level": level is not None,
        "--version-compatible": version_compatible,
        "--hardware-compatible": hardware_compatible,
        "--compress": compress,
        "--rebuild": rebuild,
    }
    if is_file:
        _refuse(of_network, f"with the file {model}", "expected it with a network")
    if to not in ENGINES:
        _refuse(of_engine, f"with --to {to.value}", "expected it with --to tensorrt or tensorrt-rtx")
    if is_file and (to is Format.onnx or (exported_kind(user_path(model)) == ENGINE and to is not Format.triton)):
        raise typer.BadParameter(f"--to: found {to.value} for the file {model}, expected a network's name")
    if is_file and to is Format.triton and batch:
        raise typer.BadParameter(f"--batch: found it with the file {model}, which has its own")
    forms = {"softmax": with_softmax, "argmax": with_argmax, "joints": with_joints}
    chosen = [form for form, wanted in forms.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"found --with-{chosen[0]} and --with-{chosen[1]}, expected at most one of them")
    form = cast("Output", chosen[0] if chosen else "raw")
    batches = _batch(batch) if batch else None
    image = parse_size(size) if size else None
    kind = cast("Precision", _choice(precision or "fp32", "--precision", ("fp32", "fp16", "int8")))
    io_kind = cast("Any", _choice(io or "fp32", "--io", ("fp32", "fp16")))
    if kind == "int8" and calibration is None:
        raise typer.BadParameter("--precision: found int8 without --calibration, expected a folder of images with it")

    if to in ENGINES and output is not None and output.suffix.lower() == ".onnx":
        raise typer.BadParameter(f"--output: found {output}, expected a name for the engine, such as NAME.engine")
    # What takes no time is looked at first, in this order: names, quantities, images, where the files go.
    check_model(model, pretrained, weights)

    from scalenet_zoo.core.files import scratch_folder
    from scalenet_zoo.core.outputs import check_writable
    from scalenet_zoo.export.metadata import OnnxOptions
    from scalenet_zoo.export.tensorrt.record import EngineOptions

    engine_options = EngineOptions(
        library="tensorrt" if to is Format.tensorrt else "tensorrt-rtx",
        batch=batches,
        workspace_mib=workspace,
        level=level,
        compute_capabilities=tuple(map(str.strip, compute_capability.split(","))) if compute_capability else (),
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        compress=compress,
    )
    options = OnnxOptions(
        precision=kind,
        batch=batches,
        preprocess=with_preprocess,
        output=form,
        io=io_kind,
        keep_fp32=tuple(name.strip() for name in keep_fp32.split(",")) if keep_fp32 else (),
    )
    engine_options.check()
    if not (is_file or model.startswith(HUB)):
        options.check(_resized(model, image))
    images = _images(calibration, calibration_images) if calibration else []
    for path in _targets(Path(model).stem, to, output, with_onnx=not is_file):
        check_writable(path)

    from scalenet_zoo.arch.spec import spec_of
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.verification import print_verification, verification_json

    if to in ENGINES:
        from scalenet_zoo.export.tensorrt.build import find_target

        find_target(engine_options)
    source, network, verification, record = user_path(model), None, None, None
    trained = bool(pretrained or weights or has_weights(model))
    written: dict[str, Path] = {}
    with scratch_folder() as scratch:
        if not is_file:
            spec = _resized(model, image)
            options.check(spec)
            network = open_network(model, pretrained, weights, seed, image)
            source = _onnx_path(spec.name, to, output, scratch)
            verification = _export_onnx(network, source, options, images, min_agreement, trained)
            if to is not Format.triton:
                written["onnx"] = source
        if to in ENGINES:
            written["engine"] = output or Path(source.name).with_suffix(".engine")
            record = _build_engine(source, written["engine"], engine_options, rebuild, network, images)
        if to is Format.triton:
            from scalenet_zoo.export.triton import write_model_repository

            written["triton"] = write_model_repository(source, output or REPOSITORY)

    built = spec_of(network) if network else None
    if as_json:
        print_json(
            {
                "name": built.name if built else source.stem,
                "trained": None if is_file else trained,
                "files": {kind: str(path) for kind, path in written.items()},
                "verification": verification_json(verification) if verification else None,
                "engine": record.model_dump(mode="json", exclude={"entries"}) if record else None,
            }
        )
        return
    for path in written.values():
        say(f"wrote {path} ({path.stat().st_size:,} bytes)" if path.is_file() else f"wrote {path}{os.sep}")
    if network and not trained:
        typer.echo(UNTRAINED)
    if verification:
        print_verification(verification)
    if record:
        _print_engine(record)


def _resized(model: str, size: tuple[int, int] | None) -> "ArchSpec":
    """The spec of a network, for images of this height and width."""
    from scalenet_zoo.zoo.sources import load_spec

    height, width = size or (None, None)
    return load_spec(model).replace(height=height, width=width)


def _onnx_path(name: str, to: Format, output: Path | None, scratch: Path) -> Path:
    """Where a network's ONNX file goes: beside the engine, or for Triton out of the way."""
    if to is Format.triton:
        return scratch / f"{name}.onnx"
    path = output or Path(f"{name}.onnx")
    return path.with_suffix(".onnx") if to in ENGINES else path


def _targets(name: str, to: Format, output: Path | None, with_onnx: bool) -> list[Path]:
    """The files that will be written, as far as their names are known; in Triton's repository, one beside the model."""
    if to is Format.triton:
        return [(output or REPOSITORY) / "config.pbtxt"]
    onnx = [_onnx_path(name, to, output, Path())] if with_onnx else []
    return onnx + ([output or Path(f"{name}.engine")] if to in ENGINES else [])


def _refuse(flags: Mapping[str, object], found: str, expected: str) -> None:
    """Complain of the first flag that was given."""
    for flag, given in flags.items():
        if given:
            raise typer.BadParameter(f"{flag}: found it {found}, {expected}")


def _choice(text: str, flag: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise typer.BadParameter(f"{flag}: found {text!r}, expected {', '.join(choices[:-1])} or {choices[-1]}")
    return text


def _batch(text: str) -> tuple[int, int, int]:
    """Read "8" or "1:8:32"."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,4}):([1-9]\d{0,4}))?", text)
    numbers = [int(number) for number in match.groups() if number] if match else []
    if not numbers or numbers != sorted(numbers):
        raise typer.BadParameter(
            f"--batch: found {text!r}, expected a number of images such as 8, or smallest:optimal:largest as 1:8:32"
        )
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def _images(folder: Path, limit: int) -> list[Path]:
    """The images of a folder; those that cannot be read are named and left out."""
    from scalenet_zoo.cli.console import say
    from scalenet_zoo.data.image_files import find_images

    images, broken = find_images(folder, limit)
    if broken:
        names = ", ".join(path.name for path in broken)
        say(f"{folder}: {len(broken)} images cannot be read and are left out: {names}", err=True)
    return images


def _export_onnx(
    network: "nn.Module",
    path: Path,
    options: "OnnxOptions",
    images: list[Path],
    min_agreement: float | None,
    trained: bool,
) -> "Verification":
    from scalenet_zoo.arch.spec import spec_of
    from scalenet_zoo.cli.console import progress
    from scalenet_zoo.export.onnx import export_onnx
    from scalenet_zoo.export.verify import MIN_AGREEMENT

    if min_agreement is None:  # without training nearly all outputs are equal: nothing to agree on
        min_agreement = MIN_AGREEMENT[spec_of(network).task] if trained else 0.0
    with progress(f"exporting {path.name}"):
        return export_onnx(network, path, options, images, images, min_agreement=min_agreement)


def _build_engine(
    source: Path, path: Path, options: "EngineOptions", rebuild: bool, network: "nn.Module | None", images: list[Path]
) -> "EngineRecord":
    """Build an engine; one for this GPU is compared with the network, or with the ONNX file, before it appears."""
    from functools import partial

    from scalenet_zoo.cli.console import progress_bar
    from scalenet_zoo.data.image_files import sample_photographs
    from scalenet_zoo.export.onnx_network import OnnxNetwork
    from scalenet_zoo.export.tensorrt.build import build_engine
    from scalenet_zoo.export.tensorrt.network import EngineNetwork
    from scalenet_zoo.export.verify import compare, run_torch

    def check(engine: EngineNetwork) -> None:
        reference = partial(run_torch, network.eval()) if network is not None else OnnxNetwork.load_inner(source)
        compare(reference, engine, images or sample_photographs())

    with progress_bar() as on_progress:
        return build_engine(source, path, options, on_progress, rebuild, check)


def _print_engine(record: "EngineRecord") -> None:
    """What an engine is, and what it is made of."""
    from scalenet_zoo.cli.console import print_table

    targets = ", ".join(record.options.compute_capabilities) or "from 8.0 on"
    where = f"{record.device.name}, checked there" if record.device else f"compute capability {targets}, not run here"
    typer.echo(f"\n{record.library} {record.tensorrt}, {record.precision}, batches {':'.join(map(str, record.batch))}")
    typer.echo(f"for {where}")
    if record.summary is None:
        return
    for name, size in (("weights", record.summary.weights_bytes), ("activations", record.summary.activation_bytes)):
        if size is not None:
            typer.echo(f"{name} {size / 2**20:.1f} MiB")
    typer.echo()
    print_table(("layers", "read", "write", "count"), record.summary.rows(), align="lllr")
