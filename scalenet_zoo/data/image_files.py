"""Read images from files: in the formats of `image_names`, up to a maximum size, turned upright by EXIF orientation."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOENT
from functools import cache
from importlib.util import find_spec
from os import strerror, walk
from pathlib import Path
from typing import BinaryIO

from PIL import EpsImagePlugin, ExifTags, Image, UnidentifiedImageError

from scalenet_zoo.core.bounds import PICTURE_PIXELS, PIXEL_BYTES, TILED_PICTURE_PIXELS
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import regular_file
from scalenet_zoo.core.memory import available_memory
from scalenet_zoo.data.image_names import IMAGE_FORMATS, is_hidden, is_image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation for each EXIF orientation; 1 and values that are no orientation need none."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def sample_photographs() -> list[Path]:
    """Return two photographs that come with scikit-learn: a Chinese temple and a flower (both CC BY).

    Raises:
        InputError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")  # without importing it: only its files are needed
    if package is None or package.submodule_search_locations is None:
        raise InputError("scikit-learn: found no such package, expected it for its sample photographs")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "images"
    return [folder / "china.jpg", folder / "flower.jpg"]


def read_image(path: str | Path | BinaryIO, name: str = "", most_pixels: int = PICTURE_PIXELS) -> Image.Image:
    """Read an image file as RGB, turned upright by its EXIF orientation; if it has several frames, read the first.

    Args:
        path: the file, or an open file.
        name: the name of the file in messages; "": the path.
        most_pixels: the largest number of pixels; `TILED_PICTURE_PIXELS` for pictures that are processed in tiles.

    Raises:
        InputError: the file is missing, is not an image, has too many pixels, or has more than 8 bits per channel.
    """
    return read_oriented(path, name, most_pixels)[0]


def read_oriented(
    path: str | Path | BinaryIO, name: str = "", most_pixels: int = PICTURE_PIXELS
) -> tuple[Image.Image, int]:
    """Read an image like `read_image`, and return its EXIF orientation as well: 1 (not turned) to 8.

    The labels of a turned image may refer to the stored pixels or to the upright image. From orientation 5 on, the
    stored width and height are exchanged. Callers must refuse labels if it is unclear which of the two they refer to.

    Args:
        path: the file, or an open file.
        name: the name of the file in messages; "": the path.
        most_pixels: the largest number of pixels.

    Raises:
        InputError: as for `read_image`.
    """
    name = name or str(path)
    with opened(path, name, "an image", most_pixels) as image:
        if image.mode not in _MODES:
            raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits per channel")
        turned, orientation = load_turned(image)
        return turned.convert("RGB"), orientation


@contextmanager
def opened(path: str | Path | BinaryIO, name: str, what: str, most_pixels: int) -> Iterator[Image.Image]:
    """Open an image file to read its pixels.

    Args:
        path: the file, or an open file.
        name: the name of the file in messages.
        what: what the file should be: "an image", "a mask".
        most_pixels: the largest number of pixels.

    Raises:
        InputError: the file is missing, too large, damaged, or in no known format. Any error in the `with` block counts
            as damage.
    """
    try:
        if isinstance(path, str | Path):
            _check_file(Path(path), name, what)
        with _own_limit(), Image.open(path, formats=_formats()) as image:
            _check_size(image, name, most_pixels)
            yield image
    except UnidentifiedImageError:
        raise InputError(f"{name}: cannot be read as {what}: its format is unknown") from None
    except InputError:
        raise
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as {what}: {error}") from None


def load_turned(image: Image.Image) -> tuple[Image.Image, int]:
    """Read the pixels of an open image, turned upright; return the image and its EXIF orientation, 1 to 8."""
    before = _orientation(image) if image.format == "TIFF" else 1  # loading turns the image and drops the orientation
    image.load()
    after = _orientation(image)  # PNG files store it after their pixels
    return turn(image, after), max(before, after)


