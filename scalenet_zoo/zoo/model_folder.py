"""Model folders: a network with its weights, as stored in a repository of the Hub or in a training checkpoint.

    config.json         what timm reads from a repository; labels; size and hash of the weights
    spec.json           the ArchSpec
    model.safetensors   the weights
    README.md           the model card, in repositories of the Hub

A folder may come from anywhere, so it is read strictly: unknown fields and values that do not fit are refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Channels, Classes, Pixels, Sha256, spec_of, unwrapped
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import ModelNotFoundError, SpecError, WeightsError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import file_sha256
from scalenet_zoo.zoo.interface import (
    DEVIATION,
    INTERPOLATION,
    MEAN,
    CropShare,
    Deviation,
    Interface,
    Interpolation,
    Mean,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from scalenet_zoo.zoo.weights import Weights

CONFIG, SPEC, WEIGHTS, CARD = "config.json", "spec.json", "model.safetensors", "README.md"
HUB_PREFIX, FOLDER_PREFIX = "hf-hub:", "local-dir:"  # timm's
TIMM_ENTRY = "scalenet_zoo"
"""The architecture of every model folder, by its name in timm; see `timm_registry.py`."""


class TimmFields(Strict):
    """The fields of config.json in timm's terms: preparation of images, input size, first and last layers."""

    input_size: tuple[Channels, Pixels, Pixels]
    num_classes: Classes
    first_conv: Literal["stem.conv", "stem.0.conv"]
    classifier: Literal["classifier"] = "classifier"
    crop_pct: CropShare
    interpolation: Interpolation = INTERPOLATION
    mean: Mean = MEAN
    std: Deviation = DEVIATION


class WeightsFile(Strict):
    """The name, size and hash of the file of weights that belongs to a config.json."""

    name: Literal["model.safetensors"] = "model.safetensors"
    bytes: Annotated[int, Field(ge=0, le=10**12)]
    sha256: Sha256


class Extras(Strict):
    """The fields of config.json that timm has no place for."""

    format: Literal["scalenet-zoo/model"] = "scalenet-zoo/model"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    spec_hash: Sha256
    weights: WeightsFile
    labels: Labels = Labels()
    drawing: Annotated[Literal["digit"] | None, Field(exclude_if=lambda drawing: drawing is None)] = None


