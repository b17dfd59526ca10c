"""Evaluation of a network, or of its exported file, on a data set.

examples --evaluation_loader--> images, targets --network or file--> outputs --meter--> metrics
    |                                                                   |
    +-- labels --match_data-- labels of the network --> in the order of the data's classes or joints
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scalenet_zoo.arch.labels import Labels, imagenet_labels, match_labels, spelling
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.distributed import all_gather
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages, complaint
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.pose import Persons
from scalenet_zoo.data.segmentation import in_tiles
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.metrics import Metrics, make_meter
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.inference.prepare import ExportedFile, Inference, prepare_inference
from scalenet_zoo.inference.tiling import run_tiles
from scalenet_zoo.networks.modes import evaluation_mode

_log = logging.getLogger(__name__)

OnOutputs = Callable[[Tensor, Any], None]
"""A function called for each batch, with its outputs in the order of the data's classes or joints, and its targets."""


@dataclass(frozen=True)
class Matching:
    """The assignment of a network's outputs to the classes or joints of data.

    Attributes:
        order: indices of the network's outputs: first those of the data's classes or joints, in the data's order, then
            all others.
        own: the number of the data's classes or joints.
    """

    order: tuple[int, ...]
    own: int

    @property
    def is_same(self) -> bool:
        """Whether the network's outputs are already in the order of the data."""
        return self.order == tuple(range(len(self.order)))


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a network on a data set.

    Attributes:
        task: the task of the network.
        model: the name of the network.
        data: the data set, as the user wrote it.
        split: the split of the data set.
        images: the number of images; for a pose network that sees one person at a time, the number of persons.
        broken: one message for each image that could not be read, with the reason.
        metrics: shares from 0 to 1; the meters in `metrics.py` describe them.
        seconds: the time from the first image to the last.
        noun: what `images` counts: images or persons.
    """

    task: Task
    model: str
    data: str
    split: str
    images: int
    broken: tuple[str, ...]
    metrics: Metrics
    seconds: float
    noun: str = "images"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "noun"}


def evaluate_network(
    network: "nn.Module | ExportedFile",
    examples: Examples | Stream,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    flip: bool = False,
    overlap: float | None = None,
    rank: int = 0,
    world: int = 1,
    broken_limit: int = 100,
    on_progress: OnProgress = lambda what, done, total: None,
    on_outputs: OnOutputs = lambda output, targets: None,
) -> Evaluation:
    """Evaluate a network on a data set.

    Images are prepared as the network's `pretrained_cfg` or the file's metadata describes. Classes and joints are
    matched by name, see `match_data`. The boxes of persons are the data set's own, or a detector's if `open_data`
    received them.

    Args:
        network: a network, or an open exported file.
        examples: the examples, from `open_data`.
        batch_size: the number of images per batch; an exported file limits it, and batches that are too small for the
            file are filled up.
        workers: the number of processes that read images.
        device: the device to move a network to; None: it stays where it is.
        dtype: the type in which a network computes where that is safe (autocast); None: the type of its weights.
        flip: take the mean of the outputs for each image and its mirror image.
        overlap: show a segmentation network images at their own resolution, in tiles that overlap by this share of a
            tile (`tiling.run_tiles`); None: show it whole images, squeezed to its input.
        rank: the rank of this process in torch.distributed, whose processes share the work and merge their metrics.
        world: the number of these processes.
        broken_limit: the most images that may be unreadable.
        on_progress: called with what is being done, how much of it is done, and the total.
        on_outputs: called with the same outputs and targets as the meter.

    Raises:
        InputError: the data do not fit the network or have classes that it does not know, there are no images, or too
            many of them are broken.
        WeightsError: outputs are not finite.
    """
    inference = prepare_inference(network, device, dtype)
    spec = inference.spec
    labels, guessed = known_labels(inference)
    matching = match_data(spec, labels, examples, guessed)
    if flip:
        inference = inference.mirrored(_flip_labels(labels, examples.labels, matching))
    inference = _in_order(inference, matching)
    if matching.own < spec.classes and rank == 0:
        _log.warning(
            "%s: has %d of the %d classes that %s knows; an image assigned to one of the others counts as wrong",
            examples.source,
            matching.own,
            spec.classes,
            spec.name,
        )
    if overlap is not None and not isinstance(examples, Stream):
        examples = in_tiles(examples)
    at_once = inference.batch_size(batch_size)
    loader = (
        evaluation_loader(examples, inference.transform, spec, at_once, workers, rank, world)
        if overlap is None
        else evaluation_loader(examples, _as_bytes, spec, 1, workers, rank, world)
    )
    truth = examples.truth if isinstance(examples, Persons) else None
    if truth and spec.bottom_up:
        raise InputError(f"{spec.name}: found boxes of persons, expected none: it finds the persons itself")
    meter = make_meter(spec, examples.labels, inference.form, inference.device, truth, matching.own)
    broken, images = BrokenImages(broken_limit), 0
    finite = torch.ones((), dtype=torch.bool, device=inference.device)
    start = time.perf_counter()
    with evaluation_mode(network), torch.inference_mode():
        for done, batch in enumerate(loader, 1):
            broken.add(batch["broken"])
            if len(batch["image"]):
                for output, targets in _run(inference, batch, overlap, at_once):
                    finite &= output.isfinite().all()
                    meter.update(output, targets)
                    on_outputs(output, targets)
                images += len(batch["image"])
            on_progress(f"evaluating {spec.name}", done, done if isinstance(examples, Stream) else len(loader))
        shares = all_gather((images, broken.names, bool(finite)))
        images = sum(count for count, _, _ in shares)
        broken.add(name for _, names, _ in shares for name in names)
        if not images and len(broken):
            raise InputError(complaint(broken.names, broken_limit))
        if not images and isinstance(examples, Stream):
            raise InputError(examples.complaint)
        if not images:
            raise InputError(f"{examples.source}: found no images in the split {examples.split}, expected some")
        check_finite(spec, all(sound for _, _, sound in shares))
        metrics = meter.compute()
        alone = meter.only_class()
        if alone is not None and rank == 0:
            _say_alone(examples, alone)
        _check_stream(examples, images, broken)
    seconds = time.perf_counter() - start
    return Evaluation(
        spec.task,
        spec.name,
        examples.source,
        examples.split,
        images,
        tuple(broken.names),
        metrics,
        seconds,
        "persons" if spec.task == "pose" and not spec.bottom_up else "images",
    )


def _run(
    inference: Inference, batch: dict[str, Any], overlap: float | None, at_once: int
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the outputs and targets of a batch, or of each band of rows of an image in tiles."""
    if overlap is None:
        yield inference.run(batch["image"]), batch["target"]
        return
    (image,), (mask,) = batch["image"], batch["target"]
    for top, output in run_tiles(inference, Image.fromarray(image.numpy()), overlap, at_once):
        yield output[None], [mask[top : top + output.shape[-2]]]


