"""Batches: augmented for training, independent of the number of workers; not augmented for evaluation."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_loader
from timm.data.transforms import MaybeToTensor
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torchvision.transforms import v2

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data import people, pose_augmentation, segmentation
from scalenet_zoo.data.broken import LoadingError, complaint
from scalenet_zoo.data.crops import crop_person
from scalenet_zoo.data.examples import (
    IGNORE,
    Crop,
    Examples,
    People,
    Person,
    Target,
    View,
    check_class,
    known_classes,
    known_targets,
)
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.training.recipe import Recipe


LoadedBatch = dict[str, Any]
LoadedImage = tuple[Any, Any, list[str]]
"""An image, its target, and the broken images that were skipped before it."""


class TrainingSet(Dataset[LoadedImage]):
    """Augmented examples. The augmentation of an example depends only on the seed, the epoch and its index.

    Args:
        examples: the examples to augment.
        spec: the spec of the network.
        recipe: the recipe with the seed and the number of images that may be broken.
        augment: a function from an image and its target to tensors; None: `transform`, which timm sets, is applied to
            the image only.
    """

    def __init__(
        self,
        examples: Examples,
        spec: ArchSpec,
        recipe: "Recipe",
        augment: Callable[[Image.Image, Any], tuple[Tensor, Any]] | None = None,
    ) -> None:
        self.examples = examples
        self.transform: Callable[[Image.Image], Tensor] | None = None
        self._classes = known_classes(examples.labels, spec.classes)
        self._seed = recipe.seed
        self._limit = recipe.broken_limit
        self._augment = augment
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call] # workers live longer than an epoch

    def __len__(self) -> int:
        return len(self.examples)

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentations of an epoch; call this before the first image of the epoch is loaded."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> LoadedImage:
        """Return an augmented example; if it is broken, the next one that is not.

        Raises:
            LoadingError: too many examples are broken, or a target is not one of the data's classes.
        """
        broken: list[str] = []
        for place in range(index, index + min(self._limit + 1, len(self.examples))):
            try:
                image, target = self.examples.read(place % len(self.examples))
                break
            except InputError as error:
                broken.append(str(error))
        else:
            raise LoadingError(complaint(broken, self._limit))
        check_classes(target, self._classes, self.examples.name(place % len(self.examples)))
        with seeded(self._seed, int(self._epoch), index):
            if self._augment:
                return *self._augment(image, target), broken
            assert self.transform is not None
            return self.transform(image), target, broken


@dataclass
class EvaluationSet(Dataset[LoadedImage | str]):
    """Examples without augmentation; a broken example is replaced by the reason, a string.

    Attributes:
        examples: the examples to read.
        transform: a function from an image to the network's input.
        spec: the spec of the network.
    """

    examples: Examples
    transform: Callable[[Image.Image], Tensor | np.ndarray]
    spec: ArchSpec

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> LoadedImage | str:
        """Return an example, or the reason why it is broken.

        Raises:
            LoadingError: a target is not one of the data's classes.
        """
        try:
            image, target = self.examples.read(index)
        except InputError as error:
            return str(error)
        classes = known_classes(self.examples.labels, self.spec.classes)
        check_classes(target, classes, self.examples.name(index))
        if isinstance(target, People):
            image, to_image = people.fit_image(image, (self.spec.input.height, self.spec.input.width))
            return self.transform(image), View(target, to_image), []
        if isinstance(target, Person):
            image, to_image = crop_person(image, target.box, (self.spec.input.height, self.spec.input.width))
            return self.transform(image), Crop(target, to_image), []
        if isinstance(target, np.ndarray):
            return self.transform(image), torch.from_numpy(target).long(), []
        return self.transform(image), target, []


def training_loader(
    examples: Examples | Stream, spec: ArchSpec, interface: Interface, recipe: "Recipe", batch_size: int, workers: int
) -> DataLoader[Any]:
    """Return a loader of augmented batches in random order; an incomplete last batch is dropped.

    Args:
        examples: examples for the network's task.
        spec: the spec of the network.
        interface: how its images are prepared.
        recipe: the recipe with the augmentation.
        batch_size: images per batch.
        workers: number of processes that read images; 0: this process reads them.

    Returns:
        A loader of {"image": float32 (n, channels, height, width), normalised, "target", "broken": the images that
        could not be read, with the reason}. Call its `dataset.set_epoch` before each epoch. Targets are classes, int64
        (n,); classes of pixels, int64 (n, height, width); {"heatmaps": float32 (n, joints, height / 4, width / 4),
        "weights": float32 (n, joints)}; or, for networks that find several people, the target of `losses.people_loss`.

    Raises:
        InputError: there are fewer images than in one batch, all images are of one class, the masks have pixels of
            fewer than two classes, or the network takes neither 1 nor 3 channels.
    """
    if spec.bottom_up and not isinstance(examples, Stream):
        examples = people.as_images(examples, all_images=False)
    if not isinstance(examples, Stream) and len(examples) < batch_size:
        found = f"found {len(examples)} images of {examples.split}"
        raise InputError(f"{examples.source}: {found}, expected at least a batch of {batch_size}")
    check_classes_differ(examples)
    if isinstance(examples, Stream) or examples.task == "classification":
        return _classification_loader(examples, spec, interface, recipe, batch_size, workers)
    if examples.task == "segmentation":
        segmentation.check_masks(examples, least=2)
    augment: Callable[[Image.Image, Any], tuple[Tensor, Any]]
    if examples.task == "segmentation":
        augment = segmentation.mask_augmentation(spec, interface, recipe)
    else:
        augmentation = people.people_augmentation if spec.bottom_up else pose_augmentation.person_augmentation
        augment = augmentation(spec, interface, recipe, examples.labels)
    return DataLoader(
        TrainingSet(examples, spec, recipe, augment),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def evaluation_loader(
    examples: Examples | Stream,
    transform: Callable[[Image.Image], Tensor | np.ndarray],
    spec: ArchSpec,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Any]:
    """Return a loader of batches in order, with each image once.

    Args:
        examples: examples for the network's task.
        transform: a function from an image to the network's input; for pose, from a crop of the network's size, or
            from a whole image fitted to that size.
        spec: the spec of the network.
        batch_size: images per batch; the last batch and batches with broken images may have fewer.
        workers: number of processes that read images; 0: this process reads them.
        rank: the rank of this process.
        world: the number of processes; this one sees the images rank, rank + world, ... (a `Stream` divides itself).

    Returns:
        A loader of {"image": (n, ...) of the transform's type, "target", "broken": the images that could not be read,
        with the reason}. Targets are classes, int64 (n,); classes of pixels, a list of int64 (height, width), each of
        its mask's size; a list of `Crop`; or a list of `View` for networks that find several people. A batch may be
        empty.

    Raises:
        InputError: no mask has a labelled pixel, or a detector's boxes are given for a network that finds several
            people.
    """
    if spec.bottom_up and not isinstance(examples, Stream):
        examples = people.as_images(examples)
    if not isinstance(examples, Stream) and examples.task == "segmentation":
        segmentation.check_masks(examples, least=1)
    if isinstance(examples, Stream):
        dataset: Any = examples.dataset(spec.classes, batch_size=batch_size)
        dataset.transform = transform
        dataset.set_loader_cfg(num_workers=workers)
        order = None
    else:
        dataset = EvaluationSet(examples, transform, spec)
        order = range(rank, len(examples), world)
    return DataLoader(
        dataset,
        batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=collate_classes if examples.task == "classification" else collate_dense,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # without one, each pass draws from torch's own
    )


def _classification_loader(
    examples: Examples | Stream, spec: ArchSpec, interface: Interface, recipe: "Recipe", batch_size: int, workers: int
) -> DataLoader[Any]:
    mean, std = normalisation(spec, interface)
    size = recipe.train_size or (spec.input.height, spec.input.width)
    dataset: Any = (
        examples.dataset(spec.classes, training=True, batch_size=batch_size, seed=recipe.seed)
        if isinstance(examples, Stream)
        else TrainingSet(examples, spec, recipe)
    )
    loader: DataLoader[Any] = create_loader(
        dataset,
        (3, *size),
        batch_size,
        is_training=True,
        use_prefetcher=False,
        collate_fn=collate,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.aa,
        re_prob=recipe.reprob,
        re_mode="pixel",
        interpolation=interface.interpolation,
        mean=interface.mean,
        std=interface.std,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    if spec.input.channels == 1:  # colours are augmented before the image becomes grey
        steps = dataset.transform.transforms
        place = next(i for i, step in enumerate(steps) if isinstance(step, MaybeToTensor))
        steps[place : place + 2] = [v2.Grayscale(), steps[place], v2.Normalize(mean, std)]
    return loader


def check_classes_differ(examples: Examples | Stream) -> None:
    """Refuse to train on images of one class only: a network that always answers this class would be right.

    Raises:
        InputError: all images are of one class, as far as is known without reading them.
    """
    targets, names = known_targets(examples), examples.labels.names
    alone = np.unique(targets).tolist() if targets is not None else []
    if examples.task == "classification" and (len(alone) == 1 or len(names) == 1):
        name = quoted(names[alone[0] if alone else 0]) if names else alone[0]
        where = f"{examples.source}: split {examples.split}"
        raise InputError(f"{where}: found images of the class {name} alone, expected two classes or more to learn from")


def check_classes(target: Target, classes: int, name: str) -> None:
    """Refuse a target, or a mask with pixels, that is not the number of a class.

    Args:
        target: the target of an example; persons pass.
        classes: the number of classes; 0: all targets pass.
        name: the name of the example in the message.

    Raises:
        LoadingError: the target has a class that is not from 0 to `classes` - 1.
    """
    if isinstance(target, Person | People) or not classes:
        return
    largest = int(np.max(target, where=target != IGNORE, initial=0)) if isinstance(target, np.ndarray) else target
    check_class(largest, classes, name)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the random generators of Python, NumPy and torch (CPU) in a `with` block, and restore them afterwards.

    In workers they are not restored: nothing else draws random numbers there, and NumPy's state is slow to copy.
    """
    states = None if get_worker_info() else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(sum(number << (64 * place) for place, number in enumerate(numbers)))  # its seed may have any size
    np.random.seed(random.getrandbits(32))
    torch.default_generator.manual_seed(random.getrandbits(63))
    try:
        yield
    finally:
        if states:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


