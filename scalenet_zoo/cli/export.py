"""`export`: networks to ONNX files, engines and model repositories."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.completion import complete_backend, complete_model, complete_precision
from scalenet_zoo.cli.options import MODEL, Format, Json, Pretrained, Seed, WeightsOption, parse_size, parse_words

if TYPE_CHECKING:
    from scalenet_zoo.export.tensorrt.record import EngineRecord

FILE = "The file"
PROCESSING = "Inputs and outputs of the file"
REDUCED = "fp16 and int8"
TENSORRT = "TensorRT"


def export_command(
    model: Annotated[str, typer.Argument(help=MODEL, autocompletion=complete_model)],
    to: Annotated[Format, typer.Option(help="The format.", rich_help_panel=FILE)] = Format.onnx,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, or Triton's repository; NAME.onnx, NAME.xml or NAME.engine in this folder if not"
            " given.",
            rich_help_panel=FILE,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16 or int8; fp32 if not given.",
            autocompletion=complete_precision,
            rich_help_panel=FILE,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Images per inference: 8, or smallest:optimal:largest as 1:8:32; any number if not given.",
            rich_help_panel=FILE,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="The size of the image: 288, or height x width as 288x384.", rich_help_panel=FILE),
    ] = None,
    with_preprocess: Annotated[
        bool,
        typer.Option(
            "--with-preprocess",
            help="Take uint8 images (batch, height, width, channels), and normalise them in the file.",
            rich_help_panel=PROCESSING,
        ),
    ] = False,
    with_softmax: Annotated[
        bool,
        typer.Option("--with-softmax", help="Classification: return probabilities.", rich_help_panel=PROCESSING),
    ] = False,
    with_argmax: Annotated[
        bool,
        typer.Option("--with-argmax", help="Segmentation: return the class of each pixel.", rich_help_panel=PROCESSING),
    ] = False,
    with_joints: Annotated[
        bool,
        typer.Option("--with-joints", help="Pose: return x, y and score of each joint.", rich_help_panel=PROCESSING),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images. The ranges of int8 values come from them, and the check of the file uses them.",
            rich_help_panel=REDUCED,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="The most images to use from that folder.", rich_help_panel=REDUCED)
    ] = 128,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="int8: the least agreement with fp32 on these images. If not given: 0.8 in segmentation and 0.9 in"
            " other tasks for networks with weights, 0 for networks without.",
            rich_help_panel=REDUCED,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="The back end that an int8 file is for: ort-cpu, openvino, tensorrt or tensorrt-rtx; that of --to if"
            " not given.",
            autocompletion=complete_backend,
            rich_help_panel=REDUCED,
        ),
    ] = None,
    calibrator: Annotated[
        str | None,
        typer.Option(
            help="int8: how to find the ranges of values: minmax, percentile or entropy; the one that agrees best with"
            " fp32 if not given.",
            rich_help_panel=REDUCED,
        ),
    ] = None,
    keep_fp32: Annotated[
        str | None,
        typer.Option(
            help="Operators that stay in fp32 (Softmax,Gemm) and, for int8, layers (stem,stages.1.0).",
            rich_help_panel=REDUCED,
        ),
    ] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="int8: find the few layers that lose the most accuracy, and keep them in fp32.",
            rich_help_panel=REDUCED,
        ),
    ] = False,
    activation_bits: Annotated[
        int | None,
        typer.Option(
            help="int8 on ort-cpu: 8 or 16. 16 bits are slightly more exact, and slower than fp32.",
            rich_help_panel=REDUCED,
        ),
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(
            help="fp16: the type of inputs and outputs: fp32 or fp16; fp32 if not given.", rich_help_panel=REDUCED
        ),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="TensorRT-RTX: the GPUs to build for, such as 8.9,12.0; this machine needs none of them.",
            rich_help_panel=TENSORRT,
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="The most memory for one layer, in MiB.", rich_help_panel=TENSORRT)
    ] = None,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="The effort of the builder.", rich_help_panel=TENSORRT)
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Build an engine that also runs in newer versions.",
            rich_help_panel=TENSORRT,
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="Build an engine that also runs on other GPUs, Ampere and newer.",
            rich_help_panel=TENSORRT,
        ),
    ] = False,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress the engine with gzip.", rich_help_panel=TENSORRT)
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Build the engine even if there is one already.", rich_help_panel=TENSORRT),
    ] = False,
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Export a network, and check that the file computes the same.

    An engine and a repository for Triton are made from an ONNX file, which is written beside the engine; or give an
    ONNX file as the model.

    An fp16 or int8 file is timed in turn with fp32 if its back end can run here.

    Example: scalenet-zoo export scalenet_s0 --precision fp16
    """
    from dataclasses import asdict

    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.progress import progress_bar
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
    """Print the facts about an engine, and a table of its layers."""
    from scalenet_zoo.cli.console import print_table, say

    targets = ", ".join(record.options.compute_capabilities) or "from 8.0 on"
    where = f"{record.device.name}, checked there" if record.device else f"compute capability {targets}, not run here"
    typer.echo()
    say(f"{record.library} {record.tensorrt}, {record.precision}, batches {':'.join(map(str, record.batch))}")
    say(f"for {where}")
    if record.summary is None:
        return
    for name, size in (("weights", record.summary.weights_bytes), ("activations", record.summary.activation_bytes)):
        if size is not None:
            typer.echo(f"{name} {size / 2**20:.1f} MiB")
    typer.echo()
    print_table(("layers", "read", "write", "count"), record.summary.rows(), align="lllr")