def _as_bytes(image: Image.Image) -> np.ndarray:
    return np.array(image)


def known_labels(inference: Inference) -> tuple[Labels, bool]:
    """Return a network's labels, and whether they are a guess: ImageNet's labels for 1000 classes without names."""
    names, labels = inference.names, inference.labels
    if labels.names == names:
        return labels, False
    if inference.spec.classes == len(imagenet_labels().names) and names == imagenet_labels().names:
        return imagenet_labels(), not labels.names
    return Labels(names=names), False


def match_data(spec: ArchSpec, labels: Labels, examples: Examples | Stream, guessed: bool = False) -> Matching:
    """Match the classes or joints of data with those of a network by name, since numbers differ between data sets.

    A network may have classes that the data lack; joints must be the same on both sides. If one side has no names,
    classes and joints are matched by number instead.

    Args:
        spec: the spec of the network.
        labels: the labels of the network; they may be empty.
        examples: the data.
        guessed: whether the labels are a guess. If they are, and the data have the same number of classes but other
            names, the classes are matched by number, and a warning is logged.

    Raises:
        InputError: the data and the network are for different tasks, the network has no classifier, the numbers of
            classes or joints differ and names do not match them, or the network does not know one of the names.
    """
    theirs = examples.labels
    noun, plural = ("joint", "joints") if spec.task == "pose" else ("class", "classes")
    if examples.task != spec.task:
        raise InputError(
            f"{examples.source}: found data for {examples.task}, expected data for {spec.task}, the task of {spec.name}"
        )
    if not spec.classes:
        raise InputError(f"{spec.name}: found a network without a classifier, expected one to evaluate")
    found = match_labels(labels, theirs) if labels.names and theirs.names else []
    same_count = len(theirs.names) == spec.classes
    unknown = [name for name, number in zip(theirs.names, found, strict=False) if number is None]
    wrong = guessed and len(unknown) == len(found)  # the guess
    if theirs.names and not same_count and (not found or wrong or (noun == "joint" and not unknown)):
        raise InputError(
            f"{examples.source}: found {len(theirs.names)} {plural}, expected {spec.classes} as {spec.name} has"
        )
    if unknown and not (guessed and same_count):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        known = ", ".join(labels.names[:5]) + (", ..." if len(labels.names) > 5 else "")
        for owner, names in ((examples.source, theirs.names), (spec.name, labels.names)):
            if list(map(spelling, names)).count(spelling(unknown[0])) > 1:
                raise InputError(
                    f"{examples.source}: found the {noun} {quoted(unknown[0])} more than once in {owner}, expected"
                    f" it once: {plural} are matched by name"
                )
        raise InputError(
            f"{examples.source}: found the {noun} {quoted(unknown[0])}{more}, which {spec.name} does not know,"
            f" expected one of {known}"
        )
    if unknown or not found:
        if labels.names:
            reason = (
                f"has no names for its {plural}"
                if not theirs.names
                else f"has other {plural} than ImageNet ({quoted(unknown[0])})"
            )
            _log.warning("%s: %s; they are matched to those of %s by number", examples.source, reason, spec.name)
        return Matching(tuple(range(spec.classes)), spec.classes)
    numbers = [number for number in found if number is not None]
    return Matching((*numbers, *sorted(set(range(spec.classes)) - set(numbers))), len(numbers))


