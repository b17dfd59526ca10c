"""Images that cannot be read: named, counted, and too many of them an error."""

from collections.abc import Iterable

from scalenet_zoo.core.errors import InputError


class BrokenImages:
    """Remembers which images could not be read.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> list[str]:
        """Each image once, with what is wrong with it, in the order of their discovery."""
        return list(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Remember images.

        Args:
            names: as loaders name them: the file, and what is wrong with it.

        Raises:
            InputError: there are more than `limit`.
        """
        self._names.update(dict.fromkeys(names))
        if len(self) > self.limit:
            raise InputError(complaint(self.names, self.limit))


class LoadingError(InputError):
    """An `InputError` in a worker of a data loader.

    Torch raises it anew with the worker's traceback for a message; people see the last line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def complaint(names: list[str], limit: int) -> str:
    """What to say of more broken images than there may be, or of those that are all that there are."""
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    if len(names) <= limit:
        return f"found no image that can be used: {names[0]}{more}"
    noun = "image" if len(names) == 1 else "images"
    return f"found {len(names)} {noun} that cannot be used, expected at most {limit}: {names[0]}{more}"
