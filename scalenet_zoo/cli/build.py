"""`build`: from a budget or a spec to files."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.models import has_weights
from scalenet_zoo.cli.options import UNTRAINED, BuildFormat, Json, Pretrained, Seed, TaskName, WeightsOption, parse_size
from scalenet_zoo.core.bounds import THREADS


def build(
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
    precision: Annotated[str | None, typer.Option(help="Of --latency: fp32, if not given, or fp16.")] = None,
    task: Annotated[TaskName | None, typer.Option(help="What it is for; classification if not given.")] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="scalenet, efficientnet or a JSON file; other tasks: scalenas, hrnet, for several people higherhrnet."
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
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    export: Annotated[BuildFormat | None, typer.Option(help="Export the network too, and check the file.")] = None,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Build a network at a budget, or from a spec; write its spec (.json) and weights (.safetensors).

    Example: scalenet-zoo build --flops 600M --export onnx
    """
    if [spec, flops, params, latency].count(None) != 3:
        raise typer.BadParameter("found none or several of SPEC, --flops, --params and --latency, expected one of them")
    if spec is not None and (task or family or divisor):
        raise typer.BadParameter("found --task, --family or --divisor with SPEC, expected them with a budget")
    if divisor and task not in (None, TaskName.classification):
        raise typer.BadParameter(f"found --divisor with --task {task.value}, expected it for classification alone")
    if size and not spec and task in (None, TaskName.classification):
        raise typer.BadParameter("found --size with a classifier's budget, which decides on it")
    if (latency is None) != (on is None):
        raise typer.BadParameter("found one of --latency and --on, expected both")
    if latency is None and (threads or batch or precision):
        raise typer.BadParameter("found --threads, --batch or --precision without --latency, for which they are")

    from scalenet_zoo.arch.spec import Task, spec_of
    from scalenet_zoo.budgets import find_at_latency, spec_for
    from scalenet_zoo.cli.console import print_json, progress, progress_lines
    from scalenet_zoo.cli.latency import check_latency_flags, found_json, print_found
    from scalenet_zoo.core.files import replacing
    from scalenet_zoo.core.outputs import check_writable
    from scalenet_zoo.core.quantities import format_count
    from scalenet_zoo.zoo.catalog import find_networks
    from scalenet_zoo.zoo.create import create_model
    from scalenet_zoo.zoo.sources import load_spec

    for_task: Task = task.value if task else "classification"
    image = parse_size(size) if size else None
    arch = None
    if latency is not None and on is not None:
        check_latency_flags(latency, on, precision)
        find_networks(for_task, family, classes, in_channels or 3, image)
    elif spec is None:
        arch = spec_for(flops, params, for_task, family, divisor or 8, classes, in_channels or 3, image)
    else:
        arch = load_spec(spec)
    check_writable(output / f"{arch.name if arch else 'network'}.json")

    import torch

    from scalenet_zoo.cli.verification import print_verification, verification_json
    from scalenet_zoo.zoo.weights import save_weights

    found = None
    if latency is not None and on is not None:
        if on.startswith("ort"):  # what was measured is an exported file
            export = export or BuildFormat.onnx

        torch.manual_seed(seed)
        with progress_lines() as advance:
            found = find_at_latency(
                latency,
                on,
                for_task,
                family,
                divisor or 8,
                classes,
                in_channels or 3,
                image,
                threads,
                batch or 1,
                precision or "fp32",
                advance,
            )
        arch = found.taken.spec
    assert arch is not None
    if export:  # imported before there is anything to clean up: an interrupt within a native import may crash
        from scalenet_zoo.export.onnx import export_onnx
    torch.manual_seed(seed)
    with progress(f"building {arch.name}"):
        source = spec or arch  # a folder by its name, so that its weights come along
        model = create_model(source, pretrained, classes, in_channels, image, weights=weights)
    built = spec_of(model)
    trained = bool(pretrained or weights or (spec and has_weights(spec)))
    path = output / f"{built.name}.json"
    written = {"spec": path, "weights": path.with_suffix(".safetensors")}
    verification = None
    with replacing(path) as temporary:  # all files of a build appear together
        built.save(temporary)
        save_weights(model, temporary.with_suffix(".safetensors"))
        if export:
            written["onnx"] = path.with_suffix(".onnx")
            with progress(f"exporting {written['onnx']}"):
                verification = export_onnx(model, temporary.with_suffix(".onnx"))

    if as_json:
        print_json(
            {
                **built.model_dump(mode="json", include={"name", "task", "input", "classes", "cost", "provenance"}),
                "hash": built.hash,
                "trained": trained,
                "files": {kind: str(path) for kind, path in written.items()},
                "latency": found_json(found) if found else None,
                "verification": verification_json(verification) if verification else None,
            }
        )
        return
    typer.echo(
        f"{built.name}: {format_count(built.cost.macs)} MACs, {format_count(built.cost.params)} parameters,"
        f" input {built.input.height}x{built.input.width}"
    )
    for path in written.values():
        typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if not trained:
        typer.echo(UNTRAINED)
    if found:
        print_found(found)
    if verification:
        if found:
            typer.echo(
                "\nthe exported file, checked; its latencies here are of a moment, not of the machine's best speed:"
            )
        print_verification(verification)
