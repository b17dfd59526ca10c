"""Read files of weights from any source: first the list of their tensors, then the tensors, without their containers.

    file --open_weights_file--> OpenedWeights: names, shapes, metadata --read--> tensors

There are two kinds of file, distinguished by their first bytes: safetensors, and files of torch.save (.pth, .pt, .bin).
From the latter only tensors and plain data are loaded (`weights_only`); a file that names anything else could run code
and is refused. The tensors stay on disk until they are read, unless the file is in torch's format before 1.6.
"""

import re
import textwrap
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scalenet_zoo.arch.spec import WRAPPERS
from scalenet_zoo.core.bounds import WEIGHTS_HEADER_BYTES
from scalenet_zoo.core.errors import WeightsError, ZooError
from scalenet_zoo.core.file_kinds import PICKLE, kind_of, no_weights
from scalenet_zoo.core.files import regular_file
from scalenet_zoo.core.memory import check_memory
from scalenet_zoo.core.quoting import elide, quoted

AVERAGES = ("state_dict_ema", "model_ema")
"""Names under which timm's and torchvision's trainers store the moving average of the weights."""
_CONTAINERS = (*AVERAGES, "state_dict", "model_state_dict", "model")
"""Names under which trainers store weights, in the order of the search."""
_LEVELS = 4
"""Largest depth of nested containers."""

_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}
_OF_WRAPPERS = {"n_averaged"}
"""Tensors that wrappers, such as torch's AveragedModel, add to those of the network."""
_PREFIX = "model."
"""The network's name in trainers that join a network and its loss in one module."""
_T = TypeVar("_T")


class Form(NamedTuple):
    """What is known about a tensor before it is read.

    Attributes:
        shape: its size in each dimension.
        numbers: the kind of its values, in words, such as "integers".
    """

    shape: tuple[int, ...]
    numbers: str

    @classmethod
    def of(cls, tensor: Tensor) -> "Form":
        """Return the form of a tensor."""
        if tensor.is_floating_point():
            return cls(tuple(tensor.shape), _numbers("F32"))
        integers = not tensor.is_complex() and tensor.dtype is not torch.bool
        return cls(tuple(tensor.shape), _numbers("I64" if integers else str(tensor.dtype)))


@dataclass(frozen=True)
class OpenedWeights:
    """An opened file of weights.

    Attributes:
        path: the file.
        forms: the forms of its tensors, by their names in the file.
        metadata: the metadata of a safetensors file; empty for a file of torch.save.
        taken_from: the container in the file that holds the tensors, such as `state_dict_ema`; "": no container.
        mapped: the tensors of a file of torch.save; None: the file is a safetensors file.
    """

    path: Path
    forms: Mapping[str, Form]
    metadata: Mapping[str, str]
    taken_from: str = ""
    mapped: Mapping[str, Tensor] | None = None

    def read(self) -> dict[str, Tensor]:
        """Read the tensors, by their names in the file.

        Raises:
            WeightsError: the file can no longer be read.
            BackendError: the tensors do not fit into memory.
        """
        return read_weights(self.path)[0] if self.mapped is None else dict(self.mapped)


def open_weights_file(path: str | Path) -> OpenedWeights:
    """Open a file of weights of either kind.

    If a checkpoint holds both the trained weights and their moving average, the average is used, because trainers
    evaluate it; timm does the same.

    Raises:
        WeightsError: the file is missing, is of neither kind, or could run code.
        BackendError: the file is in torch's format before 1.6 and does not fit into memory.
    """
    path = Path(path)
    try:
        regular_file(path)
    except ValueError as error:
        raise WeightsError(f"{path}: expected a file of weights: {error}") from None
    if kind_of(path) != PICKLE:
        return OpenedWeights(path, *read_header(path))
    state, taken_from = _unpacked(_read_pickle(path))
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor) and isinstance(key, str)}
    if not tensors:
        containers = ", ".join(_CONTAINERS)
        raise WeightsError(f"{path}: found no tensors, expected a state dict, by itself or under one of {containers}")
    for key, value in tensors.items():
        plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
        if not plain or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(f"{path}: {key}: found {quoted(value)}, expected a dense tensor with values")
    return OpenedWeights(path, {key: Form.of(value) for key, value in tensors.items()}, {}, taken_from, tensors)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        WeightsError: the file is missing or is not a safetensors file.
        BackendError: the tensors do not fit into memory.
    """
    check_memory(_check_file(path), f"{path}: reading it")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def read_header(path: str | Path) -> tuple[dict[str, Form], dict[str, str]]:
    """Read the names and forms of the tensors in a safetensors file, and its metadata, without reading the tensors.

    Raises:
        WeightsError: as for `read_weights`.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            forms = {key: Form(tuple(part.get_shape()), _numbers(part.get_dtype())) for key, part in slices.items()}
            return forms, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def plain_names(state: Mapping[str, _T], source: str = "weights") -> dict[str, _T]:
    """Return tensors by the network's own names, without the parts that wrappers of modules add to names.

    Args:
        state: tensors, or anything else, by name.
        source: the name of the tensors in messages.

    Raises:
        WeightsError: a tensor is there twice.
    """
    plain: dict[str, _T] = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS).removeprefix(_PREFIX)
        if name in plain:
            raise WeightsError(f"{source}: found {name} twice, with and without a wrapper's name, expected it once")
        if name not in _OF_WRAPPERS:
            plain[name] = value
    return plain


