"""Images prepared for a network as its `pretrained_cfg` says; `image_files` reads them."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn
from torchvision.transforms import v2

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.image_files import find_images, image_files, read_image, read_oriented, sample_photographs, turn

__all__ = [
    "find_images",
    "image_files",
    "normalisation",
    "pixels",
    "preprocessing",
    "read_image",
    "read_oriented",
    "sample_photographs",
    "turn",
]


def preprocessing(spec: ArchSpec, cfg: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    """The transform from an image to a network's input, a float32 tensor (channels, height, width).

    Args:
        spec: of the network.
        cfg: its `pretrained_cfg`; ImageNet's mean and deviation where it names none.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    mean, std = normalisation(spec, cfg)
    transform: Callable[[Image.Image], Tensor] = v2.Compose(
        [pixels(spec, cfg), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    return transform


def pixels(spec: ArchSpec, cfg: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    """The part of `preprocessing` before normalisation: from an image to uint8 (channels, height, width).

    Classifiers see a resized centre crop, as timm evaluates; dense networks see the whole image,
    resized. A network with one input channel gets grey images.

    Raises:
        InputError: as `preprocessing`.
    """
    size = (spec.input.height, spec.input.width)
    normalisation(spec, cfg)
    if spec.task == "classification":
        resize = create_transform(
            (3, *size), interpolation=cfg.get("interpolation", "bicubic"), crop_pct=cfg["crop_pct"]
        ).transforms[:-2]  # without its own conversion and normalisation
    else:
        resize = [v2.Resize(size, antialias=True)]
    grey: list[nn.Module] = [v2.Grayscale()] if spec.input.channels == 1 else []
    transform: Callable[[Image.Image], Tensor] = v2.Compose([*resize, *grey, v2.PILToTensor()])
    return transform


def normalisation(spec: ArchSpec, cfg: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, of pixels from 0 to 1.

    Raises:
        InputError: as `preprocessing`.
    """
    mean, std = cfg.get("mean", (0.485, 0.456, 0.406)), cfg.get("std", (0.229, 0.224, 0.225))
    if spec.input.channels not in (1, 3):
        raise InputError(f"{spec.name}: takes {spec.input.channels} channels, expected 1 or 3 to read images")
    if spec.input.channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return list(mean), list(std)
