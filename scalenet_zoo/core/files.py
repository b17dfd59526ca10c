"""Reading of files that may be hostile, and writing of files that appear whole or not at all."""

import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, NoReturn

from scalenet_zoo.core.bounds import INTEGER, JSON_BYTES, LINES_BYTES, NESTING, YAML_BYTES
from scalenet_zoo.core.errors import OutputError, ZooError
from scalenet_zoo.core.locks import locked, try_lock, unlock
from scalenet_zoo.core.quoting import quoted

SCRATCH = ".scalenet-zoo-"
"""The prefix of temporary folders, in which files are written before they appear."""


def regular_file(path: Path) -> int:
    """Check that a path leads to a regular file; pipes and devices are not even opened.

    Returns:
        The file's size in bytes.

    Raises:
        ValueError: it is something else, or cannot be read; the message is one line without the file's name.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("is a directory, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file, expected one")
    return status.st_size


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes`.

    Raises:
        ValueError: it is too large, or cannot be read; the message is one line without the file's name.
    """
    if (size := regular_file(path)) > max_bytes:
        raise ValueError(f"found {size:,} bytes, expected at most {max_bytes:,}")
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def read_text(path: Path, max_bytes: int = LINES_BYTES) -> str:
    """Read a UTF-8 text file of at most `max_bytes`; drop its byte order mark if it has one.

    Raises:
        ValueError: as for `read_bytes`, or it is not UTF-8.
    """
    return _decoded(read_bytes(path, max_bytes))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file that are not empty, without white space around them.

    Raises:
        ValueError: as for `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path, max_bytes: int = JSON_BYTES) -> Any:  # noqa: ANN401 - JSON is any of six types
    """Read strict JSON: no duplicate keys, no NaN or Infinity, 64-bit integers, bounded size and depth.

    Raises:
        ValueError: as for `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, max_bytes))


def parse_json(text: str) -> Any:  # noqa: ANN401 - as read_json
    """Parse strict JSON, as `read_json` does, from a text.

    Raises:
        ValueError: the text is not valid; the message is one line.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    except _NumberError as error:
        raise ValueError(f"{_field_of_number(text)}: {error}") from None
    _check_depth(value)
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the JSON objects of a file that grows line by line, without a last line that a kill cut off.

    Raises:
        ValueError: a line is not valid; the message is one line with the line's number, without the file's name.
    """
    *whole, last = read_bytes(path, LINES_BYTES).split(b"\n")
    rows = [_json_line(line, number) for number, line in enumerate(whole, 1)]
    with suppress(ValueError):
        rows += [_json_line(last, len(rows) + 1)]
    return rows


def _json_line(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = parse_json(_decoded(line))
        if not isinstance(row, dict):
            raise ValueError(f"found {quoted(row)}, expected an object")
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    return row


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - as JSON
    """Read YAML of plain values: texts, numbers (1e-3, too), true and false, null, lists, and mappings with text keys.

    The bound on values counts anchors each time they are used, so a short file cannot become a large value.

    Raises:
        ValueError: as for `read_text` and `yaml_files.parse_yaml`.
    """
    from scalenet_zoo.core.yaml_files import parse_yaml

    return parse_yaml(read_text(path, YAML_BYTES))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: found the byte 0x{content[error.start]:02x}") from None


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(NESTING):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"is nested too deeply to be read, expected at most {NESTING} levels")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"found the key {quoted(twice)} twice in one object, expected it once")
    return result


class _NumberError(ValueError):
    pass


def _integer(digits: str) -> int:
    if _is_long(digits):
        raise _NumberError(f"found an integer of {len(digits):,} digits, expected one of 64 bits")
    return int(digits)


def _is_long(digits: str) -> bool:
    return len(digits) > 18 and (len(digits) > 21 or abs(int(digits)) >= INTEGER)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(quoted(text))


def _no_constant(name: str) -> NoReturn:
    raise _NumberError(f"found {name}, expected a finite number")


def _field_of_number(text: str) -> str:
    """Find the field of the first number that `parse_json` refuses."""
    wrong = object()
    value = json.loads(
        text,
        parse_int=lambda digits: wrong if _is_long(digits) else 0,
        parse_float=lambda digits: 0.0 if math.isfinite(float(digits)) else wrong,
        parse_constant=lambda name: wrong,
    )
    return _field_of(wrong, value) or "the whole"


def _field_of(wanted: object, value: object) -> str:
    """Find the path of a value in a document: the keys and indices that lead to it, joined by dots."""
    places = [("", value)]
    for path, each in places:  # the list grows in the loop
        if each is wanted:
            return path.removeprefix(".")
        items = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        places += [
            (f"{path}.{quoted(key) if isinstance(key, str) and not key.isidentifier() else key}", child)
            for key, child in items
        ]
    return ""


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file's content, in hexadecimal."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """The user's folder for what can be rebuilt, if slowly: engines, kernel timings and latency models."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path fails without a home
    return Path(caches) / "scalenet-zoo"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`; rename it to `path` on success, remove it on failure.

    The temporary file has the name of `path` and lies in its own directory. Files written beside it (an ONNX file's
    external data) are moved along, and two writers of the same files do not mix them.

    Raises:
        OutputError: the file cannot be written; for example, the disk is full or `path` is a directory.
    """
    with _beside(path) as scratch:
        if path.is_dir():
            raise OutputError(f"{path}: is a directory, expected a file to write")
        yield scratch / path.name
        with locked(path.parent):
            for file in sorted(scratch.iterdir(), key=lambda file: file.name == path.name):  # `path` comes last
                file.replace(path.parent / file.name)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; on success, put it in the place of `path`; on failure, remove it.

    Raises:
        OutputError: the folder cannot be written.
    """
    with _beside(path) as scratch:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a folder to write")
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        with locked(path.parent):
            if path.exists():
                path.rename(old)
            new.rename(path)


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Give an empty folder and remove it in the end; first remove the folders of processes that were killed.

    Args:
        parent: the folder to make it in; None: the system's folder for temporary files.
    """
    parent = Path(gettempdir()) if parent is None else parent
    with locked(parent):  # so that no process takes it for a leftover before it is locked
        _clear(parent)
        held = Path(mkdtemp(prefix=SCRATCH, dir=parent))
        lock = try_lock(held)
    try:
        (inner := held / "files").mkdir()
        yield inner
    finally:
        shutil.rmtree(held)
        unlock(lock)


def clear_leftovers(folder: Path) -> None:
    """Remove the folders that `scratch_folder` made in this folder or below it for processes that were killed."""
    for name, folders, _ in os.walk(folder):
        if any(inner.startswith(SCRATCH) for inner in folders):
            with locked(Path(name)):
                _clear(Path(name))
            folders[:] = [inner for inner in folders if not inner.startswith(SCRATCH)]


def _clear(parent: Path) -> None:
    for path in parent.glob(f"{SCRATCH}*/"):
        try:
            lock = try_lock(path)
        except BlockingIOError:  # a process works in it
            continue
        if lock is not None:
            with suppress(OSError):
                shutil.rmtree(path)
            unlock(lock)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a scratch folder in the folder of `path`, which is made if necessary; errors name `path` instead."""
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as scratch:
            yield scratch
    except ZooError as error:
        if scratch is None or str(scratch) not in str(error):
            raise
        told = str(error).replace(f"{scratch}/new", str(path)).replace(str(scratch), str(path.parent))
        raise type(error)(told) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def format_json(value: object, indent: str = "", width: int = 120) -> str:
    """Format JSON; each list or object that fits on a line of `width` characters is on one line."""
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
