"""A check that an output can be written, before the minutes or days of work that produce it."""

from contextlib import suppress
from pathlib import Path

from scalenet_zoo.core.errors import OutputError
from scalenet_zoo.core.files import cache_folder, replacing


def check_writable(path: Path) -> None:
    """Check that a file can be written, by trying; leave neither the file nor folders made for it.

    Raises:
        OutputError: it cannot be written. For a file in the user's cache, the message says how to move the cache.
    """
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        with replacing(path):
            pass
    except OSError as error:
        about = str(error) if isinstance(error, OutputError) else f"{path}: cannot be written: {error.strerror}"
        hint = "; XDG_CACHE_HOME=FOLDER puts it elsewhere" if path.is_relative_to(cache_folder()) else ""
        raise OutputError(about + hint) from error
    with suppress(OSError):  # another process uses the folder by now
        for folder in missing:
            folder.rmdir()
