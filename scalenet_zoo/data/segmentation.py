"""Segmentation: images with masks, an index PNG each, read and augmented together."""

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
from scalenet_zoo.arch.spec import ArchSpec, Task, first_complaint
from scalenet_zoo.core.bounds import MASKS_LOOKED_AT, PICTURE_PIXELS, TILED_PICTURE_PIXELS
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
"""Of masks: how their names end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Masks:
    """Examples that are pairs of files, an image and a mask.

    Attributes:
        images, masks: the files.
        classes: int16 (256,): the class of each value of a mask: a number, `IGNORE`, or -1 where there is none.
        most_pixels: that an image may have.
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
                raise InputError(f"{path}: found a mask of mode {file.mode}, expected a number of 8 bits a pixel")
            step = _step(file)
            mask, own = load_turned(file)
        values = np.asarray(self._laid_over(image, orientation, mask, own, index), dtype=np.uint8) // step
        classes = self.classes[values]
        if (unlisted := classes == _UNLISTED).any():
            expected = "those of classes.json" if self.labels.names else f"classes below {IGNORE}"
            raise InputError(f"{path}: found the value {values[unlisted][0]}, expected {expected}")
        return image, classes.astype(np.uint8)

    def _laid_over(self, image: Image.Image, orientation: int, mask: Image.Image, own: int, index: int) -> Image.Image:
        """A mask turned so that it lies over its image, which was turned by its EXIF orientation.

        A mask whose own orientation is another may be for the file as it is stored, or for what people see of it; their
        sizes tell, or it is refused.
        """
        ways = [mask] if own == orientation else [mask, turn(unturn(mask, own), orientation)]
        fitting = [way for way in ways if way.size == image.size]
        if not fitting:
            raise InputError(
                f"{self.masks[index]}: found a mask of {mask.size} pixels, expected the image's {image.size}"
            )
        if len(fitting) > 1:
            raise InputError(
                f"{self.name(index)}: found the EXIF orientation {orientation}, and {own} in the mask: which way up"
                " the mask is cannot be known; expected the same in both, or a picture saved as it is seen, without"
            )
        return fitting[0]

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.images[index])


def _step(mask: Image.Image) -> int:
    """What Pillow multiplies the values of an open mask by: grey of 2 or 4 bits becomes 0 to 255."""
    tiles = getattr(mask, "tile", ())  # of files, and not of other images
    arguments = tiles[0].args if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return {"L;2": 85, "L;4": 17}.get(str(raw), 1)


def in_tiles(examples: Examples) -> Examples:
    """The same for a network that looks at them in tiles: their images may be larger."""
    if isinstance(examples, Part):
        return replace(examples, whole=in_tiles(examples.whole))
    return replace(examples, most_pixels=TILED_PICTURE_PIXELS) if isinstance(examples, Masks) else examples


def open_masks(source: str, root: Path, split: str, ignore_index: int | None = None) -> Masks:
    """A folder with `images/`, `masks/` (files of the same names that lose nothing, as PNG), `{split}.txt` (names, one
    a line), and `classes.json` (optional; a list of {"index": 0, "name": "sky", "colour": [0, 0, 255], "ignore":
    false}).

    Classes to be ignored have no number: those after them move down. A name is that of an image in `images/` or in a
    folder in it, as `x/a` or `x/a.jpg`.

    Args:
        source: as the user wrote it.
        root: the folder.
        split: which names.
        ignore_index: value of void pixels, beside those that `classes.json` says to ignore; None: 255, if that is not
            one of its classes.

    Raises:
        InputError: something is missing or not as it should be.
    """  # noqa: D205
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
    """The images that a list names, by their places in `images/` without suffixes; each once."""
    found = _by_stem(folder)
    stems = {_key(file, folder): stem for stem, files in found.items() for file in files}  # of names with suffixes
    wanted = [_spelt(name) for name in names]
    known = [stems.get(name) or (name if name in found else None) for name in wanted]
    if missing := [name for name, stem in zip(names, known, strict=True) if stem is None]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{path}: found the name {missing[0]}{more}, expected an image of this name in {folder}")
    counts = Counter(stem for stem in known if stem is not None)
    if not counts:
        raise InputError(f"{path}: found no names, expected some")
    if two := next((found[stem] for stem in counts if len(found[stem]) > 1), None):
        raise InputError(f"{folder}: found {two[0].name} and {two[1].name}, expected one image of a name")
    if twice := [stem for stem, count in counts.items() if count > 1]:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        _log.warning("%s: found %s%s more than once: each counts once", path, twice[0], more)
    return {stem: found[stem][0] for stem in counts}


