"""Exported files for a table, made as needed and kept in the user's cache.

A file's folder is named by a digest of all that the file depends on: the network with its weights, the options of the
export, the calibration images, the versions of the packages that write it, and the GPU that an engine is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from scalenet_zoo.arch.spec import spec_of, unwrapped
from scalenet_zoo.core.backends import Precision, TargetBackend, find_backend, versions
from scalenet_zoo.core.errors import OutputError
from scalenet_zoo.core.files import cache_folder, replacing_folder
from scalenet_zoo.core.locks import locked
from scalenet_zoo.export.arguments import ENGINES, ExportFormat
from scalenet_zoo.export.formats import export_model
from scalenet_zoo.latency.comparison.calibration import MOST_IMAGES, CalibrationImages
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import WEIGHTS, save_model

FORMATS: Mapping[str, ExportFormat] = {
    "ort-cpu": "onnx",
    "ort-cuda": "onnx",
    "ort-tensorrt": "onnx",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}
"""The format that each back end runs; those of torch run the network itself."""
TARGET_OF: Mapping[str, TargetBackend] = {
    "ort-cpu": "ort-cpu",
    "ort-cuda": "ort-cpu",
    "ort-tensorrt": "tensorrt",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}
"""The target for which int8 is quantised, for each back end."""
_SUFFIXES: Mapping[ExportFormat, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".engine",
    "tensorrt-rtx": ".engine",
}


@dataclass(frozen=True)
class CachedExports:
    """The files of one network.

    Attributes:
        network: the network, in evaluation mode.
        digest: the SHA-256 of its spec, its weights and its preprocessing.
        batch: images per inference.
        rebuild: make each file once even if the cache has it.
    """

    network: nn.Module
    digest: str
    batch: int
    rebuild: bool = False
    _made: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def of(cls, network: nn.Module, batch: int, rebuild: bool = False) -> CachedExports:
        """Make the exports of a network; this computes its digest."""
        return cls(network, network_digest(network), batch, rebuild)

    def folder(self) -> Path:
        """Make the network's model folder, for torch; its weights are in the file `WEIGHTS`.

        Raises:
            OutputError: the folder cannot be written.
        """

        def write(folder: Path) -> None:
            save_model(self.network, folder)

        return self._kept({"format": "folder"}, write)

    def file(self, backend: str, precision: Precision, calibration: CalibrationImages | None = None) -> Path:
        """Make the file that a back end runs, for one batch size.

        Args:
            backend: the back end, other than torch's.
            precision: the precision of the file.
            calibration: the images from which int8's ranges are found.

        Raises:
            ZooError: the network cannot be exported with these options.
        """
        to = FORMATS[backend]
        int8 = precision == "int8"
        name = f"network{_SUFFIXES[to]}"

        def write(folder: Path) -> None:
            export_model(
                self.network,
                folder / name,
                to,
                precision=precision,
                on=TARGET_OF[backend] if int8 else None,
                batch=self.batch,
                calibration=calibration.folder if calibration and int8 else None,
                calibration_images=MOST_IMAGES,
                min_agreement=0.0 if int8 else None,  # the table reports the agreement instead
            )

        described = {
            "format": to,
            "precision": precision,
            "target": TARGET_OF[backend] if int8 else None,
            "calibration": calibration.digest if calibration and int8 else None,
            "device": find_backend(backend).about if to in ENGINES else None,
        }
        return self._kept(described, write) / name

    def _kept(self, described: Mapping[str, object], write: Callable[[Path], None]) -> Path:
        """Find the cached folder with this description, and write it if necessary."""
        whole = {**described, "network": self.digest, "batch": self.batch, "versions": versions()}
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        entry = cache_folder() / "exports" / digest[:32]
        lock, files = entry / "lock", entry / "files"
        try:
            lock.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "XDG_CACHE_HOME=FOLDER puts it elsewhere"
            raise OutputError(f"{lock}: cannot be written: {error.strerror}; {hint}") from error
        with locked(lock):  # if another process makes the same file, wait for it
            if not files.is_dir() or (self.rebuild and digest not in self._made):
                with replacing_folder(files) as folder:
                    write(folder)
            self._made.add(digest)
        return files


def network_digest(network: nn.Module) -> str:
    """Compute the SHA-256 of all that an exported file depends on: spec, weights, preprocessing and labels."""
    spec, interface = spec_of(network), Interface.of_network(network)
    digest = hashlib.sha256(f"{spec.model_dump_json()}{interface.model_dump_json()}".encode())
    for name, tensor in unwrapped(network).state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_bytes(path: Path) -> int:
    """Add up the bytes of an exported file and of weights beside it; for a model folder, count only the weights."""
    if path.is_dir():
        return (path / WEIGHTS).stat().st_size
    beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}.data"))
    return sum(file.stat().st_size for file in (path, *beside) if file.is_file())
