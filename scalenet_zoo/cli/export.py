"""`export`: networks to files for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import UNTRAINED, Format, Json, Pretrained, Seed, Weights


def export(
    model: Annotated[str, typer.Argument(help="A name of the zoo, or a spec's JSON file.")],
    to: Annotated[Format, typer.Option(help="The format.")] = Format.onnx,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; NAME.onnx in this folder if not given.")
    ] = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Export a network, with any number of images a batch, and check the file on a photograph.

    Example: scalenet-zoo export scalenet_s0 --to onnx
    """
    import torch

    from scalenet_zoo.cli.console import print_json, progress
    from scalenet_zoo.cli.verification import print_verification, verification_json
    from scalenet_zoo.export.onnx import export_onnx
    from scalenet_zoo.zoo import create_model, load_spec

    spec = load_spec(model)
    path = output or Path(f"{spec.name}.{to.value}")
    torch.manual_seed(seed)
    network = create_model(spec, pretrained, weights=weights)
    with progress(f"exporting {path}"):
        verification = export_onnx(network, path)
    if as_json:
        print_json(
            {
                "name": spec.name,
                "trained": bool(pretrained or weights),
                "files": {"onnx": str(path)},
                "verification": verification_json(spec, verification),
            }
        )
        return
    typer.echo(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if not (pretrained or weights):
        typer.echo(UNTRAINED)
    print_verification(spec, verification)
