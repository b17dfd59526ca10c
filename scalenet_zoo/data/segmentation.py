"""Segmentation: images and their masks, which are index images such as PNG; read and augmented together."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import Cityscapes
from torchvision.transforms import v2

from scalenet_zoo.arch.labels import Labels, spelling
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.bounds import MASKS_LOOKED_AT, PICTURE_PIXELS, TILED_PICTURE_PIXELS
from scalenet_zoo.core.documents import first_complaint
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_json, read_lines
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.examples import IGNORE, Examples, Part, find_split
from scalenet_zoo.data.image_files import image_files, load_turned, opened, read_oriented, turn, unturn
from scalenet_zoo.data.image_names import is_hidden
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.training.recipe import Recipe


_UNLISTED = -1
_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of masks: formats without loss."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Masks:
    """Examples that are pairs of files: an image and its mask.

    Attributes:
        images, masks: the files.
        classes: int16 (256,): the class of each value in a mask: a number, `IGNORE`, or -1 for an invalid value.
        most_pixels: the largest number of pixels in an image.
    """

    source: str
    split: str
    labels: Labels
    images: Sequence[Path]
    masks: Sequence[Path]
    classes: np.ndarray
    most_pixels: int = PICTURE_PIXELS
    task: Task = "segmentation"

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Image.Image, np.ndarray]:  # noqa: D102
        image, orientation = read_oriented(self.images[index], most_pixels=self.most_pixels)
        path = self.masks[index]
        if not path.exists():
            raise InputError(f"{path}: found no such file, expected the mask of {self.name(index)}")
        with opened(path, str(path), "a mask", self.most_pixels) as file:
            if file.mode not in ("L", "P", "1"):
                raise InputError(f"{path}: found a mask of mode {file.mode}, expected one number of 8 bits per pixel")
            step = _step(file)
            mask, own = load_turned(file)
        values = np.asarray(self._laid_over(image, orientation, mask, own, index), dtype=np.uint8) // step
        classes = self.classes[values]
        if (unlisted := classes == _UNLISTED).any():
            expected = "those of classes.json" if self.labels.names else f"classes below {IGNORE}"
            raise InputError(f"{path}: found the value {values[unlisted][0]}, expected {expected}")
        return image, classes.astype(np.uint8)

    def _laid_over(self, image: Image.Image, orientation: int, mask: Image.Image, own: int, index: int) -> Image.Image:
        """Turn a mask so that it fits its image, which was turned by its EXIF orientation.

        If the orientation of the mask is a different one, the mask may belong to the stored pixels or to the upright
        image. The sizes decide; if both fit, the mask is refused.
        """
        ways = [mask] if own == orientation else [mask, turn(unturn(mask, own), orientation)]
        fitting = [way for way in ways if way.size == image.size]
        if not fitting:
            raise InputError(
                f"{self.masks[index]}: found a mask of {mask.size} pixels, expected the image's {image.size}"
            )
        if len(fitting) > 1:
            raise InputError(
                f"{self.name(index)}: found the EXIF orientation {orientation}, and {own} in the mask, so that the"
                " mask is ambiguous; expected the same in both, or a picture that is saved upright without it"
            )
        return fitting[0]

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.images[index])


def _step(mask: Image.Image) -> int:
    """Return the factor by which Pillow scales the values of an open mask: grey of 2 or 4 bits becomes 0 to 255."""
    tiles = getattr(mask, "tile", ())  # only images from files have it
    arguments = tiles[0].args if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return {"L;2": 85, "L;4": 17}.get(str(raw), 1)


def in_tiles(examples: Examples) -> Examples:
    """Return the examples for a network that processes images in tiles, which may therefore be larger."""
    if isinstance(examples, Part):
        return replace(examples, whole=in_tiles(examples.whole))
    return replace(examples, most_pixels=TILED_PICTURE_PIXELS) if isinstance(examples, Masks) else examples


def open_masks(source: str, root: Path, split: str, ignore_index: int | None = None) -> Masks:
    """Open a folder of images and masks.

    The folder has `images/`, `masks/` (files with the same names in a format without loss, such as PNG), `{split}.txt`
    (names of images, one per line), and optionally `classes.json` (a list of {"index": 0, "name": "sky", "colour":
    [0, 0, 255], "ignore": false}).

    Ignored classes have no number; the numbers of the classes after them are lower by one. A name in `{split}.txt` is
    the path of an image below `images/`, such as `x/a` or `x/a.jpg`.

    Args:
        source: the data set, as the user named it.
        root: the folder.
        split: the split to open.
        ignore_index: the value of void pixels, in addition to the values that `classes.json` ignores; None: 255, unless
            this is one of its classes.

    Raises:
        InputError: something is missing or not valid.
    """
    lists = {path.stem: path for path in root.glob("*.txt") if not is_hidden(path.name)}
    if not lists:
        raise InputError(
            f"{source}: found no lists of names, expected train.txt, val.txt or others, images/ and masks/"
        )
    path = lists[split := find_split(split, lists, source)]
    try:
        names = read_lines(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    images = _listed(names, root / "images", path)
    masks = _masks_of(images, root)
    listed = root / "classes.json"
    labels, classes = _read_classes(listed, ignore_index) if listed.exists() else _numbers(ignore_index)
    return Masks(source, split, labels, list(images.values()), masks, classes)


def _listed(names: list[str], folder: Path, path: Path) -> dict[str, Path]:
    """Return the images in a list, each once, by their paths below `images/` without suffixes."""
    found = _by_stem(folder)
    stems = {_key(file, folder): stem for stem, files in found.items() for file in files}  # for names with suffixes
    wanted = [_spelt(name) for name in names]
    known = [stems.get(name) or (name if name in found else None) for name in wanted]
    if missing := [name for name, stem in zip(names, known, strict=True) if stem is None]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{path}: found the name {missing[0]}{more}, expected an image of this name in {folder}")
    counts = Counter(stem for stem in known if stem is not None)
    if not counts:
        raise InputError(f"{path}: found no names, expected some")
    if two := next((found[stem] for stem in counts if len(found[stem]) > 1), None):
        raise InputError(f"{folder}: found {two[0].name} and {two[1].name}, expected one image per name")
    if twice := [stem for stem, count in counts.items() if count > 1]:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        _log.warning("%s: found %s%s more than once: each is used once", path, twice[0], more)
    return {stem: found[stem][0] for stem in counts}


def _masks_of(images: dict[str, Path], root: Path) -> list[Path]:
    """Return the mask of each image. If only some masks are missing, the error is raised when they are read."""
    folder = root / "masks"
    found = {
        stem: files
        for stem, every in _by_stem(folder).items()
        if (files := [file for file in every if file.suffix.lower() in _LOSSLESS])
    }
    there = found.keys() & images.keys()
    if not there:
        name, image = next(iter(images.items()))
        raise InputError(f"{folder / name}.png: found no such file, and no other mask, expected the mask of {image}")
    if two := next((found[stem] for stem in images if len(found.get(stem, ())) > 1), None):
        raise InputError(f"{folder}: found {two[0].name} and {two[1].name}, expected one mask per name")
    return [found[stem][0] if stem in there else folder / f"{stem}.png" for stem in images]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the images in a folder and its subfolders, by their paths without suffixes."""
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(_key(file.with_suffix(""), folder), []).append(file)
    return files