class FolderConfig(Document):
    """config.json: timm's fields, and ours under `scalenet_zoo`."""

    architecture: Literal["scalenet_zoo"] = "scalenet_zoo"
    num_classes: Classes
    num_features: Channels
    label_names: Annotated[tuple[str, ...], Field(max_length=1_000_000)] = ()
    pretrained_cfg: TimmFields
    scalenet_zoo: Extras

    def interface(self, spec: ArchSpec, source: str) -> Interface:
        """Return how images are prepared for the network of a spec, and what its outputs mean.

        Raises:
            SpecError: this file does not fit the spec; `source` names it in the message.
        """
        cfg = self.pretrained_cfg.model_dump() | {"labels": self.scalenet_zoo.labels}
        if self.scalenet_zoo.drawing is not None:
            cfg["drawing"] = self.scalenet_zoo.drawing
        return Interface.of_timm(cfg, spec, f"{source}: pretrained_cfg")

    def check(self, spec: ArchSpec, source: str) -> None:
        """Check that this file belongs to the spec in the same folder.

        Raises:
            SpecError: it does not; `source` names this file in the message.
        """
        size = (spec.input.channels, spec.input.height, spec.input.width)
        stated, labels = self.pretrained_cfg, self.scalenet_zoo.labels
        pairs: dict[str, tuple[object, object]] = {
            "scalenet_zoo.spec_hash": (self.scalenet_zoo.spec_hash, spec.hash),
            "num_classes": (self.num_classes, spec.classes),
            "pretrained_cfg.num_classes": (stated.num_classes, spec.classes),
            "pretrained_cfg.input_size": (stated.input_size, size),
            "pretrained_cfg.first_conv": (stated.first_conv, spec.first_conv),
        }
        for field, (found, expected) in pairs.items():
            if found != expected:
                raise SpecError(f"{source}: {field}: found {found}, expected {expected}, as {SPEC} has")
        stated_bytes, most = self.scalenet_zoo.weights.bytes, 16 * spec.cost.params + 2**24
        if stated_bytes > most:  # room for fp64, batch-norm statistics, names and the spec
            raise SpecError(
                f"{source}: scalenet_zoo.weights.bytes: found {stated_bytes:,}, expected at most {most:,}"
                f" for {spec.cost.params:,} parameters"
            )
        self.interface(spec, source)
        if self.label_names != labels.names:
            raise SpecError(f"{source}: label_names: found names unlike scalenet_zoo.labels, expected the same")
        if len(labels.names) not in (0, spec.classes):
            raise SpecError(f"{source}: label_names: found {len(labels.names)}, expected {spec.classes}, one per class")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose JSON files were read and checked.

    Attributes:
        path: the folder.
        spec: the spec of its network.
        config: the content of config.json, with the expected size and hash of the weights.
    """

    path: Path
    spec: ArchSpec
    config: FolderConfig

    @property
    def weights(self) -> Path:
        """The path of the file of weights."""
        return self.path / WEIGHTS

    @property
    def interface(self) -> Interface:
        """How images are prepared, and what the outputs mean."""
        return self.config.interface(self.spec, str(self.path / CONFIG))

    def adapted(
        self,
        classes: int | None = None,
        channels: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> ArchSpec:
        """Return the spec for another number of classes or input channels, or another input size.

        For other classes or channels the figures that were measured with these weights no longer hold: they are left
        out, and the recorded training becomes pretraining.

        Args:
            classes: number of classes or joints; None: unchanged.
            channels: channels of the input; None: unchanged.
            height: height of the input in pixels; None: unchanged.
            width: width of the input in pixels; None: unchanged.

        Raises:
            SpecError: a value is out of range.
        """
        spec = self.spec.replace(classes=classes, channels=channels, height=height, width=width)
        if (spec.classes, spec.input.channels) == (self.spec.classes, self.spec.input.channels):
            return spec
        details = dict(spec.provenance.details)
        if "training" in details:
            details["pretraining"] = details.pop("training")
        results = tuple(result for result in spec.provenance.results if result.origin != "measured")
        provenance = spec.provenance.model_copy(update={"results": results, "details": details})
        return spec.model_copy(update={"provenance": provenance})

    def check_weights(self) -> None:
        """Compare the file of weights with its description in config.json.

        Raises:
            WeightsError: the file is missing or truncated, or is another file.
        """
        expected = self.config.scalenet_zoo.weights
        if not self.weights.is_file():
            raise WeightsError(f"{self.path}: found no {WEIGHTS}, expected one: pickled weights are never read here")
        if (found := self.weights.stat().st_size) != expected.bytes:
            raise WeightsError(f"{self.weights}: found {found:,} bytes, expected {expected.bytes:,}, as {CONFIG} says")
        if (found_hash := file_sha256(self.weights)) != expected.sha256:
            raise WeightsError(
                f"{self.weights}: found the sha256 {found_hash[:12]}..., expected {expected.sha256[:12]}...,"
                f" as {CONFIG} says"
            )

    def open_weights(self, spec: ArchSpec) -> "Weights":
        """Open and check the weights for a network of this architecture.

        Args:
            spec: the spec of the network; its number of classes and its input channels may differ from this folder's.

        Raises:
            WeightsError: the file is not the one that config.json describes, or does not fit spec.json.
        """
        from scalenet_zoo.zoo.weights import Weights

        self.check_weights()
        return Weights.open(self.weights, spec, self.spec, safetensors=True)


def read_folder(path: str | Path) -> ModelFolder:
    """Read and check the JSON files of a model folder; the weights are checked when they are loaded.

    Raises:
        SpecError: a file is missing or not valid, or the two files do not belong together.
    """
    path = Path(path)
    spec, config = ArchSpec.load(path / SPEC), FolderConfig.load(path / CONFIG)
    config.check(spec, str(path / CONFIG))
    return ModelFolder(path, spec, config)


def find_folder(path: str | Path) -> Path:
    """Return the model folder at a path; for a run of `train`, the folder of its best network.

    Raises:
        ModelNotFoundError: there is neither at this path.
    """
    path = user_path(path)
    for folder in (path, path / "best"):
        if (folder / CONFIG).exists():
            return folder
    found = "no config.json in it" if path.is_dir() else "no such folder"
    raise ModelNotFoundError(f"{path}: found {found}, expected a folder that `train` or `pull` wrote")


def save_model(model: "nn.Module", folder: str | Path, state: "Mapping[str, Tensor] | None" = None) -> None:
    """Write a network's config.json, spec.json and model.safetensors into an existing folder.

    The preparation of images and the labels come from the network's `pretrained_cfg`.

    Args:
        model: one of our networks, wrapped or not.
        folder: the folder; call this within `replacing_folder` to write all files or none.
        state: other weights for this network, such as their moving average; None: its own weights.

    Raises:
        SpecError: its `pretrained_cfg` has a value that a folder cannot hold, such as a crop of 200%.
        WeightsError: the tensors are not those of the network.
        OutputError: a file cannot be written.
    """
    from scalenet_zoo.zoo.weights import save_weights

    folder, spec, model = Path(folder), spec_of(model), unwrapped(model)
    interface = Interface.of_network(model)
    cfg = interface.to_timm(spec)
    weights = folder / WEIGHTS
    save_weights(model, weights, state)
    config = FolderConfig(
        num_classes=spec.classes,
        num_features=model.num_features,  # type: ignore[arg-type]
        label_names=interface.labels.names,
        pretrained_cfg=TimmFields.model_validate(
            {name: cfg[name] for name in TimmFields.model_fields if name != "classifier"}  # always the default here
        ),
        scalenet_zoo=Extras(
            spec_hash=spec.hash,
            weights=WeightsFile(bytes=weights.stat().st_size, sha256=file_sha256(weights)),
            labels=interface.labels,
            drawing=interface.drawing,
        ),
    )
    config.check(spec, f"{spec.name}: {CONFIG}")
    spec.save(folder / SPEC)
    config.save(folder / CONFIG)
