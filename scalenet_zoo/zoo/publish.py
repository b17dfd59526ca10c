"""Copy model folders from the Hugging Face Hub to a local folder, and publish them there."""

import shutil
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from torch import nn

from scalenet_zoo.arch.provenance import public_spec
from scalenet_zoo.core.errors import OutputError, WeightsError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import replacing_folder, scratch_folder
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.hub import fetch_card, fetch_folder, hub_errors, pinned
from scalenet_zoo.zoo.model_card import render_card
from scalenet_zoo.zoo.model_folder import (
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
from scalenet_zoo.zoo.weights_files import read_weights

FILES = (CONFIG, SPEC, WEIGHTS, CARD)


def pull(repository: str, folder: str | Path | None = None, revision: str | None = None) -> ModelFolder:
    """Download a repository's model folder and card into a local folder, and check that its network can be built.

    Args:
        repository: as `org/name`, `hf-hub:org/name`, or either with `@revision`.
        folder: a new or empty folder, or a model folder, which is replaced; None: NAME in the current folder.
        revision: a branch, tag or commit; None: the main branch.

    Raises:
        WeightsError, SpecError: as for `fetch_folder`, or the weights do not fit the spec.
        OutputError: the folder holds other files, or cannot be written.
    """
    name, revision = pinned(repository.removeprefix(HUB_PREFIX), revision)
    path = user_path(folder) if folder else Path(name.rpartition("/")[2])
    if path.is_dir() and (others := sorted({file.name for file in path.iterdir()} - set(FILES))):
        raise OutputError(f"{path}: found {others[0]}, expected a new folder, or a model folder without other files")
    fetched = fetch_folder(name, revision)
    create_seeded(fetched)
    with replacing_folder(path) as new:
        for file in (CONFIG, SPEC, WEIGHTS):
            shutil.copyfile(fetched.path / file, new / file)
        if card := fetch_card(name, fetched.path.name):
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
    """Upload a network as a model folder with its card, in one commit; create the repository if there is none.

    A README.md in the folder is the card; otherwise the card is generated. Paths on this machine in the provenance
    (the data, the command) are shortened to their last name.

    Args:
        source: one of our networks, wrapped or not; a model folder; or a run of `train`, for its best network.
        repository: as `org/name`.
        private: create a private repository; an existing repository must be private.
        revision: a branch, created if there is none; None: the main branch.
        message: the commit message; None: "Add NAME".
        license: the licence of the weights, by the Hub's name, such as `apache-2.0`.
        token: an access token of the Hub; None: the one that the client finds.

    Returns:
        The client's description of the commit, with `oid` and `commit_url`.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: there is no such folder, or it is incomplete.
        WeightsError: the Hub cannot be reached, or refuses the upload; or a licence is given for a folder with a card.
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
        with hub_errors(f"{repository}: cannot push to the Hugging Face Hub"):
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
    """Write a copy of a model folder without paths on this machine; files without such paths keep their bytes.

    The file of weights is written too, because its metadata hold the spec.
    """
    model = create_seeded(folder)
    model.spec = public_spec(folder.spec)  # type: ignore[assignment]
    save_model(model, to, read_weights(folder.weights)[0])  # unchanged: they may be in half precision


def _card(folder: ModelFolder, repository: str, license: str | None) -> bytes:  # noqa: A002 - as push
    path = folder.path / CARD
    if not path.exists() and not path.is_symlink():
        return render_card(folder, repository, license).encode()
    if license:
        raise WeightsError(f"{path}: found a model card and a licence, expected the licence in the card, or no card")
    if path.is_symlink() or not path.is_file():  # a link from elsewhere must not publish a file of the user's
        raise WeightsError(f"{path}: is not a regular file, expected a model card")
    return path.read_bytes()