def _check_file(path: str | Path) -> int:
    """Check the kind of a file and the size of its header, which the library reads whole; return the size in bytes."""
    path = Path(path)
    try:
        size = regular_file(path)
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if size < 8 + header <= 8 + WEIGHTS_HEADER_BYTES:
        raise WeightsError(f"{path}: found {size:,} bytes, expected more: the file is empty or was cut off")
    if header > WEIGHTS_HEADER_BYTES:
        about = no_weights(path) or f"found a header of {header:,} bytes, expected at most {WEIGHTS_HEADER_BYTES:,}"
        raise WeightsError(f"{path}: expected a safetensors file: {about}")
    return size


def _unreadable(path: str | Path, error: Exception) -> WeightsError:
    said = str(error).removeprefix("Error while deserializing header: ")
    if "not fully covered" in said:
        said = "the file is damaged: its tensors do not end where the file ends"
    return WeightsError(f"{path}: expected a safetensors file: {said}")


def _numbers(dtype: str) -> str:
    return "floating-point numbers" if dtype in _FLOATS else "integers" if dtype in _INTEGERS else f"type {dtype}"


def _read_pickle(path: Path) -> object:
    """Read what torch.save wrote; the tensors stay on disk if the format of the file allows that."""
    try:
        mapped = _is_mappable(path)
    except ZooError:
        raise
    except Exception as error:  # zipfile raises errors of many types
        raise WeightsError(f"{path}: expected a file of torch.save: {error}") from None
    try:
        # Trainers store their arguments with the weights, as a namespace: a class without code of its own.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged files lead to errors of any type
        said = str(error)
        if found := re.search(r"GLOBAL:? ([\w.]+)", said):
            raise WeightsError(
                f"{path}: found a pickle that names {found[1]}, which could run code, expected tensors and plain data;"
                " if you trust the file, save its state dict alone"
            ) from None
        if found := re.search(r"WeightsUnpickler error:\s*(.+)", said):
            raise WeightsError(
                f"{path}: found a pickle of more than tensors and plain data ({elide(found[1], 80)}), which could run"
                " code, expected a state dict of torch.save"
            ) from None
        reason = textwrap.shorten(said.partition(". This is")[0], 200, placeholder="...")
        raise WeightsError(f"{path}: expected a file of torch.save: {type(error).__name__}: {reason}") from None


def _is_mappable(path: Path) -> bool:
    """Return whether a file of torch.save is a zip file. Any other file is read whole, so it must fit into memory."""
    size = regular_file(path)
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if not is_zip:
        check_memory(size, f"{path}: reading it")
        return False
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"found {entry.filename} compressed, expected uncompressed files")
            if entry.filename.endswith(".pkl") and entry.file_size > WEIGHTS_HEADER_BYTES:
                raise ValueError(
                    f"{entry.filename}: found {entry.file_size:,} bytes, expected at most {WEIGHTS_HEADER_BYTES:,}"
                )
    return True


def _unpacked(state: object) -> tuple[Mapping[object, object], str]:
    """Return the mapping of tensors in what a trainer saved, and the names of the containers around it."""
    names: list[str] = []
    while isinstance(state, Mapping) and len(names) < _LEVELS:
        inner = next((name for name in _CONTAINERS if isinstance(state.get(name), Mapping) and state[name]), None)
        if inner is None:
            break
        names.append(inner)
        state = state[inner]
    return (state if isinstance(state, Mapping) else {}), ".".join(names)
