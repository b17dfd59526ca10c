"""The processing that an exported graph can contain: of images before the network, and of outputs after it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.export.metadata import OnnxOptions, Output
from scalenet_zoo.inference.decode import find_joints
from scalenet_zoo.zoo.interface import Interface

BEFORE, AFTER = AROUND = "preprocess", "postprocess"
"""The names of the modules around the network; their nodes in an exported graph have names that begin with them."""


class Normalise(nn.Module):
    """Conversion of pixels, uint8 (n, h, w, channels), to a network's input, float32 (n, channels, h, w)."""

    scale: Tensor
    offset: Tensor

    def __init__(self, spec: ArchSpec, interface: Interface) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in normalisation(spec, interface))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute (p / 255 - mean) / deviation for each pixel p."""
        images = pixels.float().permute(0, 3, 1, 2)  # convert first: TensorRT can only convert bytes
        y: Tensor = images * self.scale + self.offset
        return y


class Softmax(nn.Module):
    """Conversion of logits (n, classes) to probabilities."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return probabilities of the same shape."""
        return logits.softmax(1)


class Argmax(nn.Module):
    """Conversion of logits (n, classes, h, w) to the class of each pixel."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return the classes, int32 (n, h, w)."""
        return logits.argmax(1).int()


class Joints(nn.Module):
    """Conversion of heatmaps (n, joints, h, w) to joints."""

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return (n, joints, 3): x and y as shares of the image's width and height, and the score."""
        return find_joints(heatmaps)


POSTPROCESSING: dict[Output, type[nn.Module]] = {
    "raw": nn.Identity,
    "softmax": Softmax,
    "argmax": Argmax,
    "joints": Joints,
}


def with_processing(model: nn.Module, spec: ArchSpec, interface: Interface, options: OnnxOptions) -> nn.Module:
    """Wrap a network in the processing that the options require; return the network itself if they require none."""
    parts = OrderedDict({"network": model})
    if options.preprocess:
        parts = OrderedDict({BEFORE: Normalise(spec, interface), **parts})
    if options.output != "raw":
        parts[AFTER] = POSTPROCESSING[options.output]()
    device = next(model.parameters()).device
    return nn.Sequential(parts).to(device) if len(parts) > 1 else model
