"""One epoch on 1,500 small images: a network with inherited weights against the same network with initial weights.

python -m benchmarks.fine_tuning --data FOLDER: some minutes on 2 cores. FOLDER has imagenette-128 and camvid-11,
unpacked. On Imagenette, a network of 600M MACs inherits published weights. On CamVid, a narrow HRNet inherits the
weights of an HRNet of twice its width, which is trained first.
"""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.imagenette import FOLDER, imagenette
from benchmarks.interleave import record
from scalenet_zoo import ArchSpec, fit, load_spec
from scalenet_zoo.arch.spec import MultipathNetwork, spec_of
from scalenet_zoo.budgets import spec_for
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.zoo.create import create_model, create_seeded
from scalenet_zoo.zoo.inherit import find_source, inherit

IMAGES, PIXELS, SEEDS = 1500, 128, (0, 1)
RECIPE: dict[str, Any] = {"epochs": 1, "batch_size": 32, "lr": 1e-3, "warmup_epochs": 0.1, "hflip": 0.5}
CAMVID_SIZE, CAMVID_RECIPE = (96, 128), {"batch_size": 8, "lr": 2e-3, "hflip": 0.5, "resize": (0.75, 1.5)}
WIDE, NARROW, TEACHING = 12, 6, 8
"""Widths of the two HRNets, and training epochs of the wide one."""


def tuned(network: nn.Module, data: Path, run: Path, seed: int = 0) -> float:
    """Train a network for one epoch on 1,500 images of Imagenette; return its top-1 accuracy on the split val."""
    size = spec_of(network).replace(height=PIXELS, width=PIXELS)
    network.spec = size  # type: ignore[assignment]
    training = imagenette(data, "train", IMAGES)
    validation = imagenette(data, "val")
    fitted = fit(network, training, validation=validation, output=run, recipe="quick", seed=seed, workers=1, **RECIPE)
    return fitted.best


def classify(data: Path, runs: Path) -> dict[str, object]:
    """A network of 600M MACs on Imagenette."""
    spec = spec_for(flops="600M", family="efficientnet_lite", pretrained=True)
    source = find_source(spec)
    found: dict[str, list[float]] = {"inherited": [], "initial": []}
    for seed in SEEDS:
        for name, scores in found.items():
            network = create_seeded(spec, seed)
            if name == "inherited":
                took = inherit(network, create_model(source, pretrained=True))
            network.reset_classifier(10)  # type: ignore[operator]  # the ten classes get a new classifier
            scores.append(tuned(network, data, runs / f"{name}-{seed}", seed))
    return {
        "data": f"{FOLDER}, {IMAGES} images, {PIXELS} pixels, one epoch",
        "source": source,
        "inherited": asdict(took),
        "top1 by seed": found,
    }


def hrnet(width: int) -> ArchSpec:
    """HRNet-W18 with another width, for CamVid."""
    spec = load_spec("hrnet_w18")
    assert isinstance(spec.network, MultipathNetwork)
    network = spec.network.model_copy(update={"width": width})
    height, wide = CAMVID_SIZE
    image = spec.input.model_copy(update={"height": height, "width": wide})
    return ArchSpec.create(f"hrnet_w{width}", spec.task, image, 11, network, spec.provenance)


def segment(data: Path, runs: Path) -> dict[str, object]:
    """An HRNet narrowed to half its width, on CamVid."""
    parts = [
        open_data(f"masks:{data / 'camvid-11'}", "segmentation", split, ignore_index=11) for split in ("train", "val")
    ]
    options: dict[str, Any] = {
        "validation": parts[1],
        "recipe": "quick",
        "workers": 1,
        "ignore_index": 11,
        **CAMVID_RECIPE,
    }

    def learn(network: nn.Module, run: Path, epochs: int, seed: int) -> float:
        fitted = fit(network, parts[0], output=run, epochs=epochs, seed=seed, **options)
        return fitted.best

    wide = create_seeded(hrnet(WIDE), 0)
    known = learn(wide, runs / "wide", TEACHING, 0)
    source = create_model(runs / "wide")
    found: dict[str, list[float]] = {"inherited": [], "initial": []}
    for seed in SEEDS:
        for name, scores in found.items():
            network = create_seeded(hrnet(NARROW), seed)
            if name == "inherited":
                took = inherit(network, source)
            scores.append(learn(network, runs / f"narrow-{name}-{seed}", 1, seed))
    return {
        "data": f"camvid-11, 367 images, {CAMVID_SIZE[0]} x {CAMVID_SIZE[1]} pixels, one epoch",
        "source": f"HRNet of width {WIDE} after {TEACHING} epochs: mIoU {known:.4f}",
        "network": f"HRNet of width {NARROW}",
        "inherited": asdict(took),
        "miou by seed": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        runs = Path(folder)
        record("fine_tuning", {"imagenette": classify(data, runs), "camvid": segment(data, runs)})


if __name__ == "__main__":
    main()
