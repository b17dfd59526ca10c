"""The record beside an engine: a JSON file with the engine's source, its builder and the machine that it is for.

    x.engine        the engine
    x.engine.json   its record

An engine is never opened before its record is checked: it is for one TensorRT version and one GPU unless it was built
for more, and TensorRT takes the bytes of an engine on trust.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scalenet_zoo.arch.spec import Sha256
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.bounds import ENGINE_BYTES, GZIP_RATIO
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import EngineError, InputError, SpecError
from scalenet_zoo.core.files import read_bytes, regular_file
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.core.version import __version__
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.tensorrt.summary import EngineSummary

Library = Literal["tensorrt", "tensorrt-rtx"]
BatchSizes = tuple[int, int, int]
ANY_BATCH: BatchSizes = (1, 8, 32)
"""The smallest, optimal and largest batch if neither the options nor the ONNX file name any."""
PORTABLE = "8.0"
"""The lowest compute capability on which a hardware-compatible engine runs: Ampere's."""


class EngineOptions(Strict):
    """How an engine is built.

    Attributes:
        library: TensorRT, or TensorRT-RTX, whose engines can be built without a GPU.
        batch: the smallest, optimal and largest batch size; None: the ONNX file's own, or `ANY_BATCH`.
        workspace_mib: memory in MiB that a layer may use besides its tensors; None: all memory of the GPU.
        level: the builder's effort, from 0 to 5; None: the builder's default.
        compute_capabilities: the compute capabilities to build for ahead of time, such as "8.9" (TensorRT-RTX only);
            none: the GPU here.
        version_compatible: the engine also runs in newer TensorRT versions with the same major number.
        hardware_compatible: the engine runs on any GPU with compute capability 8.0 (Ampere) or later.
        compress: keep the file gzip-compressed; a TensorRT-RTX engine holds the source of its kernels as text.
    """

    library: Library = "tensorrt"
    batch: BatchSizes | None = None
    workspace_mib: int | None = None
    level: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: bool = False
    compress: bool = False

    def check(self) -> None:
        """Check the range of each option, and that the options fit one another.

        Raises:
            EngineError: an option is out of range, or does not fit the library or another option.
        """
        if self.batch is not None and not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise EngineError(f"batch: found {_colons(self.batch)}, expected ascending sizes of 1 or more")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise EngineError(f"workspace: found {self.workspace_mib} MiB, expected at least 1")
        if self.level is not None and not 0 <= self.level <= 5:
            raise EngineError(f"level: found {self.level}, expected 0 to 5")
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", capability):
                raise EngineError(f"compute capability: found {quoted(capability)}, expected a number such as 8.9")
        if self.compute_capabilities and self.library == "tensorrt":
            raise EngineError("compute capability: found it with tensorrt, expected it only with tensorrt-rtx")
        if self.compute_capabilities and self.hardware_compatible:
            raise EngineError("compute capability: found it with hardware-compatible, expected one of the two")
        if self.version_compatible and self.library == "tensorrt-rtx":
            raise EngineError("version-compatible: found it with tensorrt-rtx, expected it only with tensorrt")

    @property
    def ahead_of_time(self) -> bool:
        """Whether the engine is for other machines, so that its build needs no GPU here."""
        return self.library == "tensorrt-rtx" and (bool(self.compute_capabilities) or self.hardware_compatible)


class Device(Strict):
    """A GPU: its name and its compute capability, such as "8.9"."""

    name: str
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")]


class OptimizationProfile(Strict):
    """The smallest, optimal and largest shape of an input for which an engine is built."""

    tensor: str
    smallest: tuple[int, ...]
    optimal: tuple[int, ...]
    largest: tuple[int, ...]


