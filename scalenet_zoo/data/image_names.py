"""Which files are images, by their names: the same in folders, tar files, streams, and for `predict`."""

from functools import cache

from PIL import Image

IMAGE_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"
)  # fmt: skip
"""Pillow's names of the formats that are read: pictures in their own right, which need no other program."""

_SYSTEMS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db"}
"""What systems leave in folders, in small letters."""


@cache
def image_suffixes() -> frozenset[str]:
    """How the names of images end, in small letters, with a dot."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS)


def is_image(name: str) -> bool:
    """Whether a file of this name, without folders, is an image."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and not is_hidden(name) and (dot + suffix).lower() in image_suffixes()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: `.ipynb_checkpoints`, macOS's `._a.jpg`."""
    return name.startswith(".") or name.lower() in _SYSTEMS
