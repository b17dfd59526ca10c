"""Weights as safetensors files, read and written; never pickle, which could run code.

    file --Weights.open--> names and shapes, checked against the spec --load_into--> network

A file is looked at before a network is built for it. Its weights may be of the same network with another class count or
with other input channels, which `adopt_weights` adapts and says; with anything else they are refused.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.models import adapt_input_conv
from torch import Tensor, nn

from scalenet_zoo.arch.spec import WRAPPERS, ArchSpec, spec_of, unwrapped
from scalenet_zoo.core.bounds import WEIGHTS_HEADER_BYTES
from scalenet_zoo.core.errors import SpecError, WeightsError
from scalenet_zoo.core.file_kinds import no_weights
from scalenet_zoo.core.files import regular_file, replacing
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.networks import network_of

SPEC_KEY = "scalenet_zoo.spec"
"""Where a file's metadata hold the spec."""

_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}
_OF_WRAPPERS = {"n_averaged"}
"""Tensors that wrappers (torch's AveragedModel) keep beside the network's."""

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Form(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    numbers: str


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        WeightsError: the file is missing or is no safetensors file.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def read_header(path: str | Path) -> tuple[dict[str, Form], dict[str, str]]:
    """Read what tensors a safetensors file has, and its metadata, but no tensor.

    Raises:
        WeightsError: as `read_weights`.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            forms = {key: Form(tuple(part.get_shape()), _numbers(part.get_dtype())) for key, part in slices.items()}
            return forms, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _check_file(path: str | Path) -> None:
    """Look at what kind of file it is, and how long its header, which the library would read whole."""
    path = Path(path)
    try:
        size = regular_file(path)
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if size < 8 + header <= 8 + WEIGHTS_HEADER_BYTES:
        raise WeightsError(f"{path}: found {size:,} bytes, expected more: it is empty, or was cut off")
    if header > WEIGHTS_HEADER_BYTES:
        about = no_weights(path) or f"found a header of {header:,} bytes, expected at most {WEIGHTS_HEADER_BYTES:,}"
        raise WeightsError(f"{path}: expected a safetensors file: {about}")


def _unreadable(path: str | Path, error: Exception) -> WeightsError:
    said = str(error).removeprefix("Error while deserializing header: ")
    if "not fully covered" in said:
        said = "its tensors do not end where the file does: it was cut off, or has more at its end"
    return WeightsError(f"{path}: expected a safetensors file: {said}")


def _numbers(dtype: str) -> str:
    return "floating-point numbers" if dtype in _FLOATS else "integers" if dtype in _INTEGERS else f"type {dtype}"


def plain_names(state: Mapping[str, _T], source: str = "weights") -> dict[str, _T]:
    """Tensors under the network's own names: what wrappers of it, or of parts of it, put into them is taken out.

    Raises:
        WeightsError: a tensor is there twice.
    """
    plain: dict[str, _T] = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if name in plain:
            raise WeightsError(f"{source}: found {name} twice, with names of a wrapper and without, expected it once")
        if name not in _OF_WRAPPERS:
            plain[name] = value
    return plain


def save_weights(model: nn.Module, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a network's weights, with its spec as metadata; the same weights give the same bytes.

    Args:
        model: one of ours, wrapped or not.
        path: the file.
        state: other weights for this network, their moving average say; None: its own.

    Raises:
        WeightsError: the tensors are not those of the network: it was changed, or they are of another.
        OutputError: the file cannot be written.
    """
    spec = spec_of(model)
    metadata = {SPEC_KEY: json.dumps(spec.model_dump(mode="json"))}  # one entry: safetensors shuffles several
    tensors = plain_names(unwrapped(model).state_dict() if state is None else state)
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.is_meta:  # of a quantised network, or of one without memory
            raise WeightsError(f"{path}: {key}: found {quoted(value)}, expected a tensor with values")
    _check(_forms(tensors), _expected(spec), spec, str(path))
    with replacing(Path(path)) as temporary:
        # save_file would make it unreadable to others
        temporary.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}, metadata))


@dataclass(frozen=True)
class Weights:
    """A file of weights whose names and shapes were found to be right.

    Attributes:
        path: the file.
        spec: of the network that they are of.
    """

    path: Path
    spec: ArchSpec

    @classmethod
    def open(cls, path: str | Path, spec: ArchSpec, theirs: ArchSpec | None = None) -> "Weights":
        """Look at a file's header.

        Args:
            path: the file.
            spec: of the network that they are for.
            theirs: of the network that they are of; None: as the file's metadata or shapes tell.

        Raises:
            WeightsError: the file cannot be read, is of another architecture, or its tensors do not fit.
        """
        forms, metadata = read_header(path)
        forms = plain_names(forms, str(path))
        stated = _stated_spec(metadata, spec, str(path))
        theirs = theirs or stated or _spec_of_forms(forms, spec)
        _check(forms, _expected(theirs), theirs, str(path))
        return cls(Path(path), theirs)

    def load_into(self, model: nn.Module) -> None:
        """Read the weights into a network.

        Raises:
            WeightsError: the file cannot be read, or does not fit, or holds what is no number.
        """
        adopt_weights(model, read_weights(self.path)[0], str(self.path), self.spec)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights that `save_weights` wrote, or any safetensors file with the network's own names.

    Raises:
        WeightsError: the file cannot be read, is of another architecture, or its tensors do not fit.
    """
    Weights.open(path, spec_of(model)).load_into(model)


def _stated_spec(metadata: Mapping[str, str], spec: ArchSpec, source: str) -> ArchSpec | None:
    """The spec in a file's metadata, if there is one; it must be of the same architecture."""
    if SPEC_KEY not in metadata:
        return None
    try:
        found = ArchSpec.from_text(metadata[SPEC_KEY], source="spec")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source}: found metadata that are not valid: {error}") from None
    if found.hash != spec.hash:
        raise WeightsError(f"{source}: found weights of the architecture {found.name}, expected {spec.name}")
    return found


