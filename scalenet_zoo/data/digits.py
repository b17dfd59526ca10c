"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, which need no download."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.data.examples import find_split

SOURCE = "digits"
"""The name of the data set, as users write it."""
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits as examples for classification: 80% are `train`, 20% are `val`; the split is always the same."""

    source: str
    split: str
    pixels: np.ndarray
    targets: np.ndarray
    labels: Labels = Labels(names=tuple("0123456789"))  # noqa: RUF009 - immutable
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> tuple[Image.Image, int]:  # noqa: D102
        return Image.fromarray(self.pixels[index]).convert("RGB"), int(self.targets[index])

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.source}: {self.split} {index}"


def open_digits(source: str, split: str) -> Digits:
    """Open the digits of the split `train` or `val`.

    Raises:
        InputError: there is no such split.
    """
    split = find_split(split, ("train", "val"), source)
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(pixels)), test_size=_VALIDATION_SHARE, stratify=digits.target, random_state=0
    )
    chosen = np.sort(train if split == "train" else val)
    return Digits(source, split, pixels[chosen], digits.target[chosen])


def drawing_of(source: str) -> Literal["digit"] | None:
    """Return the `Interface.drawing` of networks that are trained on a data set; None: pictures are not changed."""
    return "digit" if source == SOURCE else None
