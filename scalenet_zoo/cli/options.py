"""Options that several commands have."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class TaskName(StrEnum):
    """What a network is for."""

    classification = "classification"
    segmentation = "segmentation"
    pose = "pose"


class Format(StrEnum):
    """What a network can be exported to."""

    onnx = "onnx"
    openvino = "openvino"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    triton = "triton"


class BuildFormat(StrEnum):
    """What `build` exports to; `export` makes the rest from it."""

    onnx = "onnx"


MODEL = "A name of the zoo, a spec's JSON file, hf-hub:org/name, a folder of `train`, or an exported file."
"""Help for commands that take any of them."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Load published weights from the Hugging Face Hub.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="A file with the network's weights: safetensors or .pth; with our names, timm's, torchvision's,"
        " efficientnet_pytorch's or those of the official HRNets."
    ),
]
InheritOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Start from what another architecture knows: an entry with published weights, hf-hub:org/name, a folder"
        " of `train`.",
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=255,
        help="Pixels of this value in masks count for nothing; 255, if classes.json does not say otherwise.",
    ),
]
JointsOption = Annotated[
    Path | None, typer.Option(help="A YAML file with the joints' names, flip_pairs, skeleton or sigmas.")
]
Flip = Annotated[bool, typer.Option("--flip", help="Average over each image and its mirror image.")]
Tile = Annotated[
    bool,
    typer.Option(
        "--tile",
        help="Segmentation: show images at their own resolution, in overlapping tiles of the network's input,"
        " instead of squeezed to the input as training shows them.",
    ),
]
Overlap = Annotated[float | None, typer.Option(help="Of tiles, as a share of a tile, 0 to 0.9: 0.25 if not given.")]
Boxes = Annotated[
    Path | None,
    typer.Option(help="Pose: persons' boxes, a JSON file of a detector's results as COCO has them, or of annotations."),
]
BoxScore = Annotated[float, typer.Option(help="Leave out boxes of lower scores.")]
BrokenLimit = Annotated[int, typer.Option(min=0, help="Images that may be unreadable.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights.")]

_FLAGS = {"source": "SPEC", "num_classes": "--classes", "img_size": "--size", "in_chans": "--in-channels"}
"""What is called otherwise than in the library."""


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Read "288" or height x width as "288x384", in pixels; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not match:
        raise typer.BadParameter(f"--size: found {text!r}, expected pixels such as 288, or height x width as 288x384")
    return int(match[1]), int(match[2] or match[1])


def as_flags(text: str) -> str:
    """A message of the library with the names of arguments, which it has in backticks, as this command line's flags."""
    return re.sub(r"`(\w+)`", lambda found: _FLAGS.get(found[1]) or f"--{found[1].replace('_', '-')}", text)


def parse_words(text: str | None) -> list[str]:
    """Read "fp32,int8"; None and nothing: no words."""
    return [word.strip() for word in text.split(",")] if text else []
