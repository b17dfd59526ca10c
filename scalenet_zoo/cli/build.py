"""`build`: from a budget or a spec to files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.options import Format, Json, Pretrained, Seed, TaskName, Weights

if TYPE_CHECKING:
    from scalenet_zoo.export.verify import Verification
    from scalenet_zoo.spec import ArchSpec


def build(
    spec: Annotated[
        str | None, typer.Argument(help="A name of the zoo, or a spec's JSON file; or give a budget.")
    ] = None,
    flops: Annotated[str | None, typer.Option(help="At most so many MACs, such as 600M.")] = None,
    params: Annotated[str | None, typer.Option(help="At most so many parameters, such as 5M.")] = None,
    task: Annotated[TaskName, typer.Option(help="What the network is for.")] = TaskName.classification,
    family: Annotated[
        str | None, typer.Option(help="scalenet or efficientnet; scalenas or hrnet for other tasks.")
    ] = None,
    divisor: Annotated[
        int, typer.Option(min=1, max=256, help="Channels are multiples of it; 1: the papers' ceil.")
    ] = 8,
    classes: Annotated[int | None, typer.Option(min=1, help="Classes or joints, if not the family's.")] = None,
    in_channels: Annotated[int | None, typer.Option(min=1, help="Channels of the image, if not 3.")] = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    export: Annotated[Format | None, typer.Option(help="Export the network too, and check the file.")] = None,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Build a network at a budget, or from a spec; write its spec (.json) and weights (.safetensors).

    Example: scalenet-zoo build --flops 600M --export onnx
    """
    if [spec, flops, params].count(None) != 2:
        raise typer.BadParameter("found none or several of SPEC, --flops and --params, expected one of them")

    import torch

    from scalenet_zoo.cli.console import print_json, progress
    from scalenet_zoo.hub import save_weights
    from scalenet_zoo.quantities import format_count
    from scalenet_zoo.spec import spec_of
    from scalenet_zoo.zoo import create_model, load_spec, spec_for

    if spec is None:
        arch = spec_for(flops, params, task.value, family, divisor, classes, in_channels or 3)
    else:
        arch = load_spec(spec)
    torch.manual_seed(seed)
    with progress(f"building {arch.name}"):
        model = create_model(arch, pretrained, num_classes=classes, in_chans=in_channels, weights=weights)
    built = spec_of(model)
    written = {"spec": output / f"{built.name}.json", "weights": output / f"{built.name}.safetensors"}
    built.save(written["spec"])
    save_weights(model, written["weights"])
    verification = None
    if export:
        from scalenet_zoo.export.onnx import export_onnx

        written["onnx"] = output / f"{built.name}.onnx"
        with progress(f"exporting {written['onnx']}"):
            verification = export_onnx(model, written["onnx"])

    if as_json:
        print_json(
            {
                **built.model_dump(mode="json", include={"name", "task", "input", "classes", "cost", "provenance"}),
                "hash": built.hash,
                "files": {kind: str(path) for kind, path in written.items()},
                "verification": verification_json(built, verification) if verification else None,
            }
        )
        return
    typer.echo(
        f"{built.name}: {format_count(built.cost.macs)} MACs, {format_count(built.cost.params)} parameters,"
        f" input {built.input.height}x{built.input.width}"
    )
    for path in written.values():
        typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if not (pretrained or weights):
        typer.echo("the weights are initial, not trained: predictions mean nothing yet")
    if verification:
        print_verification(built, verification)


def print_verification(spec: "ArchSpec", check: "Verification") -> None:
    """What the network and its exported file say about a photograph, how far apart, and how fast."""
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.predict import describe, row_text

    typer.echo()
    rows = zip(describe(spec, check.expected), describe(spec, check.found), strict=True)
    print_table(
        ("", "PyTorch", "ONNX Runtime"),
        [
            *(
                (f"{check.photograph} {i}", row_text(ours), row_text(theirs))
                for i, (ours, theirs) in enumerate(rows, 1)
            ),
            ("latency, 1 image", f"{check.torch_ms:.2f} ms", f"{check.onnxruntime_ms:.2f} ms"),
        ],
        align="lll",
    )
    typer.echo(
        f"largest difference {check.difference:.2g}, {check.relative:.2g} of the largest output"
        f" (batches of 1 and 3); {check.threads} CPU threads"
    )


def verification_json(spec: "ArchSpec", check: "Verification") -> dict[str, object]:
    """The same for programs."""
    from scalenet_zoo.predict import describe

    return {
        "photograph": check.photograph,
        "torch": {"predictions": describe(spec, check.expected), "latency_ms": check.torch_ms},
        "onnxruntime": {"predictions": describe(spec, check.found), "latency_ms": check.onnxruntime_ms},
        "difference": check.difference,
        "relative_difference": check.relative,
        "threads": check.threads,
    }
