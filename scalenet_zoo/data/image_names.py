"""Decide by name which files are images: the same rule for folders, tar files, streams and `predict`."""

from functools import cache

from PIL import Image

IMAGE_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"
)  # fmt: skip
"""Pillow's names of the formats that are read. All are plain pictures, and Pillow needs no other program for them."""

_SYSTEMS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db"}
"""Names that operating systems leave in folders, in lower case."""


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with a dot."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS)


def is_image(name: str) -> bool:
    """Return whether a file with this name, without folders, is an image."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and not is_hidden(name) and (dot + suffix).lower() in image_suffixes()


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or not the user's own: `.ipynb_checkpoints`, macOS's `._a.jpg`."""
    return name.startswith(".") or name.lower() in _SYSTEMS
