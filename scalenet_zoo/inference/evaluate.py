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
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.pose import Persons
from scalenet_zoo.data.segmentation import in_tiles
from scalenet_zoo.inference.metrics import Metrics, make_meter
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.inference.prepare import ExportedFile, Inference, prepare_inference
from scalenet_zoo.inference.tiling import run_tiles

_log = logging.getLogger(__name__)

OnOutputs = Callable[[Tensor, Any], None]
"""Told each batch's outputs, in the order of the data's classes or joints, and its targets, as a meter is."""


@dataclass(frozen=True)
class Matching:
    """How the classes or joints of data lie among those of a network.

    Attributes:
        order: the network's outputs in the order of the data: first those of the data's own classes, then the others.
        own: how many classes the data have.
    """

    order: tuple[int, ...]
    own: int

    @property
    def is_same(self) -> bool:
        """Whether each number means the same to both."""
        return self.order == tuple(range(len(self.order)))


@dataclass(frozen=True)
class Evaluation:
    """What a network is worth on a data set.

    Attributes:
        task: of the network.
        model: its name.
        data: the data set, as the user wrote it.
        split: of it.
        images: that were looked at; of pose, persons, unless the network finds them itself.
        broken: images that could not be read, and why.
        metrics: shares from 0 to 1; see the meters in `metrics.py`.
        seconds: from the first image to the last.
        noun: what is counted as an image: images, or persons.
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
        """For JSON."""
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
    """Measure how good a network is.

    Images are prepared as the network's `pretrained_cfg`, or the file's metadata, say. Classes and joints are found by
    their names, see `match_data`. Boxes of persons are the data set's own, or a detector's where `open_data` was given
    those.

    Args:
        network: one of ours, or an ONNX file or engine, open.
        examples: of `open_data`.
        batch_size: images at once; a file gets no more than it takes, and a batch too small for it is filled up.
        workers: processes that read images.
        device: where a network is moved to; None: it stays.
        dtype: that a network computes in where that is safe (autocast); None: that of its weights.
        flip: take the mean of the outputs for each image and its mirror image.
        overlap: show segmentation networks images at their own size, in tiles that overlap by this share of a tile
            (`tiling.run_tiles`); None: whole, squeezed to the network's input.
        rank: of this process among those of torch.distributed, which share the work and join their figures.
        world: how many these are.
        broken_limit: images that may be unreadable.
        on_progress: told what is being done, how much of it is done, and how much there is.
        on_outputs: told what the meter is told.

    Raises:
        InputError: the data do not fit the network or have classes that it does not know, too many images are broken,
            or there are none.
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
            "%s: has %d of the %d classes that %s knows; an image taken for one of the others counts as wrong",
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
    training = isinstance(network, nn.Module) and network.training
    start = time.perf_counter()
    try:
        if isinstance(network, nn.Module):
            network.eval()
        with torch.inference_mode():
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
    finally:
        if isinstance(network, nn.Module):
            network.train(training)
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
    """A batch's outputs and targets; of an image in tiles, band by band."""
    if overlap is None:
        yield inference.run(batch["image"]), batch["target"]
        return
    (image,), (mask,) = batch["image"], batch["target"]
    for top, output in run_tiles(inference, Image.fromarray(image.numpy()), overlap, at_once):
        yield output[None], [mask[top : top + output.shape[-2]]]


def _as_bytes(image: Image.Image) -> np.ndarray:
    return np.array(image)


def known_labels(inference: Inference) -> tuple[Labels, bool]:
    """What a network calls its classes or joints, and whether that is but a guess: of 1000 classes, ImageNet's."""
    names, labels = inference.names, inference.labels
    if labels.names == names:
        return labels, False
    if inference.spec.classes == len(imagenet_labels().names) and names == imagenet_labels().names:
        return imagenet_labels(), not labels.names
    return Labels(names=names), False


