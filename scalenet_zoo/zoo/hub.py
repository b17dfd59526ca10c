"""The Hugging Face Hub: fetch model folders and weights from its repositories; `publish` pushes them.

The Hub's client determines the cache, the token and offline mode (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE). All files of a
repository come from one commit. Only JSON, safetensors and the card are fetched: nothing that could run code.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from scalenet_zoo.core.bounds import JSON_BYTES
from scalenet_zoo.core.errors import WeightsError, ZooError
from scalenet_zoo.zoo.model_folder import (
    CARD,
    CONFIG,
    SPEC,
    WEIGHTS,
    ModelFolder,
    read_folder,
)


def fetch_weights(repository: str) -> Path:
    """Download `model.safetensors` of a Hub repository, or find it in the Hub's cache.

    Raises:
        WeightsError: the Hub cannot be reached, or has no such repository or file.
    """
    return _fetch(repository, WEIGHTS, None, None)


def fetch_folder(
    repository: str, revision: str | None = None, with_weights: bool = True, cache_dir: str | Path | None = None
) -> ModelFolder:
    """Download a repository's model folder, or find it in the Hub's cache.

    Args:
        repository: as `org/name`, or `org/name@revision`.
        revision: a branch, tag or commit; None: the main branch.
        with_weights: whether the weights are fetched as well.
        cache_dir: the Hub's cache; None: the client's.

    Raises:
        WeightsError: the Hub cannot be reached, or does not have the files, or a file is larger than allowed.
        SpecError: a file is not valid.
    """
    name, revision = pinned(repository, revision)
    config = _fetch(name, CONFIG, revision, cache_dir, JSON_BYTES)
    commit = config.parent.name
    _fetch(name, SPEC, commit, cache_dir, JSON_BYTES)
    folder = read_folder(config.parent)
    if with_weights:
        _fetch(name, WEIGHTS, commit, cache_dir, folder.config.scalenet_zoo.weights.bytes)
    return folder


def pinned(repository: str, revision: str | None) -> tuple[str, str | None]:
    """Split `org/name@revision` into the repository and the revision.

    Args:
        repository: as `org/name`, or `org/name@revision`.
        revision: a branch, tag or commit from elsewhere; None: not given.

    Returns:
        `org/name`, and the revision; None: the main branch.

    Raises:
        WeightsError: both revisions are given, and differ.
    """
    name, _, pin = repository.partition("@")
    if pin and revision and pin != revision:
        raise WeightsError(f"{name}: found the revisions {pin} and {revision}, expected one")
    return name, revision or pin or None


def fetch_card(repository: str, commit: str) -> Path | None:
    """Download the card of a repository at a commit; None: there is no card.

    Raises:
        WeightsError: the Hub cannot be reached.
    """
    try:
        return _fetch(repository, CARD, commit, None, JSON_BYTES)
    except WeightsError as error:
        if isinstance(error.__cause__, EntryNotFoundError):  # the repository has no card, or the client is offline
            return None
        raise


def _fetch(
    repository: str, file: str, revision: str | None, cache_dir: str | Path | None, limit: int | None = None
) -> Path:
    """Return a file of a repository in the Hub's cache; `limit` is the largest size in bytes."""
    with hub_errors(f"{repository}: cannot fetch {file} from the Hugging Face Hub"):
        if limit is not None:
            size = hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir, dry_run=True).file_size
            if size is not None and size > limit:
                raise WeightsError(f"{repository}: {file}: found {size:,} bytes, expected at most {limit:,}")
        return Path(hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir))


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn whatever the client, its HTTP library or the operating system raises into one line.

    Raises:
        WeightsError: anything other than a `ZooError` is raised inside; the message begins with `what`.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        raise WeightsError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    match error:
        case GatedRepoError():
            return "access is gated; request it on the repository's page, then log in (`hf auth login`, or HF_TOKEN)"
        case RevisionNotFoundError():
            return "found no such revision"
        case RepositoryNotFoundError():
            return "found no such repository; if it is private, log in (`hf auth login`, or HF_TOKEN)"
        case RemoteEntryNotFoundError():
            return "the repository has no such file, and no other file is read instead"
        case OfflineModeIsEnabled():
            return "offline mode is on (HF_HUB_OFFLINE)"
        case LocalEntryNotFoundError() if error.__cause__:
            return f"it is not in the cache, and {_reason(error.__cause__)}"
        case HfHubHTTPError() if error.response.status_code == 401:
            return "the Hub answers 401; log in (`hf auth login`, or HF_TOKEN)"
        case HfHubHTTPError() if error.response.status_code == 403:
            return "the Hub answers 403; the token has no permission for this"
        case HfHubHTTPError():
            return f"the Hub answers {error.response.status_code}"
    text = textwrap.shorten(str(error), 300, placeholder="...") or type(error).__name__
    return f"{text}: {_reason(error.__cause__)}" if error.__cause__ else text