class EngineRecord(Document):
    """The record of an engine.

    Attributes:
        engine_sha256: the SHA-256 of the engine file.
        engine_bytes: the size of the engine file.
        plan_bytes: the size of the plan, the decompressed bytes that TensorRT takes; None in old records.
        onnx_sha256: the SHA-256 of the ONNX file, with its external data.
        spec_hash: the hash of the network's spec; None: `export` did not write the ONNX file.
        entries: the metadata entries of the ONNX file.
        precision: the precision of its weights and activations.
        options: the options that the engine was built with.
        tensorrt: the version of the library.
        device: the GPU that it was built on and for; None: it was built ahead of time for others.
        driver: the version of that machine's driver.
        profiles: one profile per input.
        summary: layers and memory, if TensorRT reported them.
        scalenet_zoo: the version of scalenet_zoo that wrote the record.
        digest: the SHA-256 of all other fields.
    """

    format: Literal["scalenet-zoo/engine"] = "scalenet-zoo/engine"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    engine_sha256: Sha256
    engine_bytes: Annotated[int, Field(ge=0, le=ENGINE_BYTES)]
    plan_bytes: Annotated[int, Field(ge=0, le=ENGINE_BYTES)] | None = None
    onnx_sha256: Sha256
    spec_hash: Sha256 | None = None
    entries: dict[str, str]
    precision: Precision
    options: EngineOptions
    tensorrt: str
    device: Device | None = None
    driver: str | None = None
    profiles: Annotated[tuple[OptimizationProfile, ...], Field(min_length=1)]
    summary: EngineSummary | None = None
    scalenet_zoo: str = __version__
    digest: str = ""

    @model_validator(mode="after")
    def _untouched(self) -> Self:
        if self.digest and self.digest != self._digest():
            raise ValueError(f"digest: found {self.digest[:12]}, expected {self._digest()[:12]}: a field was changed")
        return self

    def _digest(self) -> str:
        fields = self.model_dump(mode="json", exclude_none=True, exclude={"digest"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def sealed(self) -> Self:
        """Return a copy with its digest."""
        return self.model_copy(update={"digest": self._digest()})

    @property
    def library(self) -> Library:
        """The library that built the engine and runs it."""
        return self.options.library

    @property
    def batch(self) -> BatchSizes:
        """The smallest, optimal and largest batch size."""
        profile = self.profiles[0]
        return profile.smallest[0], profile.optimal[0], profile.largest[0]

    @cached_property
    def metadata(self) -> Metadata:
        """The network's spec, preprocessing and class names.

        Raises:
            InputError: `export` did not write the ONNX file, or the engine does not take the images of its spec.
        """
        return self.read_metadata("engine")

    def read_metadata(self, source: str) -> Metadata:
        """Read the metadata; `source` names the engine in errors.

        Raises:
            InputError: as for `metadata`.
        """
        metadata = Metadata.parse(self.entries, source)
        for shape in (self.profiles[0].smallest, self.profiles[0].largest):
            if shape[1:] != metadata.image_shape:
                raise InputError(
                    f"{source}: found images of shape {shape[1:]}, expected {metadata.image_shape}, as in its spec"
                )
        return metadata

    def changes(self, onnx_sha256: str, options: EngineOptions, tensorrt: str, device: Device | None) -> list[str]:
        """List the differences from the record of an engine built now, each as a phrase.

        Args:
            onnx_sha256: the SHA-256 of the ONNX file.
            options: the options of the build.
            tensorrt: the version of the library here.
            device: the GPU here; None: the build is ahead of time.
        """
        before, now = self.options.model_dump(mode="json"), options.model_dump(mode="json")
        changed = ["the ONNX file has changed"] if self.onnx_sha256 != onnx_sha256 else []
        for option, value in now.items():
            if before[option] != value:
                changed.append(f"{option} was {_shown(before[option])}, is {_shown(value)}")
        if self.tensorrt != tensorrt:
            changed.append(f"{self.library} was {self.tensorrt}, is {tensorrt}")
        if self.device != device:
            changed.append(f"the device was {_named(self.device)}, is {_named(device)}")
        return changed

    def mismatches(self, tensorrt: str | None, device: Device | None) -> list[str]:
        """List the reasons why the engine cannot run on a machine, each as a phrase.

        Args:
            tensorrt: the version of the library there; None: unknown, so it is not checked.
            device: the GPU there; None: unknown, so it is not checked.
        """
        reasons = []
        if tensorrt is not None and not self._runs_in(tensorrt):
            reasons.append(f"it was built by {self.library} {self.tensorrt}, but {tensorrt} is installed here")
        if device is not None and not self._runs_on(device):
            reasons.append(f"it was built for {self._target()}, but the GPU here is {_named(device)}")
        return reasons

    def _runs_in(self, tensorrt: str) -> bool:
        ours, theirs = _numbers(self.tensorrt), _numbers(tensorrt)
        return tensorrt == self.tensorrt or (
            self.options.version_compatible and theirs[:1] == ours[:1] and theirs >= ours
        )

    def _runs_on(self, device: Device) -> bool:
        if self.options.compute_capabilities:
            return device.compute_capability in self.options.compute_capabilities
        if self.options.hardware_compatible:
            return _numbers(device.compute_capability) >= _numbers(PORTABLE)
        return device == self.device

    def _target(self) -> str:
        if self.options.compute_capabilities:
            return f"compute capability {', '.join(self.options.compute_capabilities)}"
        return f"compute capability {PORTABLE} or later" if self.options.hardware_compatible else _named(self.device)


def record_path(path: Path) -> Path:
    """Return the path of an engine's record."""
    return path.with_name(f"{path.name}.json")


def read_engine(path: Path) -> tuple[EngineRecord, bytes]:
    """Read an engine and its record, and check that they belong together.

    Returns:
        The record, and the plan, which is the bytes that TensorRT takes.

    Raises:
        EngineError: the engine or its record is missing, damaged or changed.
    """
    try:
        regular_file(path)
    except ValueError as error:
        raise EngineError(f"{path}: {error}") from None
    try:
        record = EngineRecord.load(record_path(path))
    except SpecError as error:
        raise EngineError(f"{error}; an engine needs the record that was written with it") from None
    if not record.digest:
        raise EngineError(f"{record_path(path)}: digest: is missing")
    try:
        size = regular_file(path)
        content = read_bytes(path, record.engine_bytes) if size == record.engine_bytes else b""
    except ValueError as error:
        raise EngineError(f"{path}: {error}") from None
    if len(content) != record.engine_bytes:
        raise EngineError(f"{path}: found {size:,} bytes, expected {record.engine_bytes:,}: the file is incomplete")
    if hashlib.sha256(content).hexdigest() != record.engine_sha256:
        raise EngineError(f"{path}: found other bytes, expected those that belong to {record_path(path).name}")
    plan = _decompressed(content, record.plan_bytes, path) if record.options.compress else content
    if record.plan_bytes not in (None, len(plan)):
        raise EngineError(f"{path}: found a plan of {len(plan):,} bytes, expected {record.plan_bytes:,}")
    return record, plan


def _decompressed(content: bytes, stated: int | None, path: Path) -> bytes:
    """Decompress a plan, up to the size in its record and no further than gzip can compress."""
    most = GZIP_RATIO * len(content)
    most = most if stated is None else min(most, stated)
    gzipped = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plan = gzipped.decompress(content, most + 1)
    except zlib.error as error:
        raise EngineError(f"{path}: cannot be decompressed: {error}") from None
    if len(plan) > most:
        raise EngineError(f"{path}: found more than {most:,} bytes when decompressed, expected at most that")
    if not gzipped.eof or gzipped.unused_data:
        raise EngineError(f"{path}: cannot be decompressed: the file does not end with its gzip stream")
    return plan


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _named(device: Device | None) -> str:
    return f"{device.name} (compute capability {device.compute_capability})" if device else "none"


def _colons(batch: BatchSizes) -> str:
    return ":".join(map(str, batch))


def _shown(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
