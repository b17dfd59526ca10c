"""Weights as files: fetched from the Hugging Face Hub, read, and written. Safetensors only, never pickle."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from scalenet_zoo._files import replacing
from scalenet_zoo.errors import WeightsError
from scalenet_zoo.spec import ArchSpec, spec_of

SPEC_KEY = "scalenet_zoo.spec"
"""Where a file's metadata hold the spec."""


def fetch_weights(repository: str) -> Path:
    """Download `model.safetensors` of a Hub repository, or find it in the Hub's cache.

    Raises:
        WeightsError: the Hub cannot be reached, or has no such repository or file.
    """
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the client's own, its HTTP library's, the operating system's
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(
            f"{repository}: cannot fetch model.safetensors from the Hugging Face Hub: {reason}"
        ) from error


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


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights, with its spec as metadata; the same weights give the same bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    spec = spec_of(model)
    metadata = {SPEC_KEY: json.dumps(spec.model_dump(mode="json"))}  # one entry: safetensors shuffles several
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(save(state, metadata))  # save_file would make it unreadable to others


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights that `save_weights` wrote, or any safetensors file with the network's own names.

    Raises:
        WeightsError: the file cannot be read, is of another architecture, or its tensors do not fit.
    """
    spec = spec_of(model)
    state, metadata = read_weights(path)
    if SPEC_KEY in metadata:
        try:
            found = ArchSpec.from_dict(json.loads(metadata[SPEC_KEY]), source="spec")
        except ValueError as error:
            raise WeightsError(f"{path}: found metadata that are not valid: {error}") from None
        if found.hash != spec.hash:
            raise WeightsError(f"{path}: found weights of the architecture {found.name}, expected {spec.name}")
    expected = model.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        ours = tuple(expected[key].shape) if key in expected else "no such tensor"
        theirs = tuple(state[key].shape) if key in state else "no such tensor"
        if ours != theirs:
            raise WeightsError(f"{path}: {key}: found {theirs}, expected {ours} for {spec.name}")
    model.load_state_dict(state)
