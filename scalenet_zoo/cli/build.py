"""`build`: from a budget or a spec to files."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import BuildFormat, InheritOption, Json, Seed, TaskName, WeightsOption, parse_size
from scalenet_zoo.core.bounds import THREADS


def build_command(
    spec: Annotated[
        str | None,
        typer.Argument(help="A name of the zoo, a spec's JSON file, hf-hub:org/name, a folder; or give a budget."),
    ] = None,
    flops: Annotated[str | None, typer.Option(help="At most so many MACs, such as 600M.")] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters, such as 5M.")] = None,
    latency: Annotated[str | None, typer.Option(help="At most so long an inference, such as 4ms; needs --on.")] = None,
    on: Annotated[str | None, typer.Option(help="The back end of --latency: ort-cpu, torch, tensorrt, ...")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=THREADS, help="CPU threads of --latency; all cores if not given.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once of --latency; 1 if not given.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of --latency: fp32, if not given, fp16, or on ort-cpu and openvino int8; with --pretrained also any."
        ),
    ] = None,
    task: Annotated[TaskName | None, typer.Option(help="What it is for; classification if not given.")] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="scalenet, efficientnet, efficientnet_lite or a JSON file; other tasks: scalenas, hrnet, for several"
            " people higherhrnet."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Of the image, with SPEC or other tasks: height x width as 512x1024.")
    ] = None,
    divisor: Annotated[
        int | None, typer.Option(min=1, max=256, help="Channels are multiples of it, 8 if not given; 1: papers' ceil.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Classes or joints, if not the family's.")] = None,
    in_channels: Annotated[int | None, typer.Option(min=1, help="Channels of the image, if not 3.")] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="Load published weights; at a budget, start from those of the entry that fits best; with --latency"
            " alone, take the most accurate published network that meets it.",
        ),
    ] = False,
    weights: WeightsOption = None,
    inherit: InheritOption = None,
    export: Annotated[BuildFormat | None, typer.Option(help="Export the network too, and check the file.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of images: an int8 file takes the ranges of its values from them.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Build a network at a budget, or from a spec; write its spec (.json) and weights (.safetensors).

    Example: scalenet-zoo build --flops 600M --export onnx
    """
    from dataclasses import asdict

    from scalenet_zoo.budgets import build_files
    from scalenet_zoo.cli.console import print_json, progress_lines, say
    from scalenet_zoo.cli.latency import chosen_json, found_json, print_chosen, print_found
    from scalenet_zoo.cli.verification import print_gain, print_verification, verification_json
    from scalenet_zoo.core.quantities import format_count
    from scalenet_zoo.zoo.sources import UNTRAINED

    with progress_lines() as advance:
        built = build_files(
            spec,
            output,
            flops=flops,
            params=params,
            latency=latency,
            on=on,
            threads=threads,
            batch=batch,
            precision=precision,
            task=task.value if task else None,
            family=family,
            img_size=parse_size(size),
            divisor=divisor,
            num_classes=classes,
            in_chans=in_channels,
            pretrained=pretrained,
            weights=weights,
            inherit=inherit,
            export=export is not None,
            calibration=calibration,
            seed=seed,
            on_progress=advance,
        )
    arch, found, verification = built.spec, built.found, built.verification
    if as_json:
        print_json(
            {
                **arch.model_dump(mode="json", include={"name", "task", "input", "classes", "cost", "provenance"}),
                "hash": arch.hash,
                "trained": built.trained,
                "inherited": asdict(built.inherited) if built.inherited else None,
                "files": {kind: str(path) for kind, path in built.files.items()},
                "latency": found_json(found) if found else None,
                "chosen": chosen_json(built.chosen) if built.chosen else None,
                "verification": verification_json(verification) if verification else None,
                "gain": asdict(built.gain) if built.gain else None,
            }
        )
        return
    typer.echo(
        f"{arch.name}: {format_count(arch.cost.macs)} MACs, {format_count(arch.cost.params)} parameters,"
        f" input {arch.input.height}x{arch.input.width}"
    )
    for path in built.files.values():
        typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if built.inherited:
        say(f"weights from {built.inherited}")
    if not built.trained:
        typer.echo(UNTRAINED)
    if built.chosen:
        print_chosen(built.chosen, made_int8=verification is not None)
    if found:
        print_found(found)
        if found.settings.precision == "int8" and verification is None:
            typer.echo(
                f"\nthe int8 file: scalenet-zoo export {built.files['spec']} --weights {built.files['weights']}"
                f" --precision int8 --on {found.settings.backend} --calibration IMAGES"
            )
    if verification:
        if found or built.chosen:
            typer.echo(
                "\nthe exported file, checked; its latencies here are of a moment, not of the machine's best speed:"
            )
        print_verification(verification)
    if built.gain:
        print_gain(built.gain)
