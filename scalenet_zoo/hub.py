"""The Hugging Face Hub: model folders fetched from its repositories, and pushed to them.

Its client finds the cache, the token and offline mode (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE). Every file of
a repository is of one commit. Only JSON, safetensors and the card are fetched: nothing that could run code.
"""

import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, hf_hub_download
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
from torch import nn

from scalenet_zoo._files import replacing_folder, scratch_folder
from scalenet_zoo.bounds import JSON_BYTES
from scalenet_zoo.errors import OutputError, WeightsError, ZooError
from scalenet_zoo.file_kinds import user_path
from scalenet_zoo.model_card import render_card
from scalenet_zoo.model_folder import (
    CARD,
    CONFIG,
    HUB_PREFIX,
    SPEC,
    WEIGHTS,
    ModelFolder,
    find_folder,
    read_folder,
    save_model,
)
from scalenet_zoo.provenance import public_spec
from scalenet_zoo.weights import read_weights
from scalenet_zoo.zoo import create_model

FILES = (CONFIG, SPEC, WEIGHTS, CARD)


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
        with_weights: whether the weights are fetched, too.
        cache_dir: the Hub's cache; None: the client's.

    Raises:
        WeightsError: the Hub cannot be reached, or does not have the files, or they are larger than they may be.
        SpecError: a file is not valid.
    """
    name, revision = _pinned(repository, revision)
    config = _fetch(name, CONFIG, revision, cache_dir, JSON_BYTES)
    commit = config.parent.name
    _fetch(name, SPEC, commit, cache_dir, JSON_BYTES)
    folder = read_folder(config.parent)
    if with_weights:
        _fetch(name, WEIGHTS, commit, cache_dir, folder.config.scalenet_zoo.weights.bytes)
    return folder


def pull(repository: str, folder: str | Path, revision: str | None = None) -> ModelFolder:
    """Download a repository's model folder and card into a folder, and check that its network can be built.

    Args:
        repository: as `org/name`, `hf-hub:org/name`, or either with `@revision`.
        folder: new, empty, or a model folder, which is replaced.
        revision: a branch, tag or commit; None: the main branch.

    Raises:
        WeightsError, SpecError: as `fetch_folder`; or the weights do not fit.
        OutputError: the folder holds other files, or cannot be written.
    """
    path = user_path(folder)
    if path.is_dir() and (others := sorted({file.name for file in path.iterdir()} - set(FILES))):
        raise OutputError(f"{path}: found {others[0]} in it, expected a new folder, or one with a network alone")
    name, revision = _pinned(repository.removeprefix(HUB_PREFIX), revision)
    fetched = fetch_folder(name, revision)
    create_model(fetched)
    with replacing_folder(path) as new:
        for file in (CONFIG, SPEC, WEIGHTS):
            shutil.copyfile(fetched.path / file, new / file)
        if card := _fetch_card(name, fetched.path.name):
            shutil.copyfile(card, new / CARD)
    return read_folder(path)


def push(
    source: nn.Module | str | Path,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,  # noqa: A002 - the Hub's name
    token: str | None = None,
) -> CommitInfo:
    """Upload a network as a model folder with its card, in one commit; the repository is made if there is none.

    A folder's own README.md is its card; where there is none, it is generated. Of the paths of this machine that its
    provenance names (data, the command), the last names alone are published.

    Args:
        source: a network of ours, wrapped or not, a model folder, or a run of `train`, for its best network.
        repository: as `org/name`.
        private: a new repository is private; an existing one must be.
        revision: a branch, made if there is none; None: the main branch.
        message: of the commit.
        license: of the weights, by the Hub's name for it, such as `apache-2.0`.
        token: None: the one that the client finds.

    Returns:
        What the client says of the commit: `oid`, `commit_url`.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: there is no such folder, or it is not whole.
        WeightsError: the Hub cannot be reached, or refuses.
    """
    if isinstance(source, nn.Module):
        with scratch_folder() as scratch:
            save_model(source, scratch)
            return push(scratch, repository, private, revision, message, license, token)
    repository = repository.removeprefix(HUB_PREFIX)
    folder = read_folder(find_folder(source))
    card = _card(folder, repository, license)
    with scratch_folder() as scratch:
        _save_public(folder, scratch)
        contents: dict[str, str | bytes] = {file: str(scratch / file) for file in (CONFIG, SPEC, WEIGHTS)}
        contents[CARD] = card
        api = HfApi(token=token)
        with _one_line(f"{repository}: cannot push to the Hugging Face Hub"):
            api.create_repo(repository, private=private or None, exist_ok=True)
            if private and not api.model_info(repository).private:
                raise WeightsError(f"{repository}: found a public repository, expected a private one")
            if revision:
                api.create_branch(repository, branch=revision, exist_ok=True)
            return api.create_commit(
                repository,
                [CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in contents.items()],
                commit_message=message or f"Add {folder.spec.name}",
                revision=revision,
            )


def _save_public(folder: ModelFolder, to: Path) -> None:
    """Write a model folder anew, without paths of this machine; what had none has the same bytes.

    The spec is in the weights' metadata as well.
    """
    model = create_model(folder)
    model.spec = public_spec(folder.spec)  # type: ignore[assignment]
    save_model(model, to, read_weights(folder.weights)[0])  # as they are: maybe in half precision


def _card(folder: ModelFolder, repository: str, license: str | None) -> bytes:  # noqa: A002 - as push
    path = folder.path / CARD
    if not path.exists() and not path.is_symlink():
        return render_card(folder, repository, license).encode()
    if license:
        raise WeightsError(f"{path}: found a card and a licence, expected the card to name it, or no card")
    if path.is_symlink() or not path.is_file():  # a folder from elsewhere must not publish other files of the user's
        raise WeightsError(f"{path}: is not a regular file, expected a model card")
    return path.read_bytes()


def _pinned(repository: str, revision: str | None) -> tuple[str, str | None]:
    """Take `org/name@revision` apart."""
    name, _, pin = repository.partition("@")
    if pin and revision and pin != revision:
        raise WeightsError(f"{name}: found the revisions {pin} and {revision}, expected one")
    return name, revision or pin or None


def _fetch_card(repository: str, commit: str) -> Path | None:
    try:
        return _fetch(repository, CARD, commit, None, JSON_BYTES)
    except WeightsError as error:
        if isinstance(error.__cause__, EntryNotFoundError):  # a repository without one, or offline
            return None
        raise


def _fetch(
    repository: str, file: str, revision: str | None, cache_dir: str | Path | None, limit: int | None = None
) -> Path:
    """A file of a repository, in the Hub's cache; `limit` are the bytes that it may have."""
    with _one_line(f"{repository}: cannot fetch {file} from the Hugging Face Hub"):
        if limit is not None:
            size = hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir, dry_run=True).file_size
            if size is not None and size > limit:
                raise WeightsError(f"{repository}: {file}: found {size:,} bytes, expected at most {limit:,}")
        return Path(hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir))


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn whatever the client, its HTTP library or the operating system raises into one line."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        raise WeightsError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    match error:
        case GatedRepoError():
            return "access is gated; ask for it on the repository's page, then log in (`hf auth login`, or HF_TOKEN)"
        case RevisionNotFoundError():
            return "found no such revision"
        case RepositoryNotFoundError():
            return "found no such repository; if it is private, log in (`hf auth login`, or HF_TOKEN)"
        case RemoteEntryNotFoundError():
            return "the repository has no such file, and no other is read in its place"
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
