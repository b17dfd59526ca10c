"""Segmentation: images with masks, an index PNG each, read and augmented together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import Cityscapes
from torchvision.transforms import v2

from scalenet_zoo._files import read_json
from scalenet_zoo.data.examples import IGNORE, find_split
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import normalisation, read_image
from scalenet_zoo.labels import Labels
from scalenet_zoo.recipe import Recipe
from scalenet_zoo.spec import ArchSpec, Task, first_complaint

_UNLISTED = -1


@dataclass(frozen=True, eq=False)
class Masks:
    """Examples that are pairs of files, an image and a mask.

    Attributes:
        images, masks: the files.
        classes: int16 (256,): the class of each value of a mask: a number, `IGNORE`, or -1 where there is none.
    """

    source: str
    split: str
    labels: Labels
    images: Sequence[Path]
    masks: Sequence[Path]
    classes: np.ndarray
    task: Task = "segmentation"

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Image.Image, np.ndarray]:  # noqa: D102
        image, path = read_image(self.images[index]), self.masks[index]
        try:
            with Image.open(path) as file:
                if file.mode not in ("L", "P", "1"):
                    raise InputError(f"{path}: found a mask of mode {file.mode}, expected a number of 8 bits a pixel")
                if file.size != image.size:
                    raise InputError(f"{path}: found a mask of {file.size} pixels, expected the image's {image.size}")
                values = np.asarray(file, dtype=np.uint8)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path}: found no such file, expected the mask of {self.name(index)}") from None
        except Exception as error:  # damaged files lead Pillow to OSError, struct.error, ValueError and more
            raise InputError(f"{path}: cannot be read as a mask: {error}") from None
        mask = self.classes[values]
        if (unlisted := mask == _UNLISTED).any():
            raise InputError(f"{path}: found the value {values[unlisted][0]}, expected those of classes.json")
        return image, mask.astype(np.uint8)

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.images[index])


def open_masks(source: str, root: Path, split: str, ignore_index: int) -> Masks:
    """A folder with `images/`, `masks/` (PNG files of the same names), `{split}.txt` (names, one a line), and
    `classes.json` (optional; a list of {"index": 0, "name": "sky", "colour": [0, 0, 255], "ignore": false}).

    Classes to be ignored have no number: those after them move down.

    Args:
        source: as the user wrote it.
        root: the folder.
        split: which names.
        ignore_index: value of void pixels, beside those that `classes.json` says to ignore.

    Raises:
        InputError: something is missing or not as it should be.
    """  # noqa: D205
    lists = {path.stem: path for path in root.glob("*.txt")}
    if not lists:
        raise InputError(
            f"{source}: found no lists of names, expected train.txt, val.txt or others, images/ and masks/"
        )
    path = lists[split := find_split(split, lists, source)]
    try:
        stems = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        files = {file.stem: file for file in sorted((root / "images").iterdir())}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read, or images/ beside it: {error}") from None
    if not stems:
        raise InputError(f"{path}: found no names, expected some")
    if missing := [stem for stem in stems if stem not in files]:
        raise InputError(f"{path}: found the name {missing[0]}, expected an image of this name in {root / 'images'}")
    names = root / "classes.json"
    labels, classes = (
        _read_classes(names, ignore_index) if names.exists() else (Labels(), np.arange(256, dtype=np.int16))
    )
    classes[ignore_index] = IGNORE
    masks = [root / "masks" / f"{stem}.png" for stem in stems]
    return Masks(source, split, labels, [files[stem] for stem in stems], masks, classes)


def open_cityscapes(source: str, root: Path, split: str) -> Masks:
    """Cityscapes' fine annotations, through torchvision: the 19 classes that are evaluated.

    Raises:
        InputError: the data set is not there, or has no such split.
    """
    split = find_split(split, ("train", "val", "test"), source)
    try:
        dataset = Cityscapes(str(root), split=split, mode="fine", target_type="semantic")
    except (RuntimeError, OSError) as error:
        raise InputError(f"{source}: cannot be opened: {error}") from None
    pairs = sorted(
        (Path(image), Path(target[0])) for image, target in zip(dataset.images, dataset.targets, strict=True)
    )
    if not pairs:
        raise InputError(f"{source}: found no images of {split}, expected some")
    classes = np.full(256, _UNLISTED, np.int16)
    for known in Cityscapes.classes:
        classes[known.id] = IGNORE if known.ignore_in_eval else known.train_id  # the id -1 is 255 in a file
    counted = sorted(
        (known for known in Cityscapes.classes if not known.ignore_in_eval), key=lambda known: known.train_id
    )
    labels = Labels(names=tuple(known.name for known in counted), colours=tuple(known.color for known in counted))
    return Masks(source, split, labels, [image for image, _ in pairs], [mask for _, mask in pairs], classes)


def _read_classes(path: Path, ignore_index: int) -> tuple[Labels, np.ndarray]:
    try:
        rows = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: found no list of objects, expected one for each class")
    counted: dict[int, dict[str, Any]] = {}
    classes = np.full(256, _UNLISTED, np.int16)
    for place, row in enumerate(rows):
        index = row.get("index")
        if type(index) is not int or not 0 <= index <= 255 or index in counted or classes[index] == IGNORE:
            raise InputError(f"{path}: {place}.index: found {index!r}, expected a number up to 255, each once")
        if row.get("ignore") or index == ignore_index:
            classes[index] = IGNORE
        else:
            counted[index] = row
    if not counted:
        raise InputError(f"{path}: found no classes to count, expected at least one")
    ordered = [counted[index] for index in sorted(counted)]
    classes[sorted(counted)] = np.arange(len(ordered))
    colours = [row.get("colour", row.get("color")) for row in ordered]
    try:
        labels = {"names": [row.get("name") for row in ordered], "colours": colours if all(colours) else []}
        return Labels.model_validate(labels, strict=False), classes
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(error)}") from None


def augmentation(
    spec: ArchSpec, cfg: dict[str, Any], recipe: Recipe
) -> Callable[[Image.Image, np.ndarray], tuple[Tensor, Tensor]]:
    """The training transform of an image and its mask: resized, turned, cropped and mirrored together.

    An image's own size is the one that evaluation shows the network: the whole image, fitted to its input.

    Returns:
        A function to float32 (channels, height, width), normalised, and int64 (height, width).

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    mean, std = normalisation(spec, cfg)
    void = {
        Image.Image: tuple(round(255 * value) for value in cfg.get("mean", (0.485, 0.456, 0.406))),
        tv_tensors.Mask: IGNORE,
    }
    size = recipe.train_size or (spec.input.height, spec.input.width)
    jitter = recipe.color_jitter
    steps = [
        v2.RandomRotation(recipe.rotation, v2.InterpolationMode.BILINEAR, fill=void) if recipe.rotation else None,
        v2.RandomCrop(size, pad_if_needed=True, fill=void),
        v2.RandomHorizontalFlip(recipe.hflip),
        v2.ColorJitter(jitter, jitter, jitter) if jitter else None,
        v2.Grayscale() if spec.input.channels == 1 else None,
        v2.ToImage(),
        v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
        v2.Normalize(mean, std),
        v2.ToPureTensor(),
    ]
    transform = v2.Compose([step for step in steps if step])
    return partial(_augment, transform, (spec.input.height, spec.input.width), recipe.resize)


def _augment(
    transform: Callable[..., tuple[Tensor, Tensor]],
    size: tuple[int, int],
    span: tuple[float, float],
    image: Image.Image,
    mask: np.ndarray,
) -> tuple[Tensor, Tensor]:
    factor = float(torch.empty(()).uniform_(*span))
    resized = [max(1, round(side * factor)) for side in size]
    # Torchvision's own choice for masks, NEAREST, is shifted by up to half a pixel.
    nearest = v2.functional.resize(torch.from_numpy(mask)[None], resized, v2.InterpolationMode.NEAREST_EXACT)[0]
    return transform(v2.functional.resize(image, resized), tv_tensors.Mask(nearest))
