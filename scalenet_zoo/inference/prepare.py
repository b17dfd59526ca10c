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
from scalenet_zoo.data.pose_augmentation import mirror_order
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.inference.predict import class_names
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.export.metadata import Output


@dataclass(frozen=True)
class Inference:
    """A network that is ready to turn images into outputs.

    Attributes:
        spec: the spec of the network.
        interface: how images are prepared for it, and what its outputs mean.
        names: the names of its classes or joints; empty: they are not known.
        transform: prepares an image for `run`.
        run: computes the outputs for a batch of prepared images, on `device`.
        form: the form of the outputs: raw (logits or heatmaps), or the form in which an exported file returns them.
        device: the device of the outputs.
        smallest: the smallest batch that a file takes; `run` fills up smaller ones.
        largest: the largest batch that `run` takes; None: any.
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
        """The labels of the network's classes or joints."""
        return self.interface.labels

    def batch_size(self, wished: int) -> int:
        """Return the batch size nearest to `wished` that the network takes."""
        return max(self.smallest, min(wished, self.largest or wished))

    def mirrored(self, labels: Labels) -> "Inference":
        """Return an inference whose outputs are the mean over an image and its mirror image.

        The heatmaps of both match to the pixel, because a joint's position is a share of the crop in both the input and
        the heatmaps (`data.crops`). The shift by one pixel in HRNet's code is therefore not needed. Tags are not
        averaged, since they tell people apart only within one image; the tags of the mirror image are appended as
        further channels.

        Args:
            labels: the labels of the outputs, with the pairs of left and right joints.

        Raises:
            InputError: the outputs are decisions, which have no mean, or no pairs of left and right joints are known.
        """
        if self.form in ("argmax", "joints"):
            raise InputError(f"{self.spec.name}: found {self.form} as output, expected raw outputs for a flip test")
        if self.spec.task == "pose" and not labels.flip_pairs:
            raise InputError(
                f"{self.spec.name}: found no pairs of left and right joints, expected some for a flip test"
            )

        def run(images: Tensor) -> Tensor:
            there = self.run(
                images.flip(2 if images.dtype == torch.uint8 else 3)
            )  # in uint8 batches, channels come last
            if self.spec.task != "classification":
                there = there.flip(3)
            here, joints = self.run(images), self.spec.classes
            if self.spec.task == "pose":
                sets = there.reshape(len(there), -1, joints, *there.shape[2:])  # sets of one map per joint
                there = sets[:, :, mirror_order(labels)].flatten(1, 2)
            if self.spec.bottom_up:
                maps = (here + there)[:, : 2 * joints] / 2
                return torch.cat([maps, here[:, 2 * joints :], there[:, 2 * joints :]], dim=1)
            return (here + there) / 2

        return replace(self, run=run)


class ExportedFile(Protocol):
    """A network opened from an exported file: ONNX in ONNX Runtime, OpenVINO's IR, or an engine."""

    def inference(self) -> Inference:
        """Make the file ready for batches of images."""


def prepare_inference(
    network: "nn.Module | ExportedFile", device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Inference:
    """Make a network ready for batches of images.

    Args:
        network: a network in evaluation mode, or an open exported file.
        device: the device to move a network to; None: it stays where it is. Exported files run where they were opened.
        dtype: the type in which a network computes where that is safe (autocast); None: the type of its weights.

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