def collate(rows: Sequence[tuple[Any, ...]]) -> LoadedBatch:
    """Join rows of a training set into a batch."""
    images, targets, *broken = zip(*rows, strict=True)
    return {
        "image": default_collate(list(images)),
        "target": default_collate(list(targets)),
        "broken": [name for row in broken for names in row for name in names],
    }


def collate_classes(rows: Sequence[tuple[Any, ...] | str]) -> LoadedBatch:
    """Join rows of an evaluation set into a batch for a classifier; strings stand for broken images."""
    whole = [row for row in rows if not isinstance(row, str)]
    return _whole(rows) | {"target": torch.tensor([row[1] for row in whole], dtype=torch.int64)}


def collate_dense(rows: Sequence[tuple[Any, ...] | str]) -> LoadedBatch:
    """Join rows of an evaluation set into a batch for segmentation or pose, with a list of targets."""
    targets = [row[1] for row in rows if not isinstance(row, str)]
    if targets and isinstance(targets[0], Tensor):
        # All masks share one storage: otherwise each needs a file descriptor on its way from a worker.
        flat = torch.cat([mask.flatten() for mask in targets])
        parts = torch.split(flat, [mask.numel() for mask in targets])
        targets = [part.view(mask.shape) for part, mask in zip(parts, targets, strict=True)]
    return _whole(rows) | {"target": targets}


def _whole(rows: Sequence[tuple[Any, ...] | str]) -> LoadedBatch:
    images = [torch.as_tensor(row[0]) for row in rows if not isinstance(row, str)]
    return {
        "image": default_collate(images) if images else torch.empty(0),
        "target": None,
        "broken": [row for row in rows if isinstance(row, str)],
    }
