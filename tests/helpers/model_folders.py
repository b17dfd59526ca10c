"""Networks to be written to model folders, and configurations that are refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import ZooError
from tests.helpers.networks import random_model

LABELS = Labels(names=("left", "right", "void"), flip_pairs=((0, 1),), skeleton=((0, 2),), sigmas=(0.1, 0.2, 0.3))


def network(spec: ArchSpec) -> nn.Module:
    """A network with random weights, labels, and images prepared in its own way."""
    model: Any = random_model(spec)
    model.pretrained_cfg |= {"labels": LABELS.to_cfg(), "mean": [0.1, 0.2, 0.3], "std": (0.4, 0.5, 0.6)}
    model.pretrained_cfg |= {"interpolation": "nearest", "crop_pct": 0.9}
    return model  # type: ignore[no-any-return]


def same_outputs(model: nn.Module, other: nn.Module) -> bool:
    spec: Any = model.spec
    x = torch.randn(2, spec.input.channels, spec.input.height, spec.input.width)
    with torch.no_grad():
        return torch.equal(model.eval()(x), other.eval()(x))


TIMMS = (ZooError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
"""What timm raises: our errors, or its own, since it reads config.json before we do."""


def put(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Set a field of a nested object."""

    def change(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "architecture": (put("architecture", value="resnet50"), r"architecture: found 'resnet50', expected 'scalenet_zoo'"),
    "huge count": (put("num_classes", value=10**900), r"num_classes: found .*, expected"),
    "huge size": (put("pretrained_cfg", "input_size", value=[3, 10**9, 10**9]), r"input_size.1: found 1000000000"),
    "huge crop": (put("pretrained_cfg", "crop_pct", value=1e308), r"crop_pct: found 1e\+308, expected less than or"),
    "huge mean": (put("pretrained_cfg", "mean", value=[1e300] * 3), r"mean.0: found 1e\+300"),
    "zero deviation": (put("pretrained_cfg", "std", value=[0.0] * 3), r"std.0: found 0.0, expected greater than 0"),
    "two means": (put("pretrained_cfg", "mean", value=[0.5, 0.5]), r"mean: found 2 numbers, expected 3"),
    "text for a number": (put("num_classes", value="3"), r"num_classes: found '3', expected a valid integer"),
    "unknown interpolation": (put("pretrained_cfg", "interpolation", value="__import__"), r"interpolation: found"),
    "arguments for the network": (put("model_args", value={"weights": "/etc/passwd"}), r"model_args: found .*no such"),
    "a file elsewhere": (put("pretrained_cfg", "file", value="/etc/passwd"), r"pretrained_cfg.file: found"),
    "a pickle elsewhere": (put("pretrained_cfg", "url", value="http://localhost/x.pth"), r"pretrained_cfg.url: found"),
    "path traversal": (
        put("scalenet_zoo", "weights", "name", value="../../model.safetensors"),
        r"scalenet_zoo.weights.name: found '../../model.safetensors', expected 'model.safetensors'",
    ),
    "an absolute path": (put("scalenet_zoo", "weights", "name", value="/etc/passwd"), r"weights.name: found"),
    "huge file": (put("scalenet_zoo", "weights", "bytes", value=10**11), r"weights.bytes: found 100,000,000,000, exp"),
    "another spec": (put("scalenet_zoo", "spec_hash", value="0" * 64), r"spec_hash: found 0{64}, expected \w+, as"),
    "another count": (put("num_classes", value=4), r"num_classes: found 4, expected 3, as spec.json has"),
    "another size": (put("pretrained_cfg", "input_size", value=[3, 9, 9]), r"input_size: found \(3, 9, 9\), expected"),
    "another stem": (put("pretrained_cfg", "first_conv", value="stem.0.conv"), r"first_conv: found stem.0.conv"),
    "new version": (put("scalenet_zoo", "version", value=2), r"scalenet_zoo.version: found 2, expected"),
    "other labels": (put("label_names", value=["a", "b", "c"]), r"label_names: found names unlike scalenet_zoo.labels"),
    "labels beyond the network": (
        put("scalenet_zoo", "labels", "skeleton", value=[[0, 99]]),
        r"skeleton: found \[0, 99\], expected numbers of joints below 3",
    ),
    "nothing": (dict.clear, r"architecture: |num_classes: is missing"),
}
