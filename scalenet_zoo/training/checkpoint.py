"""Checkpoints of a training run: everything that the next step depends on. Damaged files are never used.

RUN/checkpoints/00000240/
  config.json, spec.json, model.safetensors   the network, ready for use (supernets have none); see `model_folder.py`
  training.safetensors                        the weights being trained, and the optimiser's tensors
  training.json                               the step, the rest of the states, and the sha256 of every file
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

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.bounds import CHECKPOINT_BYTES
from scalenet_zoo.core.documents import Strict, first_complaint
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.core.files import file_sha256, read_json, replacing_folder
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.weights_files import read_weights

_logger = logging.getLogger(__name__)

STATE, TENSORS = "training.json", "training.safetensors"


class Progress(Strict):
    """The progress of a run.

    Attributes:
        step: optimiser steps done.
        seconds: time spent training, including evaluation.
        best: the best value of the task's metric on the validation images, and its step; None: not yet evaluated.
        broken: the names of the images that could not be read.
    """

    step: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    best: tuple[float, int] | None = None
    broken: tuple[str, ...] = ()


class _State(Strict):
    """The content of training.json; since version 2 it has a digest, the sha256 of all other fields."""

    format: Literal["scalenet-zoo/checkpoint"] = "scalenet-zoo/checkpoint"
    version: Annotated[int, Field(ge=1, le=2)] = 2
    trained: str
    progress: Progress
    rest: dict[str, JsonValue]
    files: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        progress: the progress of the run.
        states: the states that `write_state` was given, by name.
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
        network: the network that is being trained.
        states: state dicts by name, such as the optimiser's: dicts and lists of tensors, numbers, strings and None.
        progress: the progress of the run.
        average: the moving average of the network; if it is given, `model.safetensors` holds its weights.
        keep: the number of checkpoints to keep, at least 1.

    Raises:
        OutputError: the checkpoint cannot be written.
    """
    trained: Mapping[str, Tensor] = network.state_dict() if average is not None else {}
    with _new_checkpoint(run, progress, keep) as folder:
        save_model(network, folder, average.state_dict() if average is not None else None)
        write_state(folder, spec_of(network).hash, {**states, "network": dict(trained)}, progress)


def save_state(run: Path, trained: str, states: Mapping[str, Any], progress: Progress, keep: int = 2) -> None:
    """Write a checkpoint of something other than a network, then remove all but the newest `keep`; see `write_state`.

    Raises:
        OutputError: the checkpoint cannot be written.
    """
    with _new_checkpoint(run, progress, keep) as folder:
        write_state(folder, trained, states, progress)


@contextmanager
def _new_checkpoint(run: Path, progress: Progress, keep: int) -> Iterator[Path]:
    with replacing_folder(run / "checkpoints" / f"{progress.step:08d}") as folder:
        yield folder
    before = [path for path in checkpoints(run) if int(path.name) <= progress.step]
    for path in set(checkpoints(run)).difference(before[:keep]):  # checkpoints of later steps are damaged or unused
        shutil.rmtree(path)


def write_state(folder: Path, trained: str, states: Mapping[str, Any], progress: Progress) -> None:
    """Write the trainer's state, and the hashes of all files in the folder.

    Args:
        folder: the folder of the checkpoint.
        trained: the hash of the architecture or space that is trained.
        states: state dicts by name: dicts and lists of tensors, numbers, strings and None.
        progress: the progress of the run.
    """
    tensors: dict[str, Tensor] = {}
    rest = {name: _split(state, name, tensors) for name, state in states.items()}
    (folder / TENSORS).write_bytes(save(tensors))
    files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    fields = _State(trained=trained, progress=progress, rest=rest, files=files).model_dump(mode="json")
    (folder / STATE).write_text(json.dumps({**fields, "digest": _digest(fields)}, allow_nan=False), encoding="utf-8")


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, the newest first."""
    paths = (path for path in (run / "checkpoints").glob("*") if path.name.isdecimal() and path.is_dir())
    return sorted(paths, key=lambda path: int(path.name), reverse=True)


def load_newest(run: Path, network: nn.Module, average: nn.Module | None = None) -> Checkpoint | None:
    """Load the newest intact checkpoint of a run into a network; a warning names each damaged one.

    Args:
        run: the run's folder.
        network: the network that receives the trained weights.
        average: the network that receives their moving average, if the run has one.

    Returns:
        The checkpoint, or None if the run has none.

    Raises:
        WeightsError: a checkpoint is of another architecture, or all of them are damaged.
    """
    return newest(run, lambda path: load_checkpoint(path, network, average))


def newest(run: Path, read: Callable[[Path], Checkpoint]) -> Checkpoint | None:
    """Read the newest intact checkpoint of a run; a warning names each damaged one.

    Args:
        run: the run's folder.
        read: reads the folder of one checkpoint, as `load_checkpoint` and `read_state` do.

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
            _logger.warning("%s; an older checkpoint is used instead", complaint)
        return checkpoint
    if damaged:
        raise WeightsError(f"{run}: found no intact checkpoint among {len(damaged)}, expected one: {damaged[0]}")
    return None


class _DamagedError(WeightsError):
    pass


def load_checkpoint(path: Path, network: nn.Module, average: nn.Module | None = None) -> Checkpoint:
    """Check the files of a checkpoint; load the trained weights into `network` and their average into `average`.

    Raises:
        WeightsError: the checkpoint is damaged, or of another architecture.
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
    """Check the files of a checkpoint, and read what `write_state` wrote.

    Args:
        path: the folder of the checkpoint.
        trained: the expected hash of the architecture or space.
        name: the name of this architecture or space, for messages.

    Raises:
        WeightsError: the checkpoint is damaged, or of another architecture or space.
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
    except (WeightsError, KeyError, TypeError, ValueError):  # possible in version 1, whose training.json has no digest
        raise _DamagedError(f"{path / STATE}: is damaged: its states are not those of {TENSORS}") from None
    return Checkpoint(state.progress, states)


def _read_state(path: Path) -> _State:
    try:
        fields = read_json(path, CHECKPOINT_BYTES)
        if not isinstance(fields, dict):
            raise ValueError("found no fields with values, expected those of a checkpoint")
        digest = fields.pop("digest", None)
        if digest != _digest(fields) and (digest is not None or fields.get("version") != 1):
            raise ValueError("found a digest of other values, expected that of the file's values")
        return _State.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise _DamagedError(f"{path}: is damaged: {first_complaint(error)}") from None
    except ValueError as error:
        raise _DamagedError(f"{path}: is damaged: {error}") from None


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 - any state dict
    """Move the tensors of a tree to `tensors`; dicts become lists of pairs, so that keys keep their types."""
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
