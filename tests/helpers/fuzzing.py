"""Damaged files: mutations of whole ones, and what a reader must do with each: read it, or refuse it in one line."""

import json
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from scalenet_zoo.core.bounds import MESSAGE_CHARACTERS
from scalenet_zoo.core.errors import ZooError
from scalenet_zoo.core.quoting import printable

SECONDS = 5.0
"""That a reader may take at most for a file."""

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3.5,
    1e-9,
    1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**63,
    10**30,
    10**400,
    "",
    "3",
    "nan",
    "\x1b[31mred\r\n",
    "\u202e\ud800",
    "Café",
    "x" * 300,
    "x" * 100_000,
    "../../etc/passwd",
    "/dev/zero",
    [],
    {},
    [[]],
    [None] * 1000,
    {"a": {"a": {"a": 1}}},
)
"""Values that stand where others should."""

TOKENS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"\x1b[31m",
    b"-1",
    b"1e400",
    b"9" * 400,
    b"[" * 2000,
    b'"',
    b"NaN",
    b"&a [*a]",
    b"/dev/zero",
)
"""What is put into files that are taken for bytes."""


@dataclass(frozen=True)
class Reader:
    """What reads files of a kind.

    Attributes:
        write: whole files to a folder that is empty; those that are returned are to be damaged.
        read: what was written there, as far as a command would.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]


def damaged(path: Path, content: bytes, rng: random.Random) -> bytes:
    """A file's content, damaged: JSON and YAML mostly in their values, all of them also in their bytes."""
    if path.suffix in (".json", ".jsonl", ".yaml") and rng.random() < 0.7:
        if path.suffix == ".jsonl":
            lines = content.splitlines(keepends=True)
            place = rng.randrange(len(lines))
            lines[place] = _strange_document(lines[place], rng, json.loads, json.dumps) + b"\n"
            return b"".join(lines)
        if path.suffix == ".yaml":
            return _strange_document(content, rng, yaml.safe_load, yaml.safe_dump)
        return _strange_document(content, rng, json.loads, json.dumps)
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = _strange_bytes(content, rng)
    return content


def _strange_document(
    content: bytes, rng: random.Random, load: Callable[[bytes], Any], dump: Callable[[Any], str]
) -> bytes:
    """A document in which one or two values are others, are missing, stand twice, or have another name."""
    document = load(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = list(_places(document))
        if not places:
            break
        parent, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(("", "x", "\x1b", "name", "x" * 200))] = parent.pop(key)
            case 1 | 2 if isinstance(parent, list):
                parent.insert(rng.randrange(len(parent) + 1), parent[key])
            case 3 if isinstance(parent[key], int | float):
                parent[key] *= rng.choice((-1, 0.5, 2, 1000, 1e-6))
            case _:
                parent[key] = rng.choice(STRANGE)
    try:
        return dump(document).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):  # PyYAML cannot write every text
        return content[: len(content) // 2]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document: the list or object, and the number or name in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _strange_bytes(content: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 64, 1000))
    before, after = content[:place], content[place:]
    match rng.randrange(6):
        case 0:
            return before
        case 1:
            return before + after[length:]
        case 2:
            return before + after[:length] + after
        case 3:
            return before + rng.choice(TOKENS) + after
        case 4:
            return before + rng.randbytes(min(length, 8)) + after[length:]
        case _:
            return before + bytes([byte ^ (1 << rng.randrange(8)) for byte in after[:1]]) + after[1:]


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"a reader took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, folder: Path, seeds: range, note: Path | None = None) -> dict[str, int]:
    """Damage files, and have each read.

    Args:
        reader: of the files.
        folder: an empty one.
        seeds: of the damages, one a case.
        note: a file for the seed that is being tried, for those who find the process dead.

    Returns:
        How many were read, and how many refused.

    Raises:
        AssertionError: a reader failed otherwise than in one line, or took too long; with the seed.
    """
    files = reader.write(folder)
    whole = {path: path.read_bytes() for path in files}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.read(folder)
        counts = {"read": 0, "refused": 0}
        for seed in seeds:
            rng = random.Random(seed)
            path = rng.choice(files)
            if note:
                note.write_text(f"{path.name} {seed}")
            path.write_bytes(damaged(path, whole[path], rng))
            try:
                with _at_most(SECONDS):
                    reader.read(folder)
                counts["read"] += 1
            except ZooError as error:
                message = str(error)
                assert message, f"seed {seed}: no message"
                assert message == printable(message), f"seed {seed}: {message!r}"
                assert len(message) <= MESSAGE_CHARACTERS, f"seed {seed}: {message!r}"
                counts["refused"] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {path.name}: {type(error).__name__}: {error}"[:500]) from error
            path.write_bytes(whole[path])
    return counts
