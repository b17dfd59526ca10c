"""`evaluate`: how good a network, or its exported file, is."""

from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.models import MODEL, check_model, has_weights, is_exported, open_model
from scalenet_zoo.cli.options import (
    UNTRAINED,
    Boxes,
    BoxScore,
    BrokenLimit,
    Flip,
    IgnoreIndex,
    JointsOption,
    Json,
    Overlap,
    Pretrained,
    Seed,
    Tile,
    WeightsOption,
    parse_overlap,
)

if TYPE_CHECKING:
    from scalenet_zoo.inference.evaluate import Evaluation

FIGURES = {
    "top1": "top-1 accuracy",
    "top1_of_these": "top-1 accuracy among the data's classes",
    "top5": "top-5 accuracy",
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "ece": "calibration error",
    "ap": "AP",
    "ap50": "AP at OKS 0.50",
    "ap75": "AP at OKS 0.75",
    "ap_medium": "AP of medium persons",
    "ap_large": "AP of large persons",
    "ar": "AR",
    "ar50": "AR at OKS 0.50",
    "ar75": "AR at OKS 0.75",
    "ar_medium": "AR of medium persons",
    "ar_large": "AR of large persons",
    "pck_torso": "PCK@0.2 of the torso",
    "pck_box": "PCK@0.2 of the box",
}
"""Names of metrics for people."""


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL)],
    data: Annotated[str, typer.Option(help="As for `train`: digits, imagefolder:PATH, masks:PATH, coco:PATH, ...")],
    split: Annotated[str, typer.Option(help="The part of the data.")] = "val",
    pretrained: Pretrained = False,
    weights: WeightsOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    flip: Flip = False,
    tile: Tile = False,
    overlap: Overlap = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many images.")] = None,
    ignore_index: IgnoreIndex = None,
    joints: JointsOption = None,
    boxes: Boxes = None,
    box_score: BoxScore = 0.0,
    broken_limit: BrokenLimit = 100,
    device: Annotated[str | None, typer.Option(help="Such as cuda:1; a GPU if not given, else the CPU.")] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Compute in bfloat16 where that is safe.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure accuracy, IoU or AP on a data set: of a network, or of an exported file with all that it lost.

    Example: scalenet-zoo evaluate efficientnet_b0.onnx --data imagefolder:imagenet
    """
    if is_exported(model) and amp:
        raise typer.BadParameter(f"--amp: found it with the file {model}, whose precision is its own")
    if is_exported(model) and device:
        raise typer.BadParameter(f"--device: found {device} with the file {model}, which runs where it can")

    share = parse_overlap(tile, overlap)

    from scalenet_zoo.data.forms import check_source

    check_source(data)
    check_model(model, pretrained, weights)

    import torch

    from scalenet_zoo.cli.console import print_json, progress_bar, say
    from scalenet_zoo.data.sources import open_data
    from scalenet_zoo.inference.evaluate import evaluate as run_evaluation
    from scalenet_zoo.inference.prepare import prepare_inference
    from scalenet_zoo.inference.tiling import doubt_resolution

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise typer.BadParameter(f"--device: found {device}, expected one of this machine, such as cpu") from error
    network = open_model(model, pretrained, weights, seed)
    if isinstance(network, torch.nn.Module):
        network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    spec = prepare_inference(network).spec
    if spec.task == "segmentation" and (doubt := doubt_resolution(spec, tile)):
        say(doubt, err=True)
    examples = open_data(
        data,
        spec.task,
        split,
        ignore_index=ignore_index,
        joints=joints,
        boxes=boxes,
        box_score=box_score,
        limit=limit,
    )
    with progress_bar() as advance:
        found = run_evaluation(
            network,
            examples,
            batch_size,
            workers,
            dtype=torch.bfloat16 if amp else None,
            flip=flip,
            overlap=share,
            broken_limit=broken_limit,
            on_progress=advance,
        )
    if not (pretrained or weights or has_weights(model)):
        typer.echo(f"{UNTRAINED} (--pretrained, --weights)", err=True)
    if as_json:
        print_json({"source": model, **found.to_dict()})
        return
    _print(found, "persons" if spec.task == "pose" and not spec.bottom_up else "images")


def _print(found: "Evaluation", noun: str) -> None:
    from scalenet_zoo.cli.console import print_table

    typer.echo(
        f"{found.model} on {found.data} {found.split}: {found.images} {noun},"
        f" {found.images / found.seconds:.1f} a second\n"
    )
    print_table(
        ("metric", "value"),
        [(FIGURES[name], f"{value:.2%}") for name, value in found.metrics.items() if not isinstance(value, dict)],
        align="lr",
    )
    for of_class in found.metrics.values():
        if isinstance(of_class, dict):
            typer.echo()
            rows = ((name, "-" if value is None else f"{value:.2%}") for name, value in of_class.items())
            print_table(("class", "IoU"), rows, align="lr")
    if found.broken:
        count = len(found.broken)
        typer.echo(f"\n{count} images were left out:" if count > 1 else "\n1 image was left out:")
        for name in found.broken:
            typer.echo(name)
