"""Images: read from files, and prepared for a network as its `pretrained_cfg` says."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from timm.data import create_transform
from torch import Tensor, nn
from torchvision.transforms import v2

from scalenet_zoo.errors import InputError
from scalenet_zoo.spec import ArchSpec


def sample_photographs() -> list[Path]:
    """Two real photographs that come with scikit-learn: a Chinese temple and a flower (both CC BY)."""
    package = find_spec("sklearn")  # without importing it: only its files are needed
    if package is None or package.submodule_search_locations is None:
        raise InputError("scikit-learn: found no such package, expected it for its sample photographs")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "images"
    return [folder / "china.jpg", folder / "flower.jpg"]


def read_image(path: str | Path | BinaryIO, name: str = "") -> Image.Image:
    """Read an image file as RGB, turned the way its camera was held.

    Args:
        path: the file, or an open one.
        name: what messages call it; none: the path.

    Raises:
        InputError: the file is missing, is no image, or has more than 8 bits a channel.
    """
    name = name or str(path)
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
                raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits a channel")
            ImageOps.exif_transpose(image, in_place=True)
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{name}: found no such file, expected an image") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: cannot be read as an image: is of no known format") from None
    except InputError:
        raise
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as an image: {error}") from None


def image_files(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it that have the name of an image, sorted.

    Raises:
        InputError: there is no folder, or no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: found no such folder, expected one with images")
    suffixes = Image.registered_extensions()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not files:
        raise InputError(f"{folder}: found no image files, expected some, such as .jpg or .png")
    return files


def find_images(folder: Path, limit: int) -> tuple[list[Path], list[Path]]:
    """Look for images in a folder and the folders in it: up to `limit`, spread evenly over their sorted names.

    Returns:
        The images, and the files among those looked at that cannot be read as such.

    Raises:
        InputError: there is no folder, no image, or more than a tenth (and more than one) cannot be read.
    """
    files = image_files(folder)
    if len(files) > limit:
        files = [files[i * len(files) // limit] for i in range(limit)]
    images, broken = [], []
    for path in files:
        try:
            read_image(path)
            images.append(path)
        except InputError:
            broken.append(path)
    allowed = max(1, len(files) // 10)
    if len(broken) > allowed or not images:
        names = ", ".join(path.name for path in broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise InputError(
            f"{folder}: found {len(broken)} of {len(files)} images that cannot be read ({names}),"
            f" expected at most {allowed} and one that can"
        )
    return images, broken


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
        return [sum(mean) / 3], [sum(std) / 3]
    return list(mean), list(std)
