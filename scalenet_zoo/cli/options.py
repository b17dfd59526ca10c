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
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    triton = "triton"


class BuildFormat(StrEnum):
    """What `build` exports to; `export` makes the rest from it."""

    onnx = "onnx"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Load published weights from the Hugging Face Hub.")]
Weights = Annotated[Path | None, typer.Option(help="A safetensors file with the network's weights.")]
IgnoreIndex = Annotated[int, typer.Option(min=0, max=255, help="Pixels of this value in masks count for nothing.")]
Joints = Annotated[
    Path | None, typer.Option(help="A YAML file with the joints' names, flip_pairs, skeleton or sigmas.")
]
BrokenLimit = Annotated[int, typer.Option(min=0, help="Images that may be unreadable.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights.")]

UNTRAINED = "the weights are initial, not trained: predictions mean nothing yet"
"""What commands say of a network that nobody trained."""


def parse_size(text: str) -> tuple[int, int]:
    """Read "288" or height x width as "288x384", in pixels."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if not match:
        raise typer.BadParameter(f"--size: found {text!r}, expected pixels such as 288, or height x width as 288x384")
    return int(match[1]), int(match[2] or match[1])
