"""Networks at budgets with inherited weights, on Imagenette: ten budgets above the smallest source, five below it.

python -m benchmarks.inherited_budgets --data FOLDER: an hour on one core; a stopped run is resumed.
FOLDER has imagenette-128, unpacked.

Above the smallest source, networks grow from a source without losing what it knows. Their accuracy among ImageNet's
1000 classes is compared with the source's at the source's resolution, and measured at other resolutions. Below it,
networks shrink. They are trained for one epoch on 1,500 images, and compared with the same networks trained from
initial weights.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.fine_tuning import tuned
from benchmarks.imagenette import accuracies, imagenette, runner
from benchmarks.interleave import RESULTS, record
from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.budgets import spec_for
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.inherit import find_source, inherit
from scalenet_zoo.zoo.interface import Interface

FAMILY = "efficientnet_lite"
ABOVE = ("420M", "500M", "600M", "800M", "1G", "1.4G", "2G", "3G", "4.2G", "6G")
BELOW = ("100M", "150M", "200M", "270M", "350M")
PIXELS = (160, 224, 288)
"""Resolutions of the curve."""
IMAGES, CURVE_IMAGES = 1000, 100
"""Number of validation images for the comparison with the source, and for each point of the curve."""


def grown(flops: str, examples: Examples, some: Examples, known: dict[str, dict[str, float]]) -> dict[str, object]:
    """Evaluate a network above the smallest source, and its source, on the same images.

    Args:
        flops: the budget.
        examples: images to compare both on.
        some: fewer images, for other resolutions.
        known: results of the sources; those of a new source are added.
    """
    spec = spec_for(flops=flops, family=FAMILY, pretrained=True)
    source = find_source(spec)
    theirs = create_model(source, pretrained=True)
    ours = create_model(spec)
    took = inherit(ours, theirs)
    interface, pixels = Interface.of_network(theirs), spec_of(theirs).input.height

    def at(network: torch.nn.Module, size: int, images: Examples) -> dict[str, float]:
        resized = spec_of(network).replace(height=size, width=size)
        return accuracies(runner(network), resized, interface, images)

    if source not in known:
        known[source] = at(theirs, pixels, examples)
    return {
        "source": source,
        "macs": spec.cost.macs,
        "pixels": spec.input.height,
        "inherited": asdict(took),
        "at the source's resolution": {"ours": at(ours, pixels, examples), "source": known[source]},
        "at its own resolution": at(ours, spec.input.height, some),
        "over resolution": {str(size): at(ours, size, some) for size in PIXELS},
    }


def shrunk(flops: str, data: Path, runs: Path) -> dict[str, object]:
    """Evaluate a network below the smallest source after one epoch, with inherited and with initial weights."""
    spec = spec_for(flops=flops, family=FAMILY, pretrained=True)
    source = find_source(spec)
    ours = create_seeded(spec)
    took = inherit(ours, create_model(source, pretrained=True))
    figures = {
        name: tuned(network, data, runs / f"{flops}-{name}")
        for name, network in (("inherited", ours), ("initial", create_seeded(spec)))
    }
    return {"source": source, "macs": spec.cost.macs, "inherited": asdict(took), "after one epoch": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=IMAGES, help="number of validation images to compare on")
    arguments = parser.parse_args()
    examples = imagenette(arguments.data, "val", arguments.images)
    some = imagenette(arguments.data, "val", CURVE_IMAGES)
    path = RESULTS / "inherited_budgets.json"
    done = json.loads(path.read_text())["measured"] if path.exists() else {}
    known: dict[str, dict[str, float]] = {}
    for flops in ABOVE:
        if flops not in done:
            done[flops] = grown(flops, examples, some, known)
            record("inherited_budgets", done)
    with TemporaryDirectory() as runs:
        for flops in BELOW:
            if flops not in done:
                done[flops] = shrunk(flops, arguments.data, Path(runs))
                record("inherited_budgets", done)


if __name__ == "__main__":
    main()
