"""`build`: from a budget or a spec to files."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.completion import complete_backend, complete_family, complete_model, complete_precision
from scalenet_zoo.cli.options import (
    BUDGET,
    LATENCY,
    WEIGHTS_PANEL,
    BuildFormat,
    InheritOption,
    Json,
    Seed,
    TaskName,
    WeightsOption,
    parse_size,
)
from scalenet_zoo.core.bounds import THREADS

NETWORK = "The network"
_FILES = "Files"


def build_command(
    spec: Annotated[
        str | None,
        typer.Argument(
            help="An entry, a spec's JSON file, hf-hub:org/name or a folder. Without it, give a budget.",
            autocompletion=complete_model,
        ),
    ] = None,
    flops: Annotated[str | None, typer.Option(help="The most MACs, such as 600M.", rich_help_panel=BUDGET)] = None,
    params: Annotated[str | None, typer.Option(help="The most parameters, such as 5M.", rich_help_panel=BUDGET)] = None,
    latency: Annotated[
        str | None,
        typer.Option(help="The longest time of one inference, such as 4ms; requires --on.", rich_help_panel=BUDGET),
    ] = None,
    task: Annotated[
        TaskName | None, typer.Option(help="The task; classification if not given.", rich_help_panel=BUDGET)
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="The family to choose from. For classification: scalenet, efficientnet, efficientnet_lite or a"
            " family's JSON file; for other tasks: scalenas or hrnet; for several people: higherhrnet.",
            autocompletion=complete_family,
            rich_help_panel=BUDGET,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="The back end of --latency: ort-cpu, torch, tensorrt, ...",
            autocompletion=complete_backend,
            rich_help_panel=LATENCY,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=THREADS,
            help="CPU threads of --latency; as many as there are cores if not given.",
            rich_help_panel=LATENCY,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images per inference of --latency; 1 if not given.", rich_help_panel=LATENCY),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="The precision of --latency: fp32, fp16 or, on ort-cpu and openvino, int8; fp32 if not given. With"
            " --pretrained, `any` compares all of them.",
            autocompletion=complete_precision,
            rich_help_panel=LATENCY,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The size of the image, with SPEC or for other tasks than classification: height x width as 512x1024.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    divisor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Channels are multiples of this number; 8 if not given. 1 rounds them up, as in the papers.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="Classes or joints; the family's number if not given.", rich_help_panel=NETWORK),
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the image; 3 if not given.", rich_help_panel=NETWORK)
    ] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="Load published weights. At a budget, start from those of the entry that fits best. With --latency and"
            " no --family, build the most accurate published network within the budget.",
            rich_help_panel=WEIGHTS_PANEL,
        ),
    ] = False,
    weights: WeightsOption = None,
    inherit: InheritOption = None,
    seed: Seed = 0,
    export: Annotated[
        BuildFormat | None,
        typer.Option(help="Also export the network to this format, and check the file.", rich_help_panel=_FILES),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, from which an int8 file takes its ranges of values.", rich_help_panel=_FILES
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder to write to.", rich_help_panel=_FILES)] = Path(),
    as_json: Json = False,
) -> None:
    """Build a network at a budget, or from a spec.

    Writes the network's spec (.json) and its weights (.safetensors).

    Example: scalenet-zoo build --flops 600M --export onnx
    """
    from dataclasses import asdict

    from scalenet_zoo.building import build_files
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.latency import chosen_json, found_json, print_chosen, print_found
    from scalenet_zoo.cli.progress import progress_lines
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
        say(f"wrote {path} ({path.stat().st_size:,} bytes)")
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
                f"\nto write the int8 file: scalenet-zoo export {built.files['spec']}"
                f" --weights {built.files['weights']} --precision int8 --on {found.settings.backend}"
                " --calibration IMAGES"
            )
    if verification:
        if found or built.chosen:
            typer.echo()
            say("the check of the exported file, with latencies as they are now, not at this machine's best speed:")
        print_verification(verification)
    if built.gain:
        print_gain(built.gain)