def _key(file: Path, folder: Path) -> str:
    return _spelt(file.relative_to(folder).as_posix())


def _spelt(name: str) -> str:
    """Return the form in which names are compared: one Unicode spelling, and slashes between folders."""
    return spelling(PurePosixPath(name.replace("\\", "/")).as_posix())


def open_cityscapes(source: str, root: Path, split: str) -> Masks:
    """Open Cityscapes' fine annotations with torchvision, with the 19 classes that count in its evaluation.

    Args:
        source: the data set, as the user named it.
        root: the folder with the data.
        split: `train`, `val` or `test`.

    Raises:
        InputError: the data are not in the folder, or there is no such split.
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


def _numbers(ignore_index: int | None) -> tuple[Labels, np.ndarray]:
    """Return the classes of masks without `classes.json`: each value is a class without a name."""
    classes = np.arange(256, dtype=np.int16)
    classes[IGNORE] = _UNLISTED  # no class can have this number
    classes[IGNORE if ignore_index is None else ignore_index] = IGNORE
    return Labels(), classes


def _read_classes(path: Path, ignore_index: int | None) -> tuple[Labels, np.ndarray]:
    try:
        rows = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: found no list of objects, expected one object per class")
    counted: dict[int, dict[str, Any]] = {}
    classes = np.full(256, _UNLISTED, np.int16)
    classes[IGNORE if ignore_index is None else ignore_index] = IGNORE
    seen: set[int] = set()
    for place, row in enumerate(rows):
        index, ignore = row.get("index"), row.get("ignore")
        if type(index) is not int or not 0 <= index <= 255 or index in seen:
            raise InputError(f"{path}: {place}.index: found {quoted(index)}, expected a number up to 255, each once")
        if ignore is not None and type(ignore) is not bool:
            raise InputError(f"{path}: {place}.ignore: found {quoted(ignore)}, expected true or false")
        seen.add(index)
        if index == ignore_index and not ignore:
            _check_ignored(path, place, row)
        if ignore or index == ignore_index:
            classes[index] = IGNORE
        else:
            counted[index] = row
    if not 0 < len(counted) <= IGNORE:
        noun = f"{len(counted)} classes" if counted else "no classes"
        raise InputError(f"{path}: found {noun} that count, expected 1 to {IGNORE}")
    ordered = [counted[index] for index in sorted(counted)]
    classes[sorted(counted)] = np.arange(len(ordered))
    colours = [row.get("colour", row.get("color")) for row in ordered]
    try:
        fields = {"names": [row.get("name") for row in ordered], "colours": colours if all(colours) else []}
        labels = Labels.model_validate(fields, strict=False)
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(error)}") from None
    name, count = Counter(map(spelling, labels.names)).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: found {count} classes with the name {quoted(name)}, expected each name once")
    return labels, classes


def _check_ignored(path: Path, place: int, row: dict[str, Any]) -> None:
    """Warn that the ignore index removes a class; refuse it if the file says that the class must not be ignored."""
    index, name = row["index"], quoted(row.get("name"))
    if row.get("ignore") is False:
        raise InputError(
            f"{path}: {place}.ignore: found false for the value {index} ({name}), and the ignore index {index}"
            " (--ignore-index), expected one of the two"
        )
    _log.warning("%s: the class %s is ignored, because its value %d is the ignore index", path, name, index)


def check_masks(examples: Examples, least: int) -> None:
    """Check that masks have pixels of enough classes; usually the first mask is sufficient.

    Args:
        examples: examples with masks; those that cannot be read are skipped, because loaders report them.
        least: the smallest number of classes: 2 for training, 1 for evaluation.

    Raises:
        InputError: no mask has a labelled pixel, or all labelled pixels are of one class.
    """
    step = -(-len(examples) // MASKS_LOOKED_AT)
    seen: set[int] = set()
    looked_at = 0
    for index in (index for start in range(step) for index in range(start, len(examples), step)):
        try:
            _, mask = examples.read(index)
        except InputError:
            continue
        looked_at += 1
        seen |= set(np.unique(np.asarray(mask)).tolist()) - {IGNORE}
        if len(seen) >= least or (seen and looked_at == MASKS_LOOKED_AT):
            break
    if len(seen) >= least or not looked_at:
        return
    where = f"in {looked_at} masks of {examples.split}"
    if not seen:
        raise InputError(f"{examples.source}: found no labelled pixel {where}, expected some: all pixels are ignored")
    (number,) = seen
    names = examples.labels.names
    complaint = (
        f"{examples.source}: found pixels of {quoted(names[number]) if number < len(names) else f'the class {number}'}"
        f" alone {where}, expected two classes or more to learn from: all other pixels are void, see classes.json and"
        f" --ignore-index (default {IGNORE})"
    )
    if looked_at < len(examples):
        _log.warning("%s", complaint)
    else:
        raise InputError(complaint)


def mask_augmentation(
    spec: ArchSpec, interface: Interface, recipe: "Recipe"
) -> Callable[[Image.Image, np.ndarray], tuple[Tensor, Tensor]]:
    """Return the training transform of an image and its mask, which resizes, turns, crops and mirrors both.

    The scale is relative to the size in evaluation: the whole image fitted to the network's input, or, with
    `own_resolution`, the size of the file, as for tiles.

    Args:
        spec: the spec of the network.
        interface: how its images are prepared.
        recipe: the recipe with the augmentation.

    Returns:
        A function from an image and its mask to float32 (channels, height, width), normalised, and int64 (height,
        width).

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    mean, std = normalisation(spec, interface)
    void = {
        Image.Image: tuple(round(255 * value) for value in interface.mean),
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
    whole = None if recipe.own_resolution else (spec.input.height, spec.input.width)
    return partial(_augment, transform, whole, recipe.resize)


def _augment(
    transform: Callable[..., tuple[Tensor, Tensor]],
    size: tuple[int, int] | None,
    span: tuple[float, float],
    image: Image.Image,
    mask: np.ndarray,
) -> tuple[Tensor, Tensor]:
    factor = float(torch.empty(()).uniform_(*span))
    resized = [max(1, round(side * factor)) for side in size or mask.shape]
    # Torchvision's default for masks, NEAREST, shifts them by up to half a pixel.
    nearest = v2.functional.resize(torch.from_numpy(mask)[None], resized, v2.InterpolationMode.NEAREST_EXACT)[0]
    return transform(v2.functional.resize(image, resized), tv_tensors.Mask(nearest))
