"""What training a supernet leaves in its folder, RUN/supernet, and what that came to."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import Document
from scalenet_zoo.core.errors import InputError

Count = Annotated[int, Field(ge=0)]
SUPERNET_WEIGHTS, SUMMARY = "supernet.safetensors", "summary.json"


class SupernetSummary(Document):
    """What training a supernet came to: RUN/supernet/summary.json.

    Attributes:
        space_hash: of the space.
        weights_sha256: of the file with its weights.
        steps: optimiser steps.
        images: forward and backward, over all processes; one that several networks of a step see counts for each.
        image_macs: multiply-adds of these forward passes.
        seconds: training took.
    """

    format: Literal["scalenet-zoo/supernet"] = "scalenet-zoo/supernet"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    space_hash: str
    weights_sha256: str
    steps: Count
    images: Count
    image_macs: Count
    seconds: Annotated[float, Field(ge=0)]


def trained_supernet(run: Path) -> Path:
    """The folder of a run's supernet.

    Raises:
        InputError: none is trained there.
    """
    folder = run / "supernet"
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{run}: found no trained supernet, expected one in {folder}")
    return folder
