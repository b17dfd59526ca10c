"""The zoo's entries that are timm's networks, and the weights that timm publishes for them.

python -m tools.timm_entries RESULTS.csv: writes searched_archs/baselines/*.json and searched_archs/published.json.

RESULTS.csv is timm's table of results on the validation images of ImageNet-1k, with the columns model, img_size, top1,
top5, crop_pct and interpolation. Networks are read from timm's modules on the meta device; nothing is downloaded.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from scalenet_zoo.arch.scaling import expand
from scalenet_zoo.arch.spec import (
    Activation,
    ArchSpec,
    Gate,
    Head,
    Input,
    Layer,
    MBConvNetwork,
    Provenance,
    Result,
    Stem,
)
from scalenet_zoo.networks.layers import ACTIVATIONS, GATES
from scalenet_zoo.zoo.catalog import load_family
from scalenet_zoo.zoo.published import (
    Published,
    PublishedEntry,
    PublishedWeights,
    QuotedResult,
    origin_of,
    published_path,
)
from scalenet_zoo.zoo.sources import load_spec

_T = TypeVar("_T")

FOLDER = Path(__file__).parents[1] / "searched_archs"
DATA = "ImageNet-1k validation"


@dataclass(frozen=True)
class Origin:
    """Where networks come from; the licence is timm's.

    Attributes:
        names: timm's names of the networks.
        source: who released them.
        method: how they were found.
        paper: the paper that describes them.
    """

    names: tuple[str, ...]
    source: str
    method: str
    paper: str

    def provenance(self, results: Iterable[Result]) -> Provenance:
        """Make the provenance of one of the networks from its results."""
        source = f"{self.source}, read from timm's modules"
        return Provenance(
            source=source, method=self.method, paper=self.paper, license="Apache-2.0", results=tuple(results)
        )


EFFICIENTNET = "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019"
MOBILENETV2 = "MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
MNASNET = "MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019"
COMPOUND = "compound scaling of a separately searched base model"
ORIGINS = (
    Origin(
        tuple(f"tf_efficientnet_b{i}" for i in range(8)),
        "the authors' TensorFlow release, with TensorFlow's padding and batch norm",
        COMPOUND,
        EFFICIENTNET,
    ),
    Origin(
        ("tf_efficientnet_b8",),
        "the authors' TensorFlow release, with TensorFlow's padding and batch norm",
        COMPOUND,
        "Adversarial Examples Improve Image Recognition, CVPR 2020",
    ),
    Origin(
        tuple(f"tf_efficientnet_lite{i}" for i in range(5)),
        "EfficientNet-Lite, released with TensorFlow: EfficientNet without squeeze-and-excite, for integer arithmetic",
        COMPOUND,
        EFFICIENTNET,
    ),
    Origin(
        ("efficientnet_lite0",),
        "EfficientNet-Lite0 with PyTorch's padding and batch norm",
        COMPOUND,
        EFFICIENTNET,
    ),
    Origin(
        ("efficientnet_b1_pruned", "efficientnet_b2_pruned", "efficientnet_b3_pruned"),
        "the pruning authors' release",
        "EfficientNet's channels pruned, with distillation",
        "Knapsack Pruning with Inner Distillation, 2020",
    ),
    Origin(
        ("mobilenetv2_050", "mobilenetv2_100", "mobilenetv2_140"),
        "the paper's table, with its width multipliers",
        "designed by hand",
        MOBILENETV2,
    ),
    Origin(
        ("mobilenetv2_110d", "mobilenetv2_120d"),
        "timm's deeper and wider MobileNetV2",
        "scaling in depth and width of a network that was designed by hand",
        MOBILENETV2,
    ),
    Origin(
        ("mnasnet_small", "mnasnet_100"),
        "the authors' TensorFlow release: MnasNet-small, and B1",
        "search by reinforcement learning, with latency measured on a phone",
        MNASNET,
    ),
    Origin(
        ("semnasnet_075", "semnasnet_100"),
        "the authors' TensorFlow release: MnasNet-A1, with its width multipliers",
        "search by reinforcement learning, with latency measured on a phone",
        MNASNET,
    ),
    Origin(
        ("spnasnet_100",),
        "the authors' release",
        "gradient-based search in one super-kernel, with a latency model of a phone",
        "Single-Path NAS: Designing Hardware-Efficient ConvNets in less than 4 Hours, ECML PKDD 2019",
    ),
    Origin(
        ("fbnetc_100",),
        "the authors' release: FBNet-C",
        "differentiable search, with a latency table of a phone",
        "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search, CVPR 2019",
    ),
    Origin(
        tuple(f"tinynet_{letter}" for letter in "abcde"),
        "the authors' release",
        "EfficientNet-B0 scaled down in resolution, depth and width by a rule fitted to random networks",
        "Model Rubik's Cube: Twisting Resolution, Depth and Width for TinyNets, NeurIPS 2020",
    ),
)
EFFICIENTNETS = tuple(f"efficientnet_b{i}" for i in range(6))
"""Entries of the family `efficientnet` for which timm has weights, too."""
BACKBONES: Mapping[str, str] = {
    **{f"{name}{suffix}": name for name in ("hrnet_w18", "hrnet_w32", "hrnet_w48") for suffix in ("", "_pose")},
    **{f"higher{name}": name for name in ("hrnet_w32", "hrnet_w48")},
}
"""For each entry for a dense task, timm's classifier with the same backbone."""


