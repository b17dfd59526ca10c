"""The kind of a file given where another kind is expected, recognised by its first bytes, then by its name."""

import os
from contextlib import suppress
from pathlib import Path

from scalenet_zoo.core.files import regular_file

ONNX, ENGINE, OPENVINO, SAFETENSORS, PICKLE, YAML, POINTER, WEB_PAGE = (
    "ONNX",
    "engine",
    "OpenVINO",
    "safetensors",
    "pickle",
    "YAML",
    "LFS",
    "HTML",
)

_SUFFIXES = {
    ".onnx": ONNX,
    ".engine": ENGINE,
    ".plan": ENGINE,
    ".trt": ENGINE,
    ".xml": OPENVINO,
    ".safetensors": SAFETENSORS,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar", ".pickle"), PICKLE),
    ".yaml": YAML,
    ".yml": YAML,
}
_BEGINNINGS = (
    (b"PK\x03\x04", PICKLE),
    (b"\x80", PICKLE),
    (b"\x08", ONNX),
    (b"ftrt", ENGINE),
    (b"ptrt", ENGINE),
    (b"version https://", POINTER),
    (b"<!DOCTYPE html", WEB_PAGE),
    (b"<!doctype html", WEB_PAGE),
    (b"<html", WEB_PAGE),
)
"""The first bytes of torch's zip files, of pickles, of ONNX's field `ir_version`, of TensorRT's engines, of Git LFS
pointers and of web pages, each with its kind."""

_ABOUT = {
    ONNX: "is an ONNX file",
    ENGINE: "is an engine",
    OPENVINO: "is XML, maybe OpenVINO's IR",
    SAFETENSORS: "is a safetensors file, weights without a network",
    PICKLE: "looks like a file of torch.save, weights without a network",
    YAML: "is YAML, a recipe, search or space",
    POINTER: "is a pointer of Git LFS to the file, not the file (`git lfs pull` fetches it)",
    WEB_PAGE: "is a web page, maybe one of a failed download",
}
_FOR_NETWORKS = {
    ONNX: "`predict --model`, `evaluate` and `benchmark` take it as it is",
    ENGINE: "`predict --model`, `evaluate` and `benchmark` take it as it is",
    OPENVINO: "`predict --model`, `evaluate` and `benchmark` take it as it is",
    SAFETENSORS: "name the network, and this file as weights=FILE (--weights)",
    PICKLE: "name the network, and this file as weights=FILE (--weights)",
    YAML: "`train --recipe`, `search` and `supernet train` take those",
    POINTER: "fetch the file",
    WEB_PAGE: "fetch the file again",
}


def user_path(path: str | Path) -> Path:
    """Make a path from what a user wrote: `~` becomes a home folder, unless there is no such user."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def is_folder(path: Path) -> bool:
    """Tell whether a folder exists; a name that is too long counts as missing."""
    return os.path.isdir(path)  # noqa: PTH112 - Path raises for such names


def kind_of(path: Path) -> str | None:
    """Recognise the kind of a file; None: another kind, or a file that cannot be read."""
    with suppress(ValueError, OSError):
        regular_file(path)
        with path.open("rb") as file:
            beginning = file.read(16)
        if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < 2**40:  # the header's length
            return SAFETENSORS
        begun = next((kind for prefix, kind in _BEGINNINGS if beginning.startswith(prefix)), None)
        return begun or _SUFFIXES.get(path.suffix.lower())
    return None


def no_network(path: Path) -> str | None:
    """Say what a file is instead of a spec, and what to do with it; None: it may be a spec."""
    kind = kind_of(path)
    return f"{_ABOUT[kind]}, expected a spec (JSON) or a model folder; {_FOR_NETWORKS[kind]}" if kind else None


def no_weights(path: Path) -> str | None:
    """Say what a file is instead of safetensors weights; None: it may hold them."""
    kind = kind_of(path)
    return _ABOUT[kind] if kind not in (None, SAFETENSORS) else None


def exported_kind(path: Path) -> str | None:
    """Tell whether a file is of a kind that `export` writes: ONNX, ENGINE or OPENVINO; None: it is not.

    The name decides first, then the first bytes; a file whose name decides need not exist.
    """
    named = _SUFFIXES.get(path.suffix.lower())
    kind = named or kind_of(path)
    return kind if kind in (ONNX, ENGINE, OPENVINO) else None
