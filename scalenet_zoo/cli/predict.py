"""`predict`: what a network says about images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.options import UNTRAINED, Json, Pretrained, Seed, Weights

if TYPE_CHECKING:
    from scalenet_zoo.export.verify import Exported


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[
        str, typer.Option(help="A name of the zoo, a spec's JSON file, an ONNX file or an engine of `export`.")
    ],
    pretrained: Pretrained = False,
    weights: Weights = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict classes, the classes' areas, or joints, for images.

    Example: scalenet-zoo predict cat.jpg --model efficientnet_b0 --pretrained
    """
    from collections.abc import Callable
    from functools import partial

    import numpy as np
    import torch

    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.export.inputs import file_transform
    from scalenet_zoo.export.metadata import Metadata, OnnxOptions
    from scalenet_zoo.export.verify import run_torch
    from scalenet_zoo.images import read_image
    from scalenet_zoo.predict import describe
    from scalenet_zoo.spec import spec_of
    from scalenet_zoo.zoo import create_model, pretrained_cfg

    is_file = model.endswith((".onnx", ".engine"))
    if is_file:
        if pretrained or weights:
            raise typer.BadParameter(
                "found --pretrained or --weights, expected neither: an exported file has its weights"
            )
        exported = _open(model)
        run: Callable[[np.ndarray], np.ndarray] = exported
        metadata = exported.metadata
    else:
        torch.manual_seed(seed)
        network = create_model(model, pretrained, weights=weights).eval()
        spec = spec_of(network)
        run, metadata = partial(run_torch, network), Metadata(spec, pretrained_cfg(spec), OnnxOptions())
    transform, smallest = file_transform(metadata), (metadata.options.batch or (1,))[0]

    def output(path: Path) -> np.ndarray:
        image = transform(read_image(path))
        found: np.ndarray = run(np.repeat(image[None], smallest, axis=0))[0]  # as often as the file takes at least
        return found

    form, names = metadata.options.output, metadata.class_names
    results = {str(path): describe(metadata.spec, output(path), top, form, names) for path in images}
    if not (pretrained or weights or is_file):
        typer.echo(f"{UNTRAINED} (--pretrained, --weights)", err=True)
    if as_json:
        print_json(results)
        return
    for path, rows in results.items():
        typer.echo(path)
        cells = [[f"{value:.6g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
        print_table(
            tuple(rows[0]), cells, align="".join("l" if isinstance(value, str) else "r" for value in rows[0].values())
        )


def _open(path: str) -> "Exported":
    """An exported file, ready to run."""
    if path.endswith(".engine"):
        from scalenet_zoo.export.engine_network import EngineNetwork

        return EngineNetwork.load(path)
    from scalenet_zoo.export.onnx_network import OnnxNetwork

    return OnnxNetwork.load(path)
