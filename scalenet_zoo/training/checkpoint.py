"""Checkpoints of a training run: all that the next step depends on, in files that are whole or are not used.

RUN/checkpoints/00000240/
  config.json, spec.json, model.safetensors   the network as one would use it; see `model_folder.py` (not of a supernet)
  training.safetensors                        the weights as they are trained, the optimiser's tensors
  training.json                               the step, the rest of the optimiser, each file's sha256, and its own
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from scalenet_zoo.arch.spec import Strict, first_complaint, spec_of
from scalenet_zoo.core.bounds import CHECKPOINT_BYTES
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.core.files import file_sha256, read_json, replacing_folder
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.weights_files import read_weights

_logger = logging.getLogger(__name__)

STATE, TENSORS = "training.json", "training.safetensors"


class Progress(Strict):
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        seconds: spent training, evaluation included.
        best: the best value of the task's metric on the validation images, and its step; None: not yet evaluated.
        broken: images that could not be read, by name.
    """

    step: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    best: tuple[float, int] | None = None
    broken: tuple[str, ...] = ()


class _State(Strict):
    """What training.json says; since version 2 with its digest, the sha256 of all the rest."""

    format: Literal["scalenet-zoo/checkpoint"] = "scalenet-zoo/checkpoint"
    version: Annotated[int, Field(ge=1, le=2)] = 2
    trained: str
    progress: Progress
    rest: dict[str, JsonValue]
    files: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read.

    Attributes:
        progress: how far the run was.
        states: what `write_state` was given, by name.
    """

    progress: Progress
    states: Mapping[str, Any]


def save_checkpoint(
    run: Path,
    network: nn.Module,
    states: Mapping[str, Any],
    progress: Progress,
    average: nn.Module | None = None,
    keep: int = 2,
) -> None:
    """Write a checkpoint, then remove all but the newest `keep`.

    Args:
        run: the run's folder.
        network: as it is trained.
        states: state dicts of the optimiser and the like: dicts and lists of tensors, numbers, texts and None.
        progress: how far the run is.
        average: the moving average of the network, if there is one: what `model.safetensors` then holds.
        keep: at least 1.

    Raises:
        OutputError: it cannot be written.
    """
    trained: Mapping[str, Tensor] = network.state_dict() if average is not None else {}
    with _new_checkpoint(run, progress, keep) as folder:
        save_model(network, folder, average.state_dict() if average is not None else None)
        write_state(folder, spec_of(network).hash, {**states, "network": dict(trained)}, progress)


def save_state(run: Path, trained: str, states: Mapping[str, Any], progress: Progress, keep: int = 2) -> None:
    """Write a checkpoint of what is no network of ours, then remove all but the newest `keep`; see `write_state`.

    Raises:
        OutputError: it cannot be written.
    """
    with _new_checkpoint(run, progress, keep) as folder:
        write_state(folder, trained, states, progress)


@contextmanager
def _new_checkpoint(run: Path, progress: Progress, keep: int) -> Iterator[Path]:
    with replacing_folder(run / "checkpoints" / f"{progress.step:08d}") as folder:
        yield folder
    before = [path for path in checkpoints(run) if int(path.name) <= progress.step]
    for path in set(checkpoints(run)).difference(before[:keep]):  # one of a later step is damaged, or not in use
        shutil.rmtree(path)


def write_state(folder: Path, trained: str, states: Mapping[str, Any], progress: Progress) -> None:
    """Write the trainer's state, and the hashes of all files in the folder.

    Args:
        folder: of the checkpoint.
        trained: the hash of the architecture, or of the space, that is trained.
        states: state dicts: dicts and lists of tensors, numbers, texts and None.
        progress: how far the run is.
    """
    tensors: dict[str, Tensor] = {}
    rest = {name: _split(state, name, tensors) for name, state in states.items()}
    (folder / TENSORS).write_bytes(save(tensors))
    files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    fields = _State(trained=trained, progress=progress, rest=rest, files=files).model_dump(mode="json")
    (folder / STATE).write_text(json.dumps({**fields, "digest": _digest(fields)}, allow_nan=False), encoding="utf-8")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    paths = (path for path in (run / "checkpoints").glob("*") if path.name.isdecimal() and path.is_dir())
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def load_newest(run: Path, network: nn.Module, average: nn.Module | None = None) -> Checkpoint | None:
    """Load the newest whole checkpoint of a run into a network; a damaged one is named, and the one before is taken.

    Returns:
        The checkpoint, or None if the run has none.

    Raises:
        WeightsError: a checkpoint is of another architecture, or all of them are damaged.
    """
    return newest(run, lambda path: load_checkpoint(path, network, average))


def newest(run: Path, read: Callable[[Path], Checkpoint]) -> Checkpoint | None:
    """The newest whole checkpoint of a run, as `read` reads it; a damaged one is named, and the one before is taken.

    Returns:
        The checkpoint, or None if the run has none.

    Raises:
        WeightsError: a checkpoint is of another architecture, or all of them are damaged.
    """
    damaged = []
    for path in checkpoints(run):
        try:
            checkpoint = read(path)
        except _DamagedError as error:
            damaged.append(str(error))
            continue
        for complaint in damaged:
            _logger.warning("%s; the checkpoint before it is used", complaint)
        return checkpoint
    if damaged:
        raise WeightsError(f"{run}: found no whole checkpoint among {len(damaged)}: {damaged[0]}")
    return None


class _DamagedError(WeightsError):
    pass


def load_checkpoint(path: Path, network: nn.Module, average: nn.Module | None = None) -> Checkpoint:
    """Check a checkpoint's files; load the weights as they are trained into `network`, their average into `average`.

    Raises:
        WeightsError: it is damaged, or of another architecture.
    """
    spec = spec_of(network)
    checkpoint = read_state(path, spec.hash, spec.name)
    usable, _ = read_weights(path / "model.safetensors")
    try:
        network.load_state_dict(checkpoint.states.get("network") or usable)
        if average is not None:
            average.load_state_dict(usable)
    except RuntimeError as error:  # the same architecture with other classes or channels
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: its weights do not fit {spec.name}: {reason}") from None
    return checkpoint


def read_state(path: Path, trained: str, name: str) -> Checkpoint:
    """Check a checkpoint's files, and read what `write_state` wrote.

    Args:
        path: of the checkpoint.
        trained: the hash that it should have been written with.
        name: what that is the hash of, in messages.

    Raises:
        WeightsError: it is damaged, or of something else.
    """
    state = _read_state(path / STATE)
    if state.trained != trained:
        raise WeightsError(
            f"{path}: found a checkpoint of another architecture (hash {state.trained[:12]}),"
            f" expected {name} ({trained[:12]})"
        )
    for file_name, expected in state.files.items():
        file = path / Path(file_name).name
        if not file.is_file():
            raise _DamagedError(f"{file}: is missing")
        if file_sha256(file) != expected:
            raise _DamagedError(f"{file}: is damaged")
    try:
        tensors, _ = read_weights(path / TENSORS)
        states = {name: _join(rest, tensors) for name, rest in state.rest.items()}
    except (WeightsError, KeyError, TypeError, ValueError):  # of version 1, whose training.json has no digest
        raise _DamagedError(f"{path / STATE}: is damaged: its states are not those of {TENSORS}") from None
    return Checkpoint(state.progress, states)


def _read_state(path: Path) -> _State:
    try:
        fields = read_json(path, CHECKPOINT_BYTES)
        if not isinstance(fields, dict):
            raise ValueError("found no fields with values")
        digest = fields.pop("digest", None)
        if digest != _digest(fields) and (digest is not None or fields.get("version") != 1):
            raise ValueError("its digest is not that of the rest")
        return _State.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise _DamagedError(f"{path}: is damaged: {first_complaint(error)}") from None
    except ValueError as error:
        raise _DamagedError(f"{path}: is damaged: {error}") from None


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 - any state dict
    """A tree without its tensors, which go into `tensors`; dicts become lists of pairs: keys keep their types."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _split(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - any state dict
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _join(item, tensors) for key, item in value["dict"]}
    return value
