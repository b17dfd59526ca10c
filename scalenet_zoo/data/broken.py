"""Images that cannot be read: record and count them, and raise an error if there are too many."""

from collections.abc import Iterable

from scalenet_zoo.core.errors import InputError


class BrokenImages:
    """A record of the images that could not be read.

    Args:
        limit: the largest number of broken images that is allowed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> list[str]:
        """The broken images, each once and with the reason, in the order of their discovery."""
        return list(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Record broken images.

        Args:
            names: the images as loaders describe them: the file and the reason.

        Raises:
            InputError: there are now more than `limit`.
        """
        self._names.update(dict.fromkeys(names))
        if len(self) > self.limit:
            raise InputError(complaint(self.names, self.limit))


class LoadingError(InputError):
    """An `InputError` in a worker of a data loader.

    Torch raises it again in the main process, with the worker's traceback as its message; users see the last line only.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def complaint(names: list[str], limit: int) -> str:
    """Return the message about too many broken images, or about data in which all images are broken.

    Args:
        names: the broken images, each with the reason; at least one.
        limit: the largest number that is allowed.
    """
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    if len(names) <= limit:
        return f"data: found no image that can be used: {names[0]}{more}"
    noun = "image" if len(names) == 1 else "images"
    return f"data: found {len(names)} {noun} that cannot be used, expected at most {limit}: {names[0]}{more}"
