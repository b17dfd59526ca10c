"""Weights as safetensors files, read and written; never pickle, which could run code."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.models import adapt_input_conv
from torch import Tensor, nn

from scalenet_zoo._files import replacing
from scalenet_zoo.errors import WeightsError
from scalenet_zoo.spec import ArchSpec, spec_of

SPEC_KEY = "scalenet_zoo.spec"
"""Where a file's metadata hold the spec."""

_logger = logging.getLogger(__name__)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        WeightsError: the file is missing or is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: expected a safetensors file: {error}") from None


def save_weights(model: nn.Module, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a network's weights, with its spec as metadata; the same weights give the same bytes.

    Args:
        model: one of ours.
        path: the file.
        state: other weights for this network, their moving average say; None: its own.

    Raises:
        OutputError: the file cannot be written.
    """
    spec = spec_of(model)
    metadata = {SPEC_KEY: json.dumps(spec.model_dump(mode="json"))}  # one entry: safetensors shuffles several
    tensors = {key: value.contiguous() for key, value in (model.state_dict() if state is None else state).items()}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # save_file would make it unreadable to others


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights that `save_weights` wrote, or any safetensors file with the network's own names.

    Raises:
        WeightsError: the file cannot be read, is of another architecture, or its tensors do not fit.
    """
    adopt_weights(model, read_architecture(path, spec_of(model)), str(path))


def read_architecture(path: str | Path, spec: ArchSpec) -> dict[str, Tensor]:
    """Read the tensors of a file that, if its metadata hold a spec, is of this architecture.

    Raises:
        WeightsError: the file cannot be read, or is of another architecture.
    """
    state, metadata = read_weights(path)
    if SPEC_KEY in metadata:
        try:
            found = ArchSpec.from_dict(json.loads(metadata[SPEC_KEY]), source="spec")
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path}: found metadata that are not valid: {error}") from None
        if found.hash != spec.hash:
            raise WeightsError(f"{path}: found weights of the architecture {found.name}, expected {spec.name}")
    return state


def adopt_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    stem: str | None = None,
    may_start_anew: Callable[[str], bool] = lambda key: False,
) -> None:
    """Load tensors into a network; parts without them stay initial where that is allowed, which is logged.

    Args:
        model: one of ours.
        state: tensors under the network's names.
        source: names them in messages.
        stem: the first convolution, whose channels are adapted (repeated or summed, as timm does); None: they are not.
        may_start_anew: whether a tensor of this name may be missing or of another shape.

    Raises:
        WeightsError: a tensor is missing, is not the network's, or has another shape.
    """
    spec = spec_of(model)
    own = model.state_dict()
    taken = dict(state)
    if stem and f"{stem}.weight" in taken:
        kernel = taken[f"{stem}.weight"]
        if kernel.ndim == 4 and kernel.shape[1]:
            taken[f"{stem}.weight"] = adapt_input_conv(spec.input.channels, kernel, kernel.shape[1])
    anew = set()
    for key in sorted(own.keys() | taken.keys()):
        ours = tuple(own[key].shape) if key in own else "no such tensor"
        theirs = tuple(taken[key].shape) if key in taken else "no such tensor"
        if ours != theirs:
            if not may_start_anew(key):
                raise WeightsError(f"{source}: {key}: found {theirs}, expected {ours} for {spec.name}")
            anew.add(key)
    for key in anew:
        taken.pop(key, None)
    model.load_state_dict(taken, strict=not anew)
    if modules := sorted({key.rpartition(".")[0] for key in anew & own.keys()}):
        names = ", ".join(modules)
        _logger.warning("%s: the weights of %s do not cover %s, which starts untrained", spec.name, source, names)
