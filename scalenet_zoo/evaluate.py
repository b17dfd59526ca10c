"""Evaluation of a network, or of its exported file, on a data set.

examples --evaluation_loader--> images, targets --network or file--> outputs --meter--> metrics
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scalenet_zoo.data import BrokenImages, Examples, Stream, evaluation_loader
from scalenet_zoo.data.pose import Persons
from scalenet_zoo.errors import InputError
from scalenet_zoo.inference import Inference, prepare
from scalenet_zoo.labels import Labels
from scalenet_zoo.metrics import Metrics, gather, make_meter
from scalenet_zoo.predict import check_finite
from scalenet_zoo.spec import ArchSpec, Task
from scalenet_zoo.tiling import run_tiles

if TYPE_CHECKING:
    from scalenet_zoo.export.verify import Exported


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
    """

    task: Task
    model: str
    data: str
    split: str
    images: int
    broken: tuple[str, ...]
    metrics: Metrics
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(
    network: "nn.Module | Exported",
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
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measure how good a network is.

    Images are prepared as the network's `pretrained_cfg`, or the file's metadata, say. Boxes of persons are the data
    set's own, or a detector's where `open_data` was given those.

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

    Raises:
        InputError: the data do not fit the network, too many images are broken, or there are none.
        WeightsError: outputs are not finite.
    """
    inference = prepare(network, device, dtype)
    spec = inference.spec
    check_labels(spec, inference.labels, examples)
    if flip:
        inference = inference.mirrored(inference.labels if inference.labels.flip_pairs else examples.labels)
    at_once = inference.batch_size(batch_size)
    loader = (
        evaluation_loader(examples, inference.transform, spec, at_once, workers, rank, world)
        if overlap is None
        else evaluation_loader(examples, _as_bytes, spec, 1, workers, rank, world)
    )
    truth = examples.truth if isinstance(examples, Persons) else None
    if truth and spec.bottom_up:
        raise InputError(f"{spec.name}: found boxes of persons, expected none: it finds the persons itself")
    meter = make_meter(spec, examples.labels, inference.form, inference.device, truth)
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
                    images += len(batch["image"])
                on_progress(f"evaluating {spec.name}", done, done if isinstance(examples, Stream) else len(loader))
            shares = gather((images, broken.names, bool(finite)))
            images = sum(count for count, _, _ in shares)
            broken.add(name for _, names, _ in shares for name in names)
            if not images:
                raise InputError(f"{examples.source}: found no images in the split {examples.split}, expected some")
            check_finite(spec, all(sound for _, _, sound in shares))
            metrics = meter.compute()
    finally:
        if isinstance(network, nn.Module):
            network.train(training)
    seconds = time.perf_counter() - start
    return Evaluation(
        spec.task, spec.name, examples.source, examples.split, images, tuple(broken.names), metrics, seconds
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


def check_labels(spec: ArchSpec, labels: Labels, examples: Examples | Stream) -> None:
    """Compare a network's classes or joints with those of data.

    Args:
        spec: of the network.
        labels: the network's, if it has some.
        examples: the data.

    Raises:
        InputError: they are for another task; there are more or fewer of them; joints have other names; or classes
            have the same names in another order.
    """
    ours, theirs = labels.names, examples.labels.names
    noun = "joint" if spec.task == "pose" else "class"
    if examples.task != spec.task:
        raise InputError(f"{examples.source}: found data for {examples.task}, expected {spec.task} as {spec.name} does")
    if not spec.classes:
        raise InputError(f"{spec.name}: found a network without a classifier, expected one to evaluate")
    if theirs and len(theirs) != spec.classes:
        plural = "joints" if spec.task == "pose" else "classes"
        raise InputError(f"{examples.source}: found {len(theirs)} {plural}, expected {spec.classes} as {spec.name} has")
    if ours and theirs and ours != theirs and (spec.task == "pose" or set(ours) == set(theirs)):
        place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        raise InputError(
            f"{examples.source}: found {theirs[place]!r} as {noun} {place}, expected {ours[place]!r} as {spec.name} has"
        )
