"""Options that several commands have."""

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
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights.")]

UNTRAINED = "the weights are initial, not trained: predictions mean nothing yet"
"""What commands say of a network that nobody trained."""
