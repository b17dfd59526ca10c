"""Family files, version 1: a base model and the scaling strategies that turn it into networks.

    {"format": "scalenet-zoo/family", "version": 1, "name": "scalenet", "base": {...},
     "strategies": [{"name": "scalenet_s1", "stage": 1, "depth": 1.04, "width": 1.04, "resolution": 256}, ...]}

`scaling.py` expands a family into specs.
"""

from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import (
    NORM_EPS,
    Activation,
    Channels,
    Gate,
    Head,
    Kernel,
    Name,
    NormEps,
    Padding,
    Pixels,
    Provenance,
    Result,
    Stem,
    Stride,
)
from scalenet_zoo.core.documents import Document, Strict

LEAST, MOST = 0.01, 100.0
"""The smallest and the largest multiplier of depth or width; beyond them, a network has little in common with its base
model."""

Squeeze = Annotated[
    Literal["input", "expanded", "none"],
    Field(
        description="input, expanded: squeeze-and-excite channels are a quarter of the layer's input or expanded"
        " channels; none: layers have no squeeze-and-excite."
    ),
]

Multiplier = Annotated[float, Field(ge=LEAST, le=MOST)]


class BaseStage(Strict):
    """A stage of layers with equal channels; the first layer has the stride."""

    channels: Channels
    stride: Stride
    expand: Annotated[int, Field(ge=1, le=64, description="Hidden channels per input channel of a layer.")]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=64, description="The kernel of each layer.")]
    scales_depth: Annotated[
        bool, Field(exclude_if=bool, description="Whether depth applies to this stage; if not, it keeps its layers.")
    ] = True


class FamilyBase(Strict):
    """A base model: an mbconv network from which scaling computes the channels of all layers."""

    stem: Stem
    stages: Annotated[tuple[BaseStage, ...], Field(min_length=1, max_length=32)]
    head: Head
    activation: Activation
    gate: Gate
    padding: Padding = "symmetric"
    norm_eps: NormEps = NORM_EPS
    squeeze: Squeeze
    resolution: Pixels


class Strategy(Strict):
    """A scaling strategy: multipliers for layers and channels, and a resolution in pixels."""

    name: Name
    stage: Annotated[
        float, Field(ge=-20.0, le=20.0, description="Stage s: the budget is 2^s times the base model's cost.")
    ]
    depth: Multiplier
    width: Multiplier
    resolution: Pixels
    results: tuple[Result, ...] = ()


class Family(Document):
    """A base model, how its channels are rounded, and its strategies."""

    format: Literal["scalenet-zoo/family"] = "scalenet-zoo/family"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    name: Name
    task: Literal["classification"] = "classification"
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    base: FamilyBase
    divisor: Annotated[
        int, Field(ge=1, le=1024, description="Channels are multiples of this number; 1: channels are rounded up.")
    ]
    scales_head: Annotated[bool, Field(description="Whether width applies to the head as well.")]
    scales_stem: Annotated[
        bool, Field(exclude_if=bool, description="Whether width applies to the stem; if not, it keeps its channels.")
    ] = True
    strategies: Annotated[tuple[Strategy, ...], Field(min_length=1, max_length=100)]
    provenance: Provenance
