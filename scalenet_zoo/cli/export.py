"""`export`: networks to ONNX files, engines and model repositories."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.options import MODEL, Format, Json, Pretrained, Seed, WeightsOption, parse_size, parse_words

if TYPE_CHECKING:
    from scalenet_zoo.export.tensorrt.record import EngineRecord


def export_command(
    model: Annotated[str, typer.Argument(help=MODEL)],
    to: Annotated[Format, typer.Option(help="The format.")] = Format.onnx,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, or Triton's repository; else NAME.onnx, NAME.xml or NAME.engine in this folder."
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
    on: Annotated[
        str | None,
        typer.Option(help="The back end that int8 is for: ort-cpu, openvino, tensorrt, tensorrt-rtx; else --to's."),
    ] = None,
    keep_fp32: Annotated[
        str | None,
        typer.Option(help="What stays in fp32: operators (Softmax,Gemm) and, of int8, layers (stem,stages.1.0)."),
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Find the few layers that cost int8 most; they stay in fp32.")
    ] = False,
    calibrator: Annotated[
        str | None,
        typer.Option(help="How int8 finds ranges: minmax, percentile or entropy; else whichever agrees best."),
    ] = None,
    activation_bits: Annotated[
        int | None, typer.Option(help="Of int8 on ort-cpu: 8, or 16: a little more exact, and slower than fp32.")
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

    Files in fp16 and int8 are timed beside fp32, where the back end that they are for can run.

    Example: scalenet-zoo export scalenet_s0 --precision int8 --on ort-cpu --calibration photographs
    """
    from dataclasses import asdict

    from scalenet_zoo.cli.console import print_json, progress_bar, say
    from scalenet_zoo.cli.verification import print_gain, print_verification, verification_json
    from scalenet_zoo.export.formats import export_model
    from scalenet_zoo.zoo.sources import UNTRAINED

    with progress_bar() as advance:
        made = export_model(
            model,
            output,
            to.value,
            precision=precision,
            on=on,
            batch=_batch(batch),
            img_size=parse_size(size),
            with_preprocess=with_preprocess,
            with_softmax=with_softmax,
            with_argmax=with_argmax,
            with_joints=with_joints,
            calibration=calibration,
            calibration_images=calibration_images,
            min_agreement=min_agreement,
            io=io,
            keep_fp32=parse_words(keep_fp32),
            auto=auto,
            calibrator=calibrator,
            activation_bits=activation_bits,
            compute_capability=parse_words(compute_capability),
            workspace=workspace,
            level=level,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            compress=compress,
            rebuild=rebuild,
            pretrained=pretrained,
            weights=weights,
            seed=seed,
            on_progress=advance,
        )
    if as_json:
        print_json(
            {
                "name": made.name,
                "trained": made.trained,
                "files": {kind: str(path) for kind, path in made.files.items()},
                "verification": verification_json(made.verification) if made.verification else None,
                "gain": asdict(made.gain) if made.gain else None,
                "engine": made.engine.model_dump(mode="json", exclude={"entries"}) if made.engine else None,
            }
        )
        return
    for path in made.files.values():
        say(f"wrote {path} ({path.stat().st_size:,} bytes)" if path.is_file() else f"wrote {path}{os.sep}")
    if made.trained is False:
        typer.echo(UNTRAINED)
    if made.verification:
        print_verification(made.verification)
    if auto and made.verification:
        kept = made.verification.metadata.options.keep_fp32
        say(f"left in fp32: {', '.join(kept) or 'nothing, since no layer alone costs much'}")
    if made.gain:
        print_gain(made.gain)
    if made.engine:
        _print_engine(made.engine)


def _batch(text: str | None) -> tuple[int, int, int] | None:
    """Read "8" or "1:8:32"."""
    if not text:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,4}):([1-9]\d{0,4}))?", text)
    numbers = [int(number) for number in match.groups() if number] if match else []
    if not numbers or numbers != sorted(numbers):
        raise typer.BadParameter(
            f"--batch: found {text!r}, expected a number of images such as 8, or smallest:optimal:largest as 1:8:32"
        )
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


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
