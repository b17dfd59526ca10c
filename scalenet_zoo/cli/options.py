"""Options that several commands share."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.completion import complete_model


class TaskName(StrEnum):
    """The tasks that networks are made for."""

    classification = "classification"
    segmentation = "segmentation"
    pose = "pose"


class Format(StrEnum):
    """The formats that a network can be exported to."""

    onnx = "onnx"
    openvino = "openvino"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    triton = "triton"


class BuildFormat(StrEnum):
    """The formats that `build` exports to; `export` makes the others."""

    onnx = "onnx"


WEIGHTS_PANEL = "Weights"
DATA = "Data"
BUDGET = "Budget"
LATENCY = "Where latency is measured"
RUN = "The run"
"""Headings of options that several commands share."""

MODEL = "An entry, a spec's JSON file, hf-hub:org/name, a folder of `train`, or an exported file."
"""The help for an argument that takes any of them."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained", help="Load published weights from the Hugging Face Hub.", rich_help_panel=WEIGHTS_PANEL
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="A file with the network's weights: safetensors or .pth, with our names, timm's, torchvision's,"
        " efficientnet_pytorch's or those of the official HRNets.",
        rich_help_panel=WEIGHTS_PANEL,
    ),
]
InheritOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Start from the weights of another architecture: an entry with published weights, hf-hub:org/name, or a"
        " folder of `train`.",
        autocompletion=complete_model,
        rich_help_panel=WEIGHTS_PANEL,
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=255,
        help="Ignore pixels with this value in masks; 255 if neither this flag nor classes.json gives one.",
        rich_help_panel=DATA,
    ),
]
JointsOption = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file with the joints' names, flip_pairs, skeleton or sigmas.",
        rich_help_panel=DATA,
    ),
]
Flip = Annotated[
    bool, typer.Option("--flip", help="Average over each image and its mirror image.", rich_help_panel=DATA)
]
Tile = Annotated[
    bool,
    typer.Option(
        "--tile",
        help="Segmentation: keep each image's own resolution, and cut it into overlapping tiles of the network's input"
        " size. Without this flag, images are resized to the input, as in training.",
        rich_help_panel=DATA,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        help="The overlap of tiles, as a share of a tile: 0 to 0.9; 0.25 if not given.",
        rich_help_panel=DATA,
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="Pose: the persons' boxes, a JSON file of detections or annotations in the format of COCO.",
        rich_help_panel=DATA,
    ),
]
BoxScore = Annotated[float, typer.Option(help="Leave out boxes with a lower score than this.", rich_help_panel=DATA)]
BrokenLimit = Annotated[int, typer.Option(min=0, help="The most images that may be unreadable.", rich_help_panel=DATA)]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="The seed of the initial weights.", rich_help_panel=WEIGHTS_PANEL)
]

_FLAGS = {"source": "SPEC", "num_classes": "--classes", "img_size": "--size", "in_chans": "--in-channels"}
"""Arguments of the library whose flags have other names."""


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Read "288" or height x width as "288x384", in pixels; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not match:
        raise typer.BadParameter(f"--size: found {text!r}, expected pixels such as 288, or height x width as 288x384")
    return int(match[1]), int(match[2] or match[1])


def as_flags(text: str) -> str:
    """Replace the arguments that a message of the library names in backticks by the flags of the command line."""
    return re.sub(r"`(\w+)`", lambda found: _FLAGS.get(found[1]) or f"--{found[1].replace('_', '-')}", text)


def parse_words(text: str | None) -> list[str]:
    """Read words separated by commas, such as "fp32,int8"; None and the empty text give no words."""
    return [word.strip() for word in text.split(",")] if text else []