def timm_on_meta(name: str) -> Any:  # noqa: ANN401 - the modules of timm's EfficientNet
    """Make timm's model on the meta device, without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(name)


def network_of_timm(model: Any) -> MBConvNetwork:  # noqa: ANN401 - the modules of timm's EfficientNet
    """Describe timm's EfficientNet, or one of its relatives, layer by layer.

    Raises:
        ValueError: the network has something that the format cannot express.
    """
    modules = list(model.modules())
    norm_eps = _one({module.eps for module in modules if isinstance(module, nn.BatchNorm2d)}, "epsilon")
    kinds = {type(module) for module in modules}
    activation = _one({name for name, kind in ACTIVATIONS.items() if kind in kinds}, "activation")
    gates: set[Gate] = {name for name, kind in GATES.items() if kind in kinds}
    channels: int = model.conv_stem.out_channels
    stages = []
    for blocks in model.blocks:
        layers = []
        for block in blocks:
            layers.append(_layer(block, channels, activation))
            channels = layers[-1].channels
        stages.append(tuple(layers))
    return MBConvNetwork(
        stem=Stem(
            channels=model.conv_stem.out_channels,
            kernel=model.conv_stem.kernel_size[0],
            stride=model.conv_stem.stride[0],
        ),
        stages=tuple(stages),
        head=Head(channels=model.conv_head.out_channels),
        activation=activation,
        gate=_one(gates or {"sigmoid"}, "gate"),
        padding="same" if any(isinstance(module, Conv2dSame) for module in modules) else "symmetric",
        norm_eps=norm_eps,
    )


def _one(found: set[_T], what: str) -> _T:
    if len(found) != 1:
        raise ValueError(f"{what}: found {sorted(map(str, found))}, expected the same one throughout")
    return found.pop()


def _layer(block: Any, in_channels: int, activation: Activation) -> Layer:  # noqa: ANN401 - a block of timm's
    kind = type(block).__name__
    if kind not in ("DepthwiseSeparableConv", "InvertedResidual"):
        raise ValueError(f"found a {kind}, expected layers that expand, filter and project")
    expands = kind == "InvertedResidual"
    projection = block.conv_pwl if expands else block.conv_pw
    hidden, channels, stride = block.conv_dw.out_channels, projection.out_channels, block.conv_dw.stride[0]
    last_norm = block.bn3 if expands else block.bn2
    if (
        block.conv_dw.groups != hidden
        or block.has_skip != (stride == 1 and channels == in_channels)
        or isinstance(last_norm.act, ACTIVATIONS[activation])
    ):
        raise ValueError(
            f"found {block}, expected one depthwise filter per channel, every possible shortcut and no last activation"
        )
    squeeze = 0 if isinstance(block.se, nn.Identity) else block.se.conv_reduce.out_channels
    return Layer(
        kernel=block.conv_dw.kernel_size[0],
        stride=stride,
        hidden=hidden,
        squeeze=squeeze,
        channels=channels,
        expand=expands and hidden == in_channels,
    )


def read_results(path: Path) -> dict[str, list[QuotedResult]]:
    """Read the results by timm's names with tags, the highest resolution first."""
    results: dict[str, list[QuotedResult]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            results[row["model"]].append(
                QuotedResult(
                    pixels=int(row["img_size"]),
                    top1=float(row["top1"]),
                    top5=float(row["top5"]),
                    crop_pct=float(row["crop_pct"]),
                    interpolation=row["interpolation"],
                )
            )
    return {name: sorted(rows, key=lambda each: -each.pixels) for name, rows in results.items()}


def quoted(weights: Iterable[PublishedWeights]) -> list[Result]:
    """Convert the published results of weights to results for an entry's provenance."""
    return [
        Result(metric=f"{metric} accuracy, %", value=value, data=DATA, origin=origin_of(each, row))
        for each in weights
        for row in each.results
        for metric, value in (("top-1", row.top1), ("top-5", row.top5))
    ]


def weights_of(name: str, results: Iterable[QuotedResult]) -> PublishedWeights:
    """Read what timm publishes about the weights NAME.TAG."""
    cfg = timm.get_pretrained_cfg(name)
    return PublishedWeights(
        timm=f"{cfg.architecture}.{cfg.tag}",
        repository=cfg.hf_hub_id,
        mean=cfg.mean,
        std=cfg.std,
        license=cfg.license,
        results=tuple(results),
    )


def entry_of_timm(name: str, weights: Iterable[PublishedWeights]) -> ArchSpec:
    """Make the zoo's entry for a model of timm, at timm's default resolution."""
    (origin,) = (each for each in ORIGINS if name in each.names)
    model = timm_on_meta(name)
    _, height, width = model.pretrained_cfg["input_size"]
    return ArchSpec.create(
        name=name,
        task="classification",
        input=Input(height=height, width=width),
        classes=1000,
        network=network_of_timm(model),
        provenance=origin.provenance(quoted(weights)),
    )


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS.csv")
    results = read_results(parser.parse_args().results)
    entries = []

    def add(spec: ArchSpec, weights: Iterable[PublishedWeights]) -> None:
        entries.append(PublishedEntry(name=spec.name, hash=spec.hash, pixels=spec.input.height, weights=tuple(weights)))

    def weights_for(name: str) -> list[PublishedWeights]:
        return [weights_of(model, rows) for model, rows in results.items() if model.partition(".")[0] == name]

    for spec in expand(load_family("efficientnet")):
        if spec.name in EFFICIENTNETS:
            weights = weights_for(spec.name)
            told = (*spec.provenance.results, *quoted(weights))
            spec = spec.model_copy(update={"provenance": spec.provenance.model_copy(update={"results": told})})
            spec.save(FOLDER / "baselines" / f"{spec.name}.json")
            add(spec, weights)
    for origin in ORIGINS:
        for name in origin.names:
            weights = weights_for(name)
            spec = entry_of_timm(name, weights)
            spec.save(FOLDER / "baselines" / f"{name}.json")
            add(spec, weights)
    for name, theirs in BACKBONES.items():
        add(load_spec(name), [weights_of(theirs, ())])
    Published(entries=tuple(sorted(entries, key=lambda entry: entry.name))).save(published_path())


if __name__ == "__main__":
    main()
