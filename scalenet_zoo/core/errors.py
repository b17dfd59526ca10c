"""The errors that the library raises on purpose: one type per kind of failure, with messages of one line."""

from scalenet_zoo.core.bounds import MESSAGE_CHARACTERS
from scalenet_zoo.core.quoting import elide, printable


class ZooError(Exception):
    """Base of every error below; the command line prints its message as one line and exits with 1.

    Messages quote files, so control characters are shown escaped, and a message that is too long loses its middle.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(elide(printable(message), MESSAGE_CHARACTERS))


class UsageError(ZooError, ValueError):
    """Arguments do not fit together, or do not fit the network.

    The message has the names of arguments in backticks; the command line shows their flags instead, and exits with 2.
    """


class SpecError(ZooError, ValueError):
    """An architecture spec or family file is not valid."""


class ModelNotFoundError(ZooError, LookupError):
    """Neither an entry of the zoo nor a file has this name."""


class QuantityError(ZooError, ValueError):
    """A quantity such as `600M` cannot be read."""


class BudgetError(ZooError, ValueError):
    """No network of the family, or no entry of the zoo, fits the budget."""


class WeightsError(ZooError):
    """Weights are not published, cannot be fetched, or do not fit the network."""


class InputError(ZooError, ValueError):
    """An input file, such as an image, cannot be read."""


class OutputError(ZooError, OSError):
    """A file cannot be written."""


class TrainingError(ZooError):
    """Training cannot begin, cannot continue, or failed."""


class BackendError(ZooError):
    """A back end cannot run on this machine, or cannot run a network."""


class ExportError(ZooError):
    """A network cannot be exported."""


class EngineError(ExportError):
    """An engine cannot be built, or is damaged, stale or for another machine."""


class VerificationError(ExportError):
    """An exported file does not compute what its network computes."""
