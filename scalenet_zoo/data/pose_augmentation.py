"""Augmentation for pose estimation: crop, scale, turn and mirror persons, and draw heatmaps of their joints."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.crops import STRIDE, apply, crop_matrix, cut, draw_heatmaps, inverse
from scalenet_zoo.data.examples import Person
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.training.recipe import Recipe

_log = logging.getLogger(__name__)


def person_augmentation(
    spec: ArchSpec, interface: Interface, recipe: "Recipe", labels: Labels
) -> Callable[[Image.Image, Person], tuple[Tensor, dict[str, Tensor]]]:
    """Return the training transform of a person, which crops, scales, turns and mirrors the image.

    Args:
        spec: the spec of the network.
        interface: how its images are prepared.
        recipe: the recipe with the augmentation.
        labels: the labels of the joints.

    Returns:
        A function from an image and a person to float32 (channels, height, width), normalised, and {"heatmaps": float32
        (joints, height / 4, width / 4), "weights": float32 (joints,), 0 for joints that do not count}.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    recipe = mirroring(recipe, labels)
    return partial(_augment, picture_transform(spec, interface, recipe), spec, recipe, mirror_order(labels))


def mirroring(recipe: "Recipe", labels: Labels) -> "Recipe":
    """Return the recipe, without mirroring if the left and right joints are unknown; a warning says so."""
    if not recipe.hflip or labels.flip_pairs:
        return recipe
    _log.warning(
        "images are not mirrored although hflip is %g, because the left and right joints are unknown (%s):"
        " name them in a file for --joints, as flip_pairs: pairs of names, or [] if there are no sides",
        recipe.hflip,
        quoted(list(labels.names)),
    )
    return recipe.replace({"hflip": 0.0})


def picture_transform(spec: ArchSpec, interface: Interface, recipe: "Recipe") -> Callable[[Image.Image], Tensor]:
    """Return the transform from a training image to float32 (channels, height, width), normalised, with colour jitter.

    Args:
        spec: the spec of the network.
        interface: how its images are prepared.
        recipe: the recipe with the colour jitter.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    jitter = recipe.color_jitter
    steps = [
        v2.ColorJitter(jitter, jitter, jitter) if jitter else None,
        v2.Grayscale() if spec.input.channels == 1 else None,
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(*normalisation(spec, interface)),
        v2.ToPureTensor(),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose([step for step in steps if step])
    return transform


def mirror_order(labels: Labels) -> np.ndarray:
    """Return int (joints,): the original joint for each joint of a mirrored person; left and right change places."""
    order = np.arange(len(labels.names))
    for first, second in labels.flip_pairs:
        order[[first, second]] = second, first
    return order


def _augment(
    transform: Callable[[Image.Image], Tensor],
    spec: ArchSpec,
    recipe: "Recipe",
    mirror: np.ndarray,
    image: Image.Image,
    person: Person,
) -> tuple[Tensor, dict[str, Tensor]]:
    zoom = float(torch.empty(()).uniform_(*recipe.resize))
    turn = float(torch.empty(()).uniform_(-recipe.rotation, recipe.rotation))
    mirrored = float(torch.rand(())) < recipe.hflip
    size = recipe.train_size or (spec.input.height, spec.input.width)
    to_image = crop_matrix(person.box, size, zoom, turn, mirrored)
    keypoints = person.keypoints[mirror] if mirrored else person.keypoints
    points = apply(inverse(to_image), keypoints[:, :2].astype(np.float64))
    maps, weights = draw_heatmaps(
        points, keypoints[:, 2] > 0, (-(-size[0] // STRIDE), -(-size[1] // STRIDE)), recipe.heatmap_sigma
    )
    target = {"heatmaps": torch.from_numpy(maps), "weights": torch.from_numpy(weights)}
    return transform(cut(image, to_image, size)), target
