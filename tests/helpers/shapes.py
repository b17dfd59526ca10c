"""Made-up data sets that can be learned in seconds, and networks small enough to do so."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import (
    FUSION_STEPS,
    ArchSpec,
    Head,
    Input,
    Layer,
    MBConvNetwork,
    Module,
    MultipathNetwork,
    Provenance,
    Stem,
    Task,
)
from scalenet_zoo.data.examples import Person


@dataclass(frozen=True)
class Shapes:
    """Made-up images in which there is something to learn: a bright square, whose place or colour is the target."""

    task: Task
    count: int
    split: str = "train"
    source: str = "shapes"

    @property
    def labels(self) -> Labels:
        if self.task == "pose":
            return Labels(names=("left_corner", "right_corner"), flip_pairs=((0, 1),), sigmas=(0.1, 0.1))
        return Labels(names=("dark", "red", "green"))

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"shape {index}"

    def read(self, index: int) -> tuple[Image.Image, Any]:
        rng = np.random.default_rng([index, self.split == "val"])
        pixels = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        kind, x, y = int(rng.integers(1, 3)), int(rng.integers(8, 32)), int(rng.integers(8, 32))
        pixels[y : y + 24, x : x + 24, kind - 1] = 250
        image = Image.fromarray(pixels)
        if self.task == "classification":
            return image, kind
        if self.task == "segmentation":
            mask = np.zeros((64, 64), np.uint8)
            mask[y : y + 24, x : x + 24] = kind
            return image, mask
        joints = np.array([[x + 23, y, 2], [x, y, 2]], np.float32)
        return image, Person(joints, (0.0, 0.0, 64.0, 64.0), 24.0 * 24, index, index)


def _mbconv() -> ArchSpec:
    layers = [
        Layer(kernel=3, stride=stride, hidden=hidden, squeeze=4, channels=channels)
        for stride, hidden, channels in ((2, 8, 12), (2, 36, 16), (1, 48, 16))
    ]
    network = MBConvNetwork(
        stem=Stem(channels=8, kernel=3, stride=2),
        stages=tuple((layer,) for layer in layers),
        head=Head(channels=32),
        activation="hard_swish",
        gate="hard_sigmoid",
    )
    return ArchSpec.create(
        "tiny", "classification", Input(height=32, width=32), 3, network, Provenance(source="a test")
    )


def _multipath(task: Task) -> ArchSpec:
    """Every branch one block deep, and all of them fused once a module."""
    modules = tuple(
        Module(
            depth=(1,) * branches,
            fusion=((((1,) * branches), *([((0,) * branches)] * (FUSION_STEPS - 1))),) * branches,
        )
        for branches in (2, 3, 4)
    )
    head: Any = task
    network = MultipathNetwork(width=4, head=head, modules=modules)
    return ArchSpec.create(f"tiny_{task}", task, Input(height=64, width=64), 3, network, Provenance(source="a test"))


SPECS: dict[Task, ArchSpec] = {
    "classification": _mbconv(),
    "segmentation": _multipath("segmentation"),
    "pose": _multipath("pose"),
}
