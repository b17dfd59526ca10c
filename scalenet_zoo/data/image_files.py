"""Images read from files: only formats of `image_names`, only of a bounded size, turned as their cameras were held."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOENT
from functools import cache
from importlib.util import find_spec
from os import strerror, walk
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

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
"""What EXIF's orientations ask for; 1, and what is no orientation, asks for nothing."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def sample_photographs() -> list[Path]:
    """Two real photographs that come with scikit-learn: a Chinese temple and a flower (both CC BY)."""
    package = find_spec("sklearn")  # without importing it: only its files are needed
    if package is None or package.submodule_search_locations is None:
        raise InputError("scikit-learn: found no such package, expected it for its sample photographs")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "images"
    return [folder / "china.jpg", folder / "flower.jpg"]


def read_image(path: str | Path | BinaryIO, name: str = "", most_pixels: int = PICTURE_PIXELS) -> Image.Image:
    """Read an image file as RGB, turned the way its camera was held; of several frames the first.

    Args:
        path: the file, or an open one.
        name: what messages call it; none: the path.
        most_pixels: that it may have; `TILED_PICTURE_PIXELS` for pictures that are looked at in tiles.

    Raises:
        InputError: the file is missing, is no image, has more pixels, or has more than 8 bits a channel.
    """
    return read_oriented(path, name, most_pixels)[0]


def read_oriented(
    path: str | Path | BinaryIO, name: str = "", most_pixels: int = PICTURE_PIXELS
) -> tuple[Image.Image, int]:
    """The same, with the EXIF orientation that the image was turned by: 1 (not at all) to 8.

    Labels of an image that was turned may be for the file as it is stored, whose width and height are the other way
    round from an orientation of 5 on, or for what people see. Where it is not known for which, they are to be refused.
    """
    name = name or str(path)
    with opened(path, name, "an image", most_pixels) as image:
        if image.mode not in _MODES:
            raise InputError(f"{name}: found pixels of mode {image.mode}, expected 8 bits a channel")
        turned, orientation = load_turned(image)
        return turned.convert("RGB"), orientation


@contextmanager
def opened(path: str | Path | BinaryIO, name: str, what: str, most_pixels: int) -> Iterator[Image.Image]:
    """Open an image file to read its pixels.

    Args:
        path: the file, or an open one.
        name: what messages call it.
        what: is expected of it: "an image", "a mask".
        most_pixels: that it may have.

    Raises:
        InputError: the file is missing, of no known format, too large, or damaged; whatever goes wrong while it is
            open is told as damage.
    """
    try:
        if isinstance(path, str | Path):
            _check_file(Path(path), name, what)
        with _own_limit(), Image.open(path, formats=_formats()) as image:
            _check_size(image, name, most_pixels)
            yield image
    except UnidentifiedImageError:
        raise InputError(f"{name}: cannot be read as {what}: is of no known format") from None
    except InputError:
        raise
    except Exception as error:  # damaged files lead Pillow to struct.error, ValueError and more
        raise InputError(f"{name}: cannot be read as {what}: {error}") from None


def load_turned(image: Image.Image) -> tuple[Image.Image, int]:
    """Read an open image's pixels, turned the way its camera was held; and the EXIF orientation that says how."""
    before = _orientation(image) if image.format == "TIFF" else 1  # loading turns it, and forgets how
    image.load()
    after = _orientation(image)  # PNG files have it behind their pixels
    return turn(image, after), max(before, after)


def unturn(image: Image.Image, orientation: int) -> Image.Image:
    """What `turn` makes an image of with this orientation."""
    return turn(image, {6: 8, 8: 6}.get(orientation, orientation))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror an image as an EXIF orientation, 1 to 8, says that its file is to be shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of damaged EXIF, in many ways: the image itself may be whole
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
            f"{name}: found {pixels:,} pixels, which take {needed / 1e9:,.1f} GB of memory in tiles, expected at most"
            f" {free / 1e9:,.1f} GB, which this process can have"
        )


@cache
def _formats() -> list[str]:
    """Those that this Pillow can read."""
    Image.init()
    return [kind for kind in IMAGE_FORMATS if kind in Image.OPEN]


_limit_lock = threading.Lock()
_limit_readers = 0
_limit_before: int | None = None


@contextmanager
def _own_limit() -> Iterator[None]:
    """Set Pillow's own limit to pixels, which is one for the whole process, aside while images are read here."""
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
    """The files in a folder and the folders in it that have the name of an image, sorted; what is hidden is left out.

    Raises:
        InputError: there is no folder, or no image.
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
    """Whether what has this name in a folder is a link to the folder, or to one in which it lies."""
    return (folder / name).is_symlink() and folder.resolve().is_relative_to((folder / name).resolve())


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
            f" one that can; the first: {complaints[0]}"
        )
    return images, broken
