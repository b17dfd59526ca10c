"""The files of OpenVINO's IR: the XML and the weights beside it, read and checked before OpenVINO opens them.

NAME.xml has the layers, and the place of each constant in NAME.bin. In files from `export`, the XML also has the
metadata, under the same names as in an ONNX file, and the hash of the weights. So two files from different exports are
not taken for a pair.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from scalenet_zoo.core.bounds import IR_BYTES
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_bytes, regular_file
from scalenet_zoo.core.memory import check_memory
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.export.metadata import Metadata

PREFIX = "scalenet_zoo."
VERSION = "11"
"""The version of the format, which OpenVINO has written since 2022."""
WEIGHTS_HASH = f"{PREFIX}weights_sha256"
"""The entry with the hash of NAME.bin."""


def weights_path(path: Path) -> Path:
    """Return the path of an IR's weights."""
    return path.with_suffix(".bin")


@dataclass(frozen=True)
class IrFile:
    """An IR that `export` wrote, read and checked as far as is possible without OpenVINO.

    Attributes:
        path: the path of the XML file.
        xml: the bytes of the XML file.
        weights: the bytes of the weights file, uint8.
        metadata: the file's metadata.
    """

    path: Path
    xml: bytes
    weights: NDArray[np.uint8]
    metadata: Metadata

    @classmethod
    def read(cls, path: str | Path) -> IrFile:
        """Read both files, and check that they belong together.

        Raises:
            InputError: a file is missing, damaged or too large, `export` did not write it, or the two do not match.
            BackendError: the weights do not fit into memory.
        """
        path = Path(path)
        try:
            xml = read_bytes(path, IR_BYTES)
            outline = _outline(xml)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        metadata = Metadata.parse(outline.entries, str(path))
        if not re.fullmatch("[0-9a-f]{64}", expected := outline.entries.get(WEIGHTS_HASH, "")):
            raise InputError(f"{path}: found {quoted(expected)} as the sha256 of its weights, expected 64 digits")
        weights = _read_weights(path)
        if outline.needed > weights.size:
            raise InputError(
                f"{weights_path(path)}: found {weights.size:,} bytes, expected at least {outline.needed:,}: the file is"
                " incomplete"
            )
        if hashlib.sha256(weights.data).hexdigest() != expected:
            raise InputError(f"{weights_path(path)}: found other weights, expected those that belong to {path.name}")
        return cls(path, xml, weights, metadata)


def _read_weights(path: Path) -> NDArray[np.uint8]:
    file = weights_path(path)
    try:
        size = regular_file(file)
        check_memory(2 * size, f"{file}: its weights")  # OpenVINO makes a second copy
        return np.fromfile(file, np.uint8, size)
    except ValueError as error:
        raise InputError(f"{file}: {error}; {path.name} needs this file for its weights") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


@dataclass
class _Outline:
    """The target of an XML parser, which collects what is needed from an IR and builds no tree.

    Attributes:
        entries: the metadata entries that `export` wrote.
        needed: the bytes of weights that the constants span.
    """

    entries: dict[str, str] = field(default_factory=dict)
    needed: int = 0
    _within: list[str] = field(default_factory=list)

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refuse a document type, which could name other files, or entities that grow when they are expanded."""
        raise ValueError(f"found the document type {quoted(name)}, expected none, as in OpenVINO's IR")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        if not self._within and (tag, attributes.get("version")) != ("net", VERSION):
            found = f"{quoted(tag)} of version {quoted(attributes.get('version', 'none'))}"
            raise ValueError(f"found {found}, expected 'net' of version '{VERSION}', OpenVINO's IR")
        if self._within == ["net", "rt_info"] and tag.startswith(PREFIX):
            if tag in self.entries:
                raise ValueError(f"found the key {quoted(tag)} twice in its metadata, expected once")
            self.entries[tag] = attributes.get("value", "")
        if tag == "data" and "offset" in attributes:
            end = sum(_bytes(attributes, key) for key in ("offset", "size"))
            self.needed = max(self.needed, end)
        self._within.append(tag)

    def end(self, tag: str) -> None:
        """Handle the end of an element."""
        self._within.pop()

    def close(self) -> None:
        """Handle the end of the document."""


def _outline(xml: bytes) -> _Outline:
    outline = _Outline()
    parser = ElementTree.XMLParser(target=outline)
    try:
        parser.feed(xml)
        parser.close()
    except ElementTree.ParseError as error:
        raise ValueError(f"cannot be read as XML: {error}") from None
    except LookupError:
        raise ValueError("cannot be read as XML: found an unknown encoding") from None
    return outline


def _bytes(attributes: Mapping[str, str], key: str) -> int:
    if not re.fullmatch(r"\d{1,19}", digits := attributes.get(key, ""), re.ASCII):
        raise ValueError(f"weights: {key}: found {quoted(digits)}, expected a number of bytes")
    return int(digits)
