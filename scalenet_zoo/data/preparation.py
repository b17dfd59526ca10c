"""Prepare images for a network according to its `Interface`; `image_files` reads them."""

from collections.abc import Callable

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn
from torchvision.transforms import v2

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.drawings import frame_digit
from scalenet_zoo.zoo.interface import Interface


def preprocessing(spec: ArchSpec, interface: Interface) -> Callable[[Image.Image], Tensor]:
    """Return the transform from an image to a network's input, a float32 tensor (channels, height, width).

    Args:
        spec: the spec of the network.
        interface: how its images are prepared.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    mean, std = normalisation(spec, interface)
    transform: Callable[[Image.Image], Tensor] = v2.Compose(
        [pixels(spec, interface), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    return transform


def pixels(spec: ArchSpec, interface: Interface) -> Callable[[Image.Image], Tensor]:
    """Return the part of `preprocessing` before normalisation: from an image to uint8 (channels, height, width).

    Classifiers see a resized centre crop, as in timm's evaluation; dense networks see the whole image, resized. A
    network with one input channel gets grey images.

    Raises:
        InputError: as for `preprocessing`.
    """
    size = (spec.input.height, spec.input.width)
    normalisation(spec, interface)
    if spec.task == "classification":
        resize = create_transform(
            (3, *size), interpolation=interface.interpolation, crop_pct=interface.crop_pct
        ).transforms[:-2]  # without its own conversion and normalisation
    else:
        resize = [v2.Resize(size, antialias=True)]
    grey: list[nn.Module] = [v2.Grayscale()] if spec.input.channels == 1 else []
    framing = [frame_digit] if interface.drawing == "digit" else []
    transform: Callable[[Image.Image], Tensor] = v2.Compose([*framing, *resize, *grey, v2.PILToTensor()])
    return transform


def normalisation(spec: ArchSpec, interface: Interface) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each input channel, for pixels from 0 to 1.

    Raises:
        InputError: as for `preprocessing`.
    """
    mean, std = interface.mean, interface.std
    if spec.input.channels not in (1, 3):
        raise InputError(f"{spec.name}: takes {spec.input.channels} channels, expected 1 or 3 to read images")
    if spec.input.channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return list(mean), list(std)
