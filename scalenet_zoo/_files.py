"""Reading files that may be hostile, and writing files that appear whole or not at all."""

import json
import math
import os
import reprlib
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn

from scalenet_zoo.errors import OutputError, ZooError

MAX_JSON_BYTES = 8 * 2**20


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is any of six types
    """Read strict JSON: no duplicate keys, no NaN or Infinity, at most `MAX_JSON_BYTES`.

    Raises:
        ValueError: one line that says what is wrong with the file, without the file's name.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("is a directory, expected a JSON file")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file, expected a JSON file")
        if status.st_size > MAX_JSON_BYTES:
            raise ValueError(f"found {status.st_size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_unique_keys,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text, expected JSON") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - as JSON
    """Read YAML of plain values: no tags that name types.

    Raises:
        ValueError: one line that says what is wrong with the file, without the file's name.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text, expected YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"found the key {key!r} twice in one object, expected it once")
        result[key] = value
    return result


def _integer(digits: str) -> int:
    if len(digits) > 1000:
        raise ValueError(f"found an integer of {len(digits):,} digits, expected at most 1000")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(reprlib.repr(text))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, expected a finite number")


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """The user's folder for what can be made anew, if slowly: engines, timings of kernels, latency models."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalenet-zoo"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name keeps the suffix of `path` and lies in a directory of its own, so that files
    written beside it (an ONNX file's external data) are moved along; two writers of the same files
    do not mix them.

    Raises:
        OutputError: the file cannot be written: the disk is full, say, or `path` is a directory.
    """
    directory = None
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a directory, expected a file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield directory / path.name
        with _locked(path.parent):
            for file in sorted(directory.iterdir(), key=lambda file: file.name == path.name):  # the file itself last
                file.replace(path.parent / file.name)
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if directory:
            shutil.rmtree(directory)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; on success it takes the place of `path`, on failure it is removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    scratch = None
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a folder to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        with _locked(path.parent):
            if path.exists():
                path.rename(old)
            new.rename(path)
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if scratch:
            shutil.rmtree(scratch)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory, against those who ask for it in the same way; where it cannot be locked, go on without."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with ExitStack() as stack:
        with suppress(OSError):  # a file system without locks, a directory that may be written but not read
            descriptor = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def format_json(value: object, indent: str = "", width: int = 120) -> str:
    """Write JSON with every list and object that fits on a line on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= width or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{json.dumps(key, ensure_ascii=False)}: {format_json(item, inner)}" for key, item in value.items()]
        opening, closing = "{}"
    else:
        rows = [format_json(item, inner) for item in value]
        opening, closing = "[]"
    body = ",\n".join(inner + row for row in rows)
    return f"{opening}\n{body}\n{indent}{closing}"
