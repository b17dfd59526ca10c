"""The files that training leaves in a supernet's folder, RUN/supernet, and the summary of the training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.core.documents import Document
from scalenet_zoo.core.errors import InputError

Count = Annotated[int, Field(ge=0)]
SUPERNET_WEIGHTS, SUMMARY = "supernet.safetensors", "summary.json"


class SupernetSummary(Document):
    """The summary of a supernet's training: RUN/supernet/summary.json.

    Attributes:
        space_hash: hash of the space.
        weights_sha256: sha256 of the file with the weights.
        steps: the number of optimiser steps.
        images: images that passed forward and backward, over all processes; an image counts once for each network of a
            step that sees it.
        image_macs: multiply-adds of these forward passes.
        seconds: the time that training took.
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
    """Find the folder of a run's trained supernet.

    Raises:
        InputError: the run has no trained supernet.
    """
    folder = run / "supernet"
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{run}: found no trained supernet, expected one in {folder}")
    return folder