def match_data(spec: ArchSpec, labels: Labels, examples: Examples | Stream, guessed: bool = False) -> Matching:
    """Find the classes or joints of data among those of a network, by name: numbers differ from data set to data set.

    A network may have classes that the data lack; joints are to be the same on both sides. Where one side has no names,
    numbers are taken as they are.

    Args:
        spec: of the network.
        labels: the network's, or none.
        examples: the data.
        guessed: the labels may be wrong: data with as many other classes are taken by number, with a notice.

    Raises:
        InputError: data and network are for different tasks; there are more or fewer classes or joints than the
            network has, where they have no names; or it does not know one of them.
    """
    theirs = examples.labels
    noun, plural = ("joint", "joints") if spec.task == "pose" else ("class", "classes")
    if examples.task != spec.task:
        raise InputError(f"{examples.source}: found data for {examples.task}, expected {spec.task} as {spec.name} does")
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
                    " it once, to be matched by name"
                )
        raise InputError(
            f"{examples.source}: found the {noun} {quoted(unknown[0])}{more}, which {spec.name} does not know,"
            f" expected among {known}"
        )
    if unknown or not found:
        if labels.names:
            reason = (
                f"has no names of {plural}" if not theirs.names else f"has others than ImageNet ({quoted(unknown[0])})"
            )
            _log.warning("%s: %s: they are matched to those of %s by number", examples.source, reason, spec.name)
        return Matching(tuple(range(spec.classes)), spec.classes)
    numbers = [number for number in found if number is not None]
    return Matching((*numbers, *sorted(set(range(spec.classes)) - set(numbers))), len(numbers))


def check_labels(spec: ArchSpec, labels: Labels, examples: Examples | Stream) -> None:
    """Insist that a network's classes or joints are those of data, in the same order.

    Args:
        spec: of the network.
        labels: the network's, or none.
        examples: the data.

    Raises:
        InputError: they are not, see `match_data`.
    """
    ours, theirs = labels.names, examples.labels.names
    if examples.task == spec.task and len(ours) == len(theirs) == spec.classes:
        numbers = match_labels(labels, examples.labels)
        for place, (number, name, expected) in enumerate(zip(numbers, theirs, ours, strict=True)):
            if number != place:
                found = f"found {quoted(name)} as {'joint' if spec.task == 'pose' else 'class'} {place}"
                raise InputError(f"{examples.source}: {found}, expected {quoted(expected)} as {spec.name} has")
    elif (own := match_data(spec, labels, examples).own) < spec.classes:
        raise InputError(f"{examples.source}: found {own} of the {spec.classes} classes that {spec.name} has")


def _flip_labels(ours: Labels, theirs: Labels, matching: Matching) -> Labels:
    """Labels whose `flip_pairs` count joints as the network does."""
    if ours.flip_pairs or matching.is_same:
        return ours if ours.flip_pairs else theirs
    pairs = tuple((matching.order[left], matching.order[right]) for left, right in theirs.flip_pairs)
    return ours.model_copy(update={"flip_pairs": pairs})


def _in_order(inference: Inference, matching: Matching) -> Inference:
    """The same with its outputs in the order of the data's classes or joints."""
    if matching.is_same:
        return inference
    count = len(matching.order)
    order = torch.tensor(matching.order, device=inference.device)

    def run(images: Tensor) -> Tensor:
        output = inference.run(images)
        if inference.form == "argmax":
            return order.argsort()[output.long()]
        sets = output.reshape(len(output), -1, count, *output.shape[2:])  # heatmaps, and tags, of all joints each
        return sets[:, :, order].flatten(1, 2)

    return replace(inference, run=run)


def _say_alone(examples: Examples | Stream, number: int) -> None:
    names = examples.labels.names
    name = quoted(names[number]) if number < len(names) else number
    _log.warning(
        "%s: split %s shows the class %s alone: whoever always names it is right", examples.source, examples.split, name
    )


def _check_stream(examples: Examples | Stream, images: int, broken: BrokenImages) -> None:
    """Look whether a stream had as many images as it says: its reader passes over those that it cannot read.

    Raises:
        InputError: more are missing than may be broken.
    """
    expected = examples.images if isinstance(examples, Stream) else None
    missing = (expected or 0) - images - len(broken)
    if missing <= 0:
        return
    said = f"{examples.source}: found {images} of {expected} images that its description tells of"
    if missing + len(broken) > broken.limit:
        raise InputError(f"{said}, expected at most {broken.limit} to be missing or broken")
    _log.warning("%s: the others cannot be read", said)
