"""What can be done to images and outputs inside an exported graph, before and after the network."""

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
"""Names of the modules around the network; the names of their nodes in an exported graph begin with them."""


class Normalise(nn.Module):
    """Pixels, uint8 (n, h, w, channels), to a network's input, float32 (n, channels, h, w)."""

    scale: Tensor
    offset: Tensor

    def __init__(self, spec: ArchSpec, interface: Interface) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in normalisation(spec, interface))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """(p / 255 - mean) / deviation."""
        images = pixels.float().permute(0, 3, 1, 2)  # in this order: TensorRT does nothing to bytes but convert them
        y: Tensor = images * self.scale + self.offset
        return y


class Softmax(nn.Module):
    """Logits (n, classes) to probabilities."""

    def forward(self, logits: Tensor) -> Tensor:
        """The same shape."""
        return logits.softmax(1)


class Argmax(nn.Module):
    """Logits (n, classes, h, w) to the class of each pixel."""

    def forward(self, logits: Tensor) -> Tensor:
        """int32 (n, h, w)."""
        return logits.argmax(1).int()


class Joints(nn.Module):
    """Heatmaps (n, joints, h, w) to joints."""

    def forward(self, heatmaps: Tensor) -> Tensor:
        """(n, joints, 3): x and y as shares of the image's width and height, and the score."""
        return find_joints(heatmaps)


POSTPROCESSING: dict[Output, type[nn.Module]] = {
    "raw": nn.Identity,
    "softmax": Softmax,
    "argmax": Argmax,
    "joints": Joints,
}


def with_processing(model: nn.Module, spec: ArchSpec, interface: Interface, options: OnnxOptions) -> nn.Module:
    """The network with what the options ask for around it; the network itself if that is nothing."""
    parts = OrderedDict({"network": model})
    if options.preprocess:
        parts = OrderedDict({BEFORE: Normalise(spec, interface), **parts})
    if options.output != "raw":
        parts[AFTER] = POSTPROCESSING[options.output]()
    device = next(model.parameters()).device
    return nn.Sequential(parts).to(device) if len(parts) > 1 else model
