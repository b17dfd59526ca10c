"""Bottom-up pose estimation: read whole images with all people in them, augment them, and draw maps of the joints.

Persons --as_images--> Images --read--> image, People --augmentation--> image, maps at strides 2 and 4, places of joints
                                                +------fit_image-----> image, View
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.crops import PADDING, STRIDE, apply, crop_matrix, cut, draw_heatmaps, inverse
from scalenet_zoo.data.examples import Examples, Part, People, Region
from scalenet_zoo.data.pose import Persons, read_sized
from scalenet_zoo.data.pose_augmentation import mirror_order, mirroring, picture_transform
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.training.recipe import Recipe


MOST_PEOPLE = 30
"""Largest number of people that are found in one picture, in training and in prediction."""
SHIFT = 0.2
"""Largest shift of an image in training, as a share of its shorter side (HigherHRNet)."""


@dataclass(frozen=True, eq=False)
class Images:
    """Examples that are whole images with all people in them.

    Attributes:
        persons: the persons in all images.
        ids: the ids of the images.
        members: for each image, int (persons of the image,): their places in `persons`.
    """

    persons: Persons
    ids: Sequence[int]
    members: Sequence[np.ndarray]

    @property
    def task(self) -> Task:  # noqa: D102
        return self.persons.task

    @property
    def labels(self) -> Labels:  # noqa: D102
        return self.persons.labels

    @property
    def source(self) -> str:  # noqa: D102
        return self.persons.source

    @property
    def split(self) -> str:  # noqa: D102
        return self.persons.split

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> tuple[Image.Image, People]:  # noqa: D102
        number = self.ids[index]
        persons = tuple(self.persons.person(place) for place in self.members[index])
        unlabelled = self.persons.unlabelled.get(number, ())
        return read_sized(*self.persons.images[number]), People(number, persons, unlabelled)

    def name(self, index: int) -> str:  # noqa: D102
        return str(self.persons.images[self.ids[index]][0])


def as_images(examples: Examples, all_images: bool = True) -> Examples:
    """Turn examples of annotated persons into examples of whole images; examples of images stay unchanged.

    Args:
        examples: examples of a pose data set.
        all_images: whether images without labelled persons are included.

    Raises:
        InputError: the persons were found by a detector.
    """
    if isinstance(examples, Part):
        return Part(as_images(examples.whole, all_images), examples.limit)
    if not isinstance(examples, Persons):
        return examples
    if examples.truth is not None:
        raise InputError(f"{examples.source}: found boxes of persons, expected none: the network finds them itself")
    order = np.argsort(examples.image_ids, kind="stable")
    numbers, starts = np.unique(examples.image_ids[order], return_index=True)
    members = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
    ids = sorted(examples.images if all_images else members)
    return Images(examples, ids, [members.get(number, order[:0]) for number in ids])


def fit_image(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """Fit a whole image into the middle of a network's input; the margins are black.

    Args:
        image: the image.
        size: height and width of the network's input.

    Returns:
        The image that the network sees, and the matrix from its shares to pixels of the original, as in
        `View.to_image`.
    """
    to_image = crop_matrix((0, 0, image.width, image.height), size, zoom=PADDING)
    return cut(image, to_image, size), to_image


def people_augmentation(
    spec: ArchSpec, interface: Interface, recipe: "Recipe", labels: Labels
) -> Callable[[Image.Image, People], tuple[Tensor, dict[str, Tensor]]]:
    """Return the training transform of an image with people, which scales, turns, shifts and mirrors it.

    Args:
        spec: the spec of the network.
        interface: how its images are prepared.
        recipe: the recipe with the augmentation.
        labels: the labels of the joints.

    Returns:
        A function from an image and its people to float32 (channels, height, width), normalised, and the target of
        `losses.people_loss`.

    Raises:
        InputError: the network takes neither 1 nor 3 channels.
    """
    recipe = mirroring(recipe, labels)
    return partial(_augment, picture_transform(spec, interface, recipe), spec, recipe, mirror_order(labels))


def _augment(
    transform: Callable[[Image.Image], Tensor],
    spec: ArchSpec,
    recipe: "Recipe",
    mirror: np.ndarray,
    image: Image.Image,
    people: People,
) -> tuple[Tensor, dict[str, Tensor]]:
    zoom = float(torch.empty(()).uniform_(*recipe.resize))
    turn = float(torch.empty(()).uniform_(-recipe.rotation, recipe.rotation))
    shift = min(image.size) * torch.empty(2).uniform_(-SHIFT, SHIFT).double().numpy()
    mirrored = float(torch.rand(())) < recipe.hflip
    size = recipe.train_size or (spec.input.height, spec.input.width)
    to_image = crop_matrix((*shift, image.width, image.height), size, zoom * PADDING, turn, mirrored)
    target = draw_people(people, to_image, size, recipe.heatmap_sigma, mirror if mirrored else None)
    return transform(cut(image, to_image, size)), target


def draw_people(
    people: People, to_image: np.ndarray, size: tuple[int, int], sigma: float, mirror: np.ndarray | None = None
) -> dict[str, Tensor]:
    """Draw the training target for an image with at least one person.

    Args:
        people: the people, in coordinates of the whole image.
        to_image: (2, 3), from shares of the network's view to the image's pixels.
        size: height and width of the view.
        sigma: standard deviation of the joints' Gaussians, in pixels of each scale's heatmaps.
        mirror: for a mirrored view, the original joint of each joint, see `mirror_order`; None: not mirrored.

    Returns:
        The target of `losses.people_loss`, with height and width as in the view / 4:

        - "coarse", float32 (joints, height, width), and "fine", float32 (joints, 2 height, 2 width): heatmaps, 1 at
          joints, and the maximum where Gaussians overlap;
        - "coarse_weights" and "fine_weights", float32 of the same heights and widths: weights of pixels, 0 where people
          are not labelled;
        - "places", int64 (`MOST_PEOPLE`, joints): the place of each joint in the flattened coarse heatmaps, -1 for
          joints that are not labelled or outside of the view.
    """
    keypoints = np.stack([person.keypoints for person in people.persons])
    keypoints = keypoints if mirror is None else keypoints[:, mirror]
    points, labelled = apply(inverse(to_image), keypoints[..., :2].astype(np.float64)), keypoints[..., 2] > 0
    height, width = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    target = {}
    for scale, shape in (("coarse", (height, width)), ("fine", (2 * height, 2 * width))):
        drawn = [draw_heatmaps(*person, shape, sigma)[0] for person in zip(points, labelled, strict=True)]
        target[scale] = torch.from_numpy(np.max(drawn, axis=0))
        target[f"{scale}_weights"] = torch.from_numpy(_weights(people.unlabelled, to_image, shape))
    inside = labelled & ((points >= 0) & (points < 1)).all(2)
    cells = np.where(inside[..., None], points * [width, height], 0).astype(np.int64)
    places = np.where(inside, (np.arange(inside.shape[1]) * height + cells[..., 1]) * width + cells[..., 0], -1)
    places = places[inside.any(1)][:MOST_PEOPLE]
    target["places"] = torch.full((MOST_PEOPLE, inside.shape[1]), -1)
    target["places"][: len(places)] = torch.from_numpy(places)
    return target


def _weights(regions: Sequence[Region], to_image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return float32 of a shape: 0 inside of the outlines of people without labelled joints, 1 elsewhere."""
    outlines = [region.outline for region in regions if region.outline is not None]
    if not outlines:
        return np.ones(shape, np.float32)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools and NumPy 2
        hidden = 255 * coco_mask.decode(coco_mask.merge(outlines))
    unknown = cut(Image.fromarray(hidden), to_image, shape)
    return (np.asarray(unknown) < 128).astype(np.float32)
