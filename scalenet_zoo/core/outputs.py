"""Looking at what will be written before the work that ends with it, which may take minutes or days."""

from contextlib import suppress
from pathlib import Path

from scalenet_zoo.core.errors import OutputError
from scalenet_zoo.core.files import cache_folder, replacing


def check_writable(path: Path) -> None:
    """See that a file can be written, by trying; nothing is left of it, and of folders that it needs.

    Raises:
        OutputError: it cannot. Of a file in the user's cache the message says how to have that elsewhere.
    """
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        with replacing(path):
            pass
    except OSError as error:
        about = str(error) if isinstance(error, OutputError) else f"{path}: cannot be written: {error.strerror}"
        hint = "; XDG_CACHE_HOME=FOLDER puts it elsewhere" if path.is_relative_to(cache_folder()) else ""
        raise OutputError(about + hint) from error
    with suppress(OSError):  # somebody else has begun to use it
        for folder in missing:
            folder.rmdir()
