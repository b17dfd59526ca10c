"""A network, or its exported file, ready for batches of images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.pose import mirror_order
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.inference.predict import class_names
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Output


@dataclass(frozen=True)
class Inference:
    """What turns images into outputs.

    Attributes:
        spec: of the network.
        interface: how images are prepared for it, and what its outputs mean.
        names: of its classes or joints, or none where they are not known.
        transform: from an image to what `run` takes of it.
        run: a batch of those to outputs, on `device`.
        form: what the outputs are: raw (logits or heatmaps), or what an exported file makes of them.
        device: where the outputs lie.
        smallest: batch that a file takes; `run` fills up smaller ones.
        largest: batch that `run` takes; None: any.
    """

    spec: ArchSpec
    interface: Interface
    names: tuple[str, ...]
    transform: Callable[[Image.Image], Tensor | np.ndarray]
    run: Callable[[Tensor], Tensor]
    form: "Output"
    device: torch.device
    smallest: int = 1
    largest: int | None = None

    @property
    def labels(self) -> Labels:
        """Of the network's classes or joints."""
        return self.interface.labels

    def batch_size(self, wished: int) -> int:
        """As many images at once as wished, within what the network takes."""
        return max(self.smallest, min(wished, self.largest or wished))

    def mirrored(self, labels: Labels) -> "Inference":
        """The same with the mean of the outputs for an image and for its mirror image.

        Mirror images of heatmaps lie on one another to the pixel: a joint's place is a share of the crop for input and
        heatmaps alike (`data.crops`), so the shift by a pixel that HRNet's code has is not needed. Of tags, which
        tell people apart in one image alone, there are both: the mirror image's follow as further channels.

        Args:
            labels: with the joints that change places.

        Raises:
            InputError: the outputs are decisions, of which there is no mean, or no joints are known to change places.
        """
        if self.form in ("argmax", "joints"):
            raise InputError(f"{self.spec.name}: found {self.form} as output, expected raw outputs for a flip test")
        if self.spec.task == "pose" and not labels.flip_pairs:
            raise InputError(f"{self.spec.name}: found no pairs of left and right joints, expected some to flip")

        def run(images: Tensor) -> Tensor:
            there = self.run(images.flip(2 if images.dtype == torch.uint8 else 3))  # bytes have their channels last
            if self.spec.task != "classification":
                there = there.flip(3)
            here, joints = self.run(images), self.spec.classes
            if self.spec.task == "pose":
                sets = there.reshape(len(there), -1, joints, *there.shape[2:])  # of maps, one a joint each
                there = sets[:, :, mirror_order(labels)].flatten(1, 2)
            if self.spec.bottom_up:
                maps = (here + there)[:, : 2 * joints] / 2
                return torch.cat([maps, here[:, 2 * joints :], there[:, 2 * joints :]], dim=1)
            return (here + there) / 2

        return replace(self, run=run)


class ExportedFile(Protocol):
    """A network in an exported file, open: an ONNX file in ONNX Runtime, OpenVINO's IR, or an engine."""

    def inference(self) -> Inference:
        """The file, ready for batches of images."""


def prepare_inference(
    network: "nn.Module | ExportedFile", device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Inference:
    """Make a network ready.

    Args:
        network: one of ours, in evaluation, or an exported file, open.
        device: where a network is moved to; None: it stays. Exported files run where they were opened.
        dtype: that a network computes in where that is safe (autocast); None: that of its weights.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
        SpecError: its `pretrained_cfg` is not valid.
    """
    if not isinstance(network, nn.Module):
        return network.inference()
    spec = spec_of(network)
    if device is not None:
        network.to(device)
    weight = next(network.parameters())
    place = weight.device

    def run(images: Tensor) -> Tensor:
        images = images.to(place, weight.dtype, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(place.type, dtype, enabled=dtype is not None):
            output: Tensor = network(images)
        return output

    interface = Interface.of_network(network)
    names, transform = class_names(spec, interface.labels), preprocessing(spec, interface)
    return Inference(spec, interface, names, transform, run, "raw", place)