def check_labels(spec: ArchSpec, labels: Labels, examples: Examples | Stream) -> None:
    """Check that a network has the same classes or joints as the data, in the same order.

    Args:
        spec: the spec of the network.
        labels: the labels of the network; they may be empty.
        examples: the data.

    Raises:
        InputError: the classes or joints, or their order, differ; see also `match_data`.
    """
    ours, theirs = labels.names, examples.labels.names
    if examples.task == spec.task and len(ours) == len(theirs) == spec.classes:
        numbers = match_labels(labels, examples.labels)
        for place, (number, name, expected) in enumerate(zip(numbers, theirs, ours, strict=True)):
            if number != place:
                found = f"found {quoted(name)} as {'joint' if spec.task == 'pose' else 'class'} {place}"
                raise InputError(f"{examples.source}: {found}, expected {quoted(expected)} as {spec.name} has")
    elif (own := match_data(spec, labels, examples).own) < spec.classes:
        raise InputError(
            f"{examples.source}: found {own} of the {spec.classes} classes that {spec.name} has, expected all of them"
        )


def _flip_labels(ours: Labels, theirs: Labels, matching: Matching) -> Labels:
    """Return labels whose `flip_pairs` refer to the joints by the network's numbers."""
    if ours.flip_pairs or matching.is_same:
        return ours if ours.flip_pairs else theirs
    pairs = tuple((matching.order[left], matching.order[right]) for left, right in theirs.flip_pairs)
    return ours.model_copy(update={"flip_pairs": pairs})


def _in_order(inference: Inference, matching: Matching) -> Inference:
    """Return an inference whose outputs are in the order of the data's classes or joints."""
    if matching.is_same:
        return inference
    count = len(matching.order)
    order = torch.tensor(matching.order, device=inference.device)

    def run(images: Tensor) -> Tensor:
        output = inference.run(images)
        if inference.form == "argmax":
            return order.argsort()[output.long()]
        sets = output.reshape(len(output), -1, count, *output.shape[2:])  # sets of one output per class or joint
        return sets[:, :, order].flatten(1, 2)

    return replace(inference, run=run)


def _say_alone(examples: Examples | Stream, number: int) -> None:
    names = examples.labels.names
    name = quoted(names[number]) if number < len(names) else number
    _log.warning(
        "%s: split %s has only the class %s: always predicting it is always right",
        examples.source,
        examples.split,
        name,
    )


def _check_stream(examples: Examples | Stream, images: int, broken: BrokenImages) -> None:
    """Check that a stream had as many images as its description says, since its reader skips unreadable images.

    Raises:
        InputError: more images are missing or broken than the limit allows.
    """
    expected = examples.images if isinstance(examples, Stream) else None
    missing = (expected or 0) - images - len(broken)
    if missing <= 0:
        return
    said = f"{examples.source}: found {images} of the {expected} images in its description"
    if missing + len(broken) > broken.limit:
        raise InputError(f"{said}, expected at most {broken.limit} to be missing or broken")
    _log.warning("%s: the others cannot be read", said)