def _spec_of_forms(forms: Mapping[str, Form], spec: ArchSpec) -> ArchSpec:
    """The spec with the class count and the input channels that tensors have."""
    stem = forms.get(f"{spec.first_conv}.weight", Form((), "")).shape
    biases = [forms[key].shape for key in ("classifier.fine.bias", "classifier.bias") if key in forms]
    classes = biases[0][0] if biases and len(biases[0]) == 1 else spec.classes
    if not any(key.startswith("classifier.") for key in forms):
        classes = 0
    try:
        return spec.replace(classes=classes, channels=stem[1] if len(stem) == 4 else None)
    except SpecError:  # no network has such counts: the tensors do not fit, as the comparison will say
        return spec


def adopt_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    theirs: ArchSpec | None = None,
    head: bool = True,
) -> None:
    """Load tensors into a network, adapted to its class count and input channels, which is logged.

    Other input channels adapt the first convolution (repeated or summed, as timm does); with another class count the
    classifier keeps its initial weights.

    Args:
        model: one of ours, wrapped or not.
        state: tensors under the network's names.
        source: names them in messages.
        theirs: the spec of the network that they are of; None: as their shapes tell.
        head: whether they must cover the head of a multipath network, too.

    Raises:
        WeightsError: a tensor is missing, is not the network's, has another shape, or holds what is no number.
    """
    model, spec = unwrapped(model), spec_of(model)
    own = model.state_dict()
    places = plain_names({key: key for key in own})
    own = {name: own[key] for name, key in places.items()}
    taken = plain_names(state, source)
    theirs = theirs or _spec_of_forms(_forms(taken), spec)
    anew = () if head else ("head.",)
    if theirs.classes != spec.classes:
        taken = {key: value for key, value in taken.items() if not key.startswith("classifier.")}
        anew = (*anew, "classifier.")
    stem = f"{spec.first_conv}.weight"
    if theirs.input.channels != spec.input.channels and stem in taken:
        taken[stem] = adapt_input_conv(spec.input.channels, taken[stem], theirs.input.channels)
        _logger.warning(
            "%s: the weights of %s are for %d input channels: the first convolution is adapted to %d",
            spec.name,
            source,
            theirs.input.channels,
            spec.input.channels,
        )
    missing = {key for key in own.keys() - taken.keys() if key.startswith(anew)}
    _check(_forms(taken), _forms({key: value for key, value in own.items() if key not in missing}), spec, source)
    for key, value in taken.items():
        if value.is_floating_point() and not (finite := value.to(own[key].dtype).isfinite()).all():
            count = int((~finite).sum())
            raise WeightsError(f"{source}: {key}: found {count:,} values that are infinite or no number, expected none")
    model.load_state_dict({places[key]: value for key, value in taken.items()}, strict=not missing)
    if modules := sorted({key.rpartition(".")[0] for key in missing}):
        names = ", ".join(modules)
        _logger.warning("%s: the weights of %s do not cover %s, which starts untrained", spec.name, source, names)


def _expected(spec: ArchSpec) -> dict[str, Form]:
    """The tensors of a network that is not built: on the meta device they take no memory."""
    with torch.device("meta"):
        return _forms(network_of(spec, initialise=False).state_dict())


def _forms(state: Mapping[str, Tensor]) -> dict[str, Form]:
    return {
        key: Form(tuple(value.shape), _numbers("F32" if value.is_floating_point() else "I64"))
        for key, value in state.items()
    }


def _check(found: Mapping[str, Form], expected: Mapping[str, Form], spec: ArchSpec, source: str) -> None:
    for key in sorted(found.keys() | expected.keys()):
        theirs, ours = found.get(key), expected.get(key)
        if theirs == ours:
            continue
        if theirs and ours and theirs.shape == ours.shape:
            raise WeightsError(f"{source}: {key}: found {theirs.numbers}, expected {ours.numbers} for {spec.name}")
        shapes = [form.shape if form else "no such tensor" for form in (theirs, ours)]
        raise WeightsError(f"{source}: {key}: found {shapes[0]}, expected {shapes[1]} for {spec.name}")
