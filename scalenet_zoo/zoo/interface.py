"""How images are prepared for a network, and what its outputs mean: what the spec does not say.

    timm's dict --of_timm--> Interface --to_timm--> timm's dict

Timm keeps this information in a dict, `network.pretrained_cfg`. The config.json of a model folder and the metadata of
an ONNX file hold the same dict. Only this module reads and writes it.
"""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Task, spec_of, unwrapped
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.zoo.published import published_weights

if TYPE_CHECKING:
    from torch import nn

CropShare = Annotated[float, Field(gt=0, le=1)]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Mean = Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=3)]
Deviation = Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(min_length=1, max_length=3)]

INTERPOLATION: Interpolation = "bicubic"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, for pixels from 0 to 1."""
CROP_MODES: Mapping[Task, Literal["center", "squash", "border"]] = {
    "classification": "center",
    "segmentation": "squash",
    "pose": "border",
}
"""Timm's words for how a whole picture is fitted to the input's shape: cropped, squeezed, or padded."""
BOTTOM_UP_CLASSIFIER = ("classifier.coarse", "classifier.upscale.conv", "classifier.fine")
"""The layers of a bottom-up head whose shape depends on the number of joints."""


class Interface(Strict):
    """How images are prepared for a network, and what its outputs mean.

    Attributes:
        crop_pct: share of an image's shorter side that a classifier sees; dense networks see the whole image.
        interpolation: how images are resized; always bilinear for dense networks.
        mean: mean of each channel, for pixels from 0 to 1; a network with one input channel uses the mean of the three.
        std: standard deviation of each channel, in the same way.
        labels: the labels of the classes or joints.
        drawing: what is cut out of a picture before the network sees it; "digit": a digit, with
            `data.drawings.frame_digit`; None: the picture is not changed.
    """

    crop_pct: CropShare = 0.875
    interpolation: Interpolation = INTERPOLATION
    mean: Mean = MEAN
    std: Deviation = DEVIATION
    labels: Labels = Labels()
    drawing: Annotated[Literal["digit"] | None, Field(exclude_if=lambda drawing: drawing is None)] = None

    @classmethod
    def of(cls, spec: ArchSpec) -> Self:
        """Return the interface of a network without weights, or with its published weights."""
        return cls.of_timm(_published(spec), spec)

    @classmethod
    def of_network(cls, network: "nn.Module") -> Self:
        """Return the interface of one of our networks, wrapped or not, from its `pretrained_cfg`.

        Raises:
            SpecError: as for `of_timm`.
        """
        spec = spec_of(network)
        return cls.of_timm(_published(spec) | (getattr(unwrapped(network), "pretrained_cfg", None) or {}), spec)

    @classmethod
    def of_timm(cls, cfg: Mapping[str, Any], spec: ArchSpec, source: str | None = None) -> Self:
        """Return the interface that timm's dict describes.

        Labels are dropped if their number is not the network's number of classes, which happens when the classifier is
        replaced. For a dense network `crop_pct` and `interpolation` of the dict are ignored.

        Args:
            cfg: timm's dict; missing fields have ImageNet's values.
            spec: the spec of the network.
            source: the name of the dict in errors; None: the network's `pretrained_cfg`.

        Raises:
            SpecError: a value is not possible, such as a crop of 200%; the message names the field.
        """
        source = source or f"{spec.name}: pretrained_cfg"
        stated = {key: cfg[key] for key in cls.model_fields if key in cfg and key != "labels"}
        if spec.task != "classification":
            stated |= {"crop_pct": 1.0, "interpolation": "bilinear"}
        with spec_errors(source):
            interface = cls.model_validate_json(json.dumps(stated, default=str))
        for field, values in (("mean", interface.mean), ("std", interface.std)):
            if len(values) not in (3, spec.input.channels):
                raise SpecError(f"{source}: {field}: found {len(values)} numbers, expected 3")
        with spec_errors(f"{source}: labels"):
            labels = Labels.of(cfg)
        return interface.model_copy(update={"labels": labels}) if len(labels.names) == spec.classes else interface

    def to_timm(self, spec: ArchSpec, also: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the interface as timm's dict.

        Args:
            spec: the spec of the network, or of a variant with other input channels or another number of classes; the
                labels are left out if they do not fit it.
            also: a dict whose other entries are kept, in their order.
        """
        mean, std = (one * 3 if len(one) == 1 < spec.input.channels else one for one in (self.mean, self.std))
        cfg = {
            **(also or {}),
            "crop_pct": self.crop_pct,
            "crop_mode": CROP_MODES[spec.task],
            "interpolation": self.interpolation,
            "architecture": spec.name,
            "custom_load": False,
            "input_size": (spec.input.channels, spec.input.height, spec.input.width),
            "fixed_input_size": False,
            "num_classes": spec.classes,
            "pool_size": _pool_size(spec),
            "first_conv": spec.first_conv,
            "classifier": BOTTOM_UP_CLASSIFIER if spec.bottom_up else "classifier",
            "mean": mean,
            "std": std,
            "labels": self.labels.to_cfg(),
        }
        if not self.labels.names or len(self.labels.names) != spec.classes:
            del cfg["labels"]
        cfg.pop("drawing", None)
        if self.drawing is not None:
            cfg["drawing"] = self.drawing
        return cfg


def pretrained_cfg(spec: ArchSpec) -> dict[str, Any]:
    """Return timm's dict for a network of the zoo, with the location of its published weights."""
    published = _published(spec)
    return Interface.of_timm(published, spec).to_timm(spec, published)


def _pool_size(spec: ArchSpec) -> tuple[int, int] | None:
    """Return height and width of the features that a classifier averages; None: the network is dense."""
    if spec.network.type != "mbconv":
        return None
    strides = [spec.network.stem.stride, *(layer.stride for stage in spec.network.stages for layer in stage)]
    reduction = math.prod(strides)
    return math.ceil(spec.input.height / reduction), math.ceil(spec.input.width / reduction)


def _published(spec: ArchSpec) -> dict[str, Any]:
    """Return timm's fields for the published weights of an architecture, with their location; empty: there are none.

    The crop belongs to the quoted result whose resolution is nearest to the spec's.
    """
    published = published_weights(spec)
    if published is None:
        return {}
    result = published.result_at(spec.input.height)
    seen = {"crop_pct": result.crop_pct, "interpolation": result.interpolation} if result else {}
    return {
        **seen,
        "hf_hub_id": published.repository,
        "mean": published.mean,
        "std": published.std,
        "license": published.license,
    }
