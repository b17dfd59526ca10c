"""`predict`: what a network says about images."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import UNTRAINED, Json, Pretrained, Seed, Weights


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str, typer.Option(help="A name of the zoo, a spec's JSON file, or an ONNX file of `export`.")],
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
    from scalenet_zoo.export.onnx import OnnxNetwork
    from scalenet_zoo.export.verify import run_torch
    from scalenet_zoo.images import preprocessing, read_image
    from scalenet_zoo.predict import describe
    from scalenet_zoo.spec import spec_of
    from scalenet_zoo.zoo import create_model, pretrained_cfg

    if model.endswith(".onnx"):
        if pretrained or weights:
            raise typer.BadParameter("found --pretrained or --weights, expected neither: an ONNX file has its weights")
        exported = OnnxNetwork.load(model)
        spec, cfg = exported.spec, exported.pretrained_cfg
        run: Callable[[np.ndarray], np.ndarray] = exported
    else:
        torch.manual_seed(seed)
        network = create_model(model, pretrained, weights=weights).eval()
        spec = spec_of(network)
        cfg, run = pretrained_cfg(spec), partial(run_torch, network)
    transform = preprocessing(spec, cfg)
    results = {str(path): describe(spec, run(transform(read_image(path))[None].numpy())[0], top) for path in images}
    if not (pretrained or weights or model.endswith(".onnx")):
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