def _masks_of(images: dict[str, Path], root: Path) -> list[Path]:
    """The mask of each image; one that is not there is told of when it is read, if there are some."""
    folder = root / "masks"
    found = {
        stem: files
        for stem, every in _by_stem(folder).items()
        if (files := [file for file in every if file.suffix.lower() in _LOSSLESS])
    }
    there = found.keys() & images.keys()
    if not there:
        name, image = next(iter(images.items()))
        raise InputError(f"{folder / name}.png: found no such file, nor any other mask, expected that of {image}")
    if two := next((found[stem] for stem in images if len(found.get(stem, ())) > 1), None):
        raise InputError(f"{folder}: found {two[0].name} and {two[1].name}, expected one mask of a name")
    return [found[stem][0] if stem in there else folder / f"{stem}.png" for stem in images]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """The images in a folder and in those in it, by their places without suffixes."""
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(_key(file.with_suffix(""), folder), []).append(file)
    return files


def _key(file: Path, folder: Path) -> str:
    return _spelt(file.relative_to(folder).as_posix())


def _spelt(name: str) -> str:
    """A name as it is compared with others: of one spelling, and with slashes between folders."""
    return spelling(PurePosixPath(name.replace("\\", "/")).as_posix())


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


def _numbers(ignore_index: int | None) -> tuple[Labels, np.ndarray]:
    """Where nothing says what classes there are: each value is one, without a name."""
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
        raise InputError(f"{path}: found no list of objects, expected one for each class")
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
        raise InputError(f"{path}: found {noun} to count, expected at least one, and at most {IGNORE}")
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
    """Tell that the user ignores a class that counts; refuse it where the file says that it is not to be ignored."""
    index, name = row["index"], quoted(row.get("name"))
    if row.get("ignore") is False:
        raise InputError(
            f"{path}: {place}.ignore: found false for the value {index} ({name}), and the ignore index {index}"
            " (--ignore-index), expected one of the two"
        )
    _log.warning("%s: the class %s counts for nothing, as its value %d is the ignore index", path, name, index)


def check_masks(examples: Examples, least: int) -> None:
    """Look whether masks have pixels of so many classes at least: usually the first has.

    Args:
        examples: with masks; those that cannot be read are passed over, loaders tell of them.
        least: 2 to learn to tell them apart, 1 to evaluate.

    Raises:
        InputError: no mask has a pixel that counts, or all are of one class.
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
        raise InputError(f"{examples.source}: found no labelled pixel {where}, expected some: all are to be ignored")
    (number,) = seen
    names = examples.labels.names
    complaint = (
        f"{examples.source}: found pixels of {quoted(names[number]) if number < len(names) else f'the class {number}'}"
        f" alone {where}, expected two classes or more to learn from: what else they hold is void, see classes.json and"
        f" --ignore-index ({IGNORE}, where neither says otherwise)"
    )
    if looked_at < len(examples):
        _log.warning("%s", complaint)
    else:
        raise InputError(complaint)


def mask_augmentation(
    spec: ArchSpec, interface: Interface, recipe: "Recipe"
) -> Callable[[Image.Image, np.ndarray], tuple[Tensor, Tensor]]:
    """The training transform of an image and its mask: resized, turned, cropped and mirrored together.

    An image's own size is the one that evaluation shows the network: the whole image, fitted to its input; or, with
    `own_resolution`, that of its file, as in tiles.

    Returns:
        A function to float32 (channels, height, width), normalised, and int64 (height, width).

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
    # Torchvision's own choice for masks, NEAREST, is shifted by up to half a pixel.
    nearest = v2.functional.resize(torch.from_numpy(mask)[None], resized, v2.InterpolationMode.NEAREST_EXACT)[0]
    return transform(v2.functional.resize(image, resized), tv_tensors.Mask(nearest))