@contextmanager
def without_ghostscript() -> Iterator[None]:
    """Disable Pillow's use of Ghostscript in a `with` block: a PostScript file is a program, whatever its name."""
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an open image to RGB, as `read_image` does.

    Args:
        image: the image.
        name: its name in messages.

    Raises:
        InputError: the image has more than 8 bits per channel, or is damaged.
    """
    if image.mode in ("I", "F") or ";" in image.mode:
        raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits per channel")
    try:
        return load_turned(image)[0].convert("RGB")
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as an image: {error}") from None


def unturn(image: Image.Image, orientation: int) -> Image.Image:
    """Undo `turn`: return the image as it is stored in a file with this EXIF orientation."""
    return turn(image, {6: 8, 8: 6}.get(orientation, orientation))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror an image upright by its EXIF orientation, 1 to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF fails in many ways; the image itself may be intact
        return 1
    return orientation if orientation in _TURNS else 1


def _check_file(path: Path, name: str, what: str) -> None:
    try:
        regular_file(path)
    except ValueError as error:
        missing = str(error).endswith(strerror(ENOENT))
        raise InputError(f"{name}: {f'found no such file, expected {what}' if missing else error}") from None


def _check_size(image: Image.Image, name: str, most: int) -> None:
    pixels = image.width * image.height
    if pixels > most:
        more = "" if most >= TILED_PICTURE_PIXELS else f", or {TILED_PICTURE_PIXELS:,} in tiles (segmentation, --tile)"
        raise InputError(
            f"{name}: found {image.width} x {image.height} = {pixels:,} pixels, expected at most {most:,}{more}"
        )
    if pixels > PICTURE_PIXELS and (needed := PIXEL_BYTES * pixels) > (free := available_memory()):
        raise InputError(
            f"{name}: found {pixels:,} pixels, which need {needed / 1e9:,.1f} GB of memory in tiles, expected at most"
            f" the {free / 1e9:,.1f} GB that this process can have"
        )


@cache
def _formats() -> list[str]:
    """Return the formats that this version of Pillow can read."""
    Image.init()
    return [kind for kind in IMAGE_FORMATS if kind in Image.OPEN]


_limit_lock = threading.Lock()
_limit_readers = 0
_limit_before: int | None = None


@contextmanager
def _own_limit() -> Iterator[None]:
    """Suspend Pillow's own limit of pixels, which applies to the whole process, while images are read here."""
    global _limit_readers, _limit_before
    with _limit_lock:
        if not _limit_readers:
            _limit_before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_readers += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_readers -= 1
            if not _limit_readers:
                Image.MAX_IMAGE_PIXELS = _limit_before


def image_files(folder: Path) -> list[Path]:
    """Return the sorted image files in a folder and its subfolders, by their names, without hidden ones.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: found no such folder, expected one with images")
    files: list[Path] = []
    for here, folders, names in walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name) and not _leads_back(Path(here), name)]
        files += [path for name in names if is_image(name) and (path := Path(here, name)).is_file()]
    if not files:
        raise InputError(f"{folder}: found no image files, expected some, such as .jpg or .png")
    return sorted(files)


def _leads_back(folder: Path, name: str) -> bool:
    """Return whether this name in a folder is a link to the folder itself or to one of its parents."""
    return (folder / name).is_symlink() and folder.resolve().is_relative_to((folder / name).resolve())


def find_images(folder: Path, limit: int) -> tuple[list[Path], list[Path]]:
    """Find readable images in a folder and its subfolders: up to `limit`, spread evenly over the sorted names.

    Returns:
        The images, and the files that were tried and could not be read.

    Raises:
        InputError: there is no such folder, no image, or more than a tenth of the images (and more than one) cannot be
            read.
    """
    files = image_files(folder)
    if len(files) > limit:
        files = [files[i * len(files) // limit] for i in range(limit)]
    images, broken, complaints = [], [], []
    for path in files:
        try:
            read_image(path)
            images.append(path)
        except InputError as error:
            broken.append(path)
            complaints.append(str(error))
    allowed = max(1, len(files) // 10)
    if len(broken) > allowed or not images:
        raise InputError(
            f"{folder}: found {len(broken)} of {len(files)} images that cannot be read, expected at most {allowed} and"
            f" at least one that can; the first: {complaints[0]}"
        )
    return images, broken
