"""How images are prepared for a network and where its weights are, in timm's terms."""

from collections.abc import Mapping
from typing import Any

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.zoo.catalog import published_weights


def pretrained_cfg(spec: ArchSpec) -> dict[str, Any]:
    """How images are prepared for a network and where its weights are, in timm's terms."""
    from timm import get_pretrained_cfg

    cfg: dict[str, Any] = {"crop_pct": 0.875, "interpolation": "bicubic"}
    if published := published_weights(spec):
        theirs = get_pretrained_cfg(published).to_dict()
        kept = ("hf_hub_id", "mean", "std", "crop_pct", "interpolation", "license", "origin_url")
        cfg |= {key: theirs[key] for key in kept if key in theirs}
    return shown_as(spec, cfg) | {
        "architecture": spec.name,
        "input_size": (spec.input.channels, spec.input.height, spec.input.width),
        "num_classes": spec.classes,
        "first_conv": spec.first_conv,
        "classifier": "classifier",
    }


def shown_as(spec: ArchSpec, cfg: "Mapping[str, Any]") -> dict[str, Any]:
    """A `pretrained_cfg` that says how images are shown to a network: dense ones see all of a picture, bilinear."""
    return dict(cfg) if spec.task == "classification" else {**cfg, "crop_pct": 1.0, "interpolation": "bilinear"}
