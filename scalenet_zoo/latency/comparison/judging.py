"""The judgement of what was timed: its accuracy with the standard error, and its decisions for comparison with fp32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.examples import Crop, Examples, known_classes
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.export.inference import file_inference
from scalenet_zoo.export.metadata import Metadata, Output
from scalenet_zoo.inference.decode import find_joints
from scalenet_zoo.inference.metrics import PRIMARY, Meter, Metrics, Segmentation, make_meter
from scalenet_zoo.inference.prepare import Inference
from scalenet_zoo.latency.comparison.running import OpenNetwork
from scalenet_zoo.models.evaluation import evaluate

GROUPS = 20
"""The number of groups of images, each left out once, for standard errors (the delete-a-group jackknife)."""
CELLS = 1.01
"""The largest distance of two joints that count as equal: one cell of the heatmap, with room for rounding."""


@dataclass(frozen=True)
class Judgement:
    """The quality of a network on a data set.

    Attributes:
        metric: the key of the task's metric.
        accuracy: the value of the metric, from 0 to 1.
        error: its standard error due to the choice of images; None: there are too few images.
        images: the number of images that were judged.
        noun: what counts as an image: images or persons.
        decisions: the decisions on all images, in their order.
        metrics: all metrics.
    """

    metric: str
    accuracy: float
    error: float | None
    images: int
    noun: str
    decisions: Decisions
    metrics: Metrics


@dataclass(frozen=True)
class RunAsTimed:
    """A network in the form in which it was timed, for `evaluate`: the back end itself is judged.

    Attributes:
        metadata: the metadata of the network or its file.
        opened: the network, open on the back end.
    """

    metadata: Metadata
    opened: OpenNetwork

    def inference(self) -> Inference:
        """Make the network ready for batches of the size with which it is timed."""
        batch = (len(self.opened.images),) * 3
        options = self.metadata.options.model_copy(update={"batch": batch})
        return file_inference(replace(self.metadata, options=options), self._run)

    def _run(self, images: np.ndarray) -> np.ndarray:
        with torch.cuda.stream(self.opened.runner.stream):
            self.opened.images.copy_(torch.from_numpy(images))
        output = self.opened.runner()
        dtype = np.int64 if self.metadata.options.output == "argmax" else np.float32
        return output.astype(dtype, copy=True)  # the runner's own memory holds the next output


class Decisions:
    """A network's decisions on images: the class of each image, the classes of its pixels, or its joints.

    Args:
        spec: the spec of the network.
        form: the form of its outputs.
    """

    def __init__(self, spec: ArchSpec, form: Output) -> None:
        self.spec, self.form = spec, form
        self._parts: list[np.ndarray] = []

    def add(self, output: Tensor) -> None:
        """Add the decisions of a batch of outputs."""
        if self.spec.task == "pose":
            maps = output[:, : self.spec.classes] if self.spec.bottom_up else output
            decided = find_joints(maps.float().contiguous()) if self.form == "raw" else output
            self._parts.append(decided.cpu().numpy().astype(np.float32))
            return
        decided = output if self.form == "argmax" else output.argmax(1)
        smallest: type = np.uint8 if self.spec.classes <= 256 else np.int32
        self._parts.append(decided.cpu().numpy().astype(smallest))

    def agreement(self, other: Decisions) -> float:
        """Compute the share of equal decisions, from 0 to 1, as `export.verify.agree` does.

        For segmentation, it is the mean overlap of the classes' areas. Two joints are equal if they are at most one
        cell of the heatmap apart.
        """
        ours, theirs = np.concatenate(self._parts), np.concatenate(other._parts)
        if self.spec.task == "classification":
            return float((ours == theirs).mean())
        channels, *cells = self.spec.trace.shapes[self.spec.trace.output]
        if self.spec.task == "pose":
            apart = np.abs(ours - theirs)[..., :2] * np.array(cells[::-1])
            return float((apart <= CELLS).all(-1).mean())
        same, all_ours, all_theirs = (
            np.bincount(classes.ravel(), minlength=channels) for classes in (ours[ours == theirs], ours, theirs)
        )
        either = all_ours + all_theirs - same
        return float((same[either > 0] / either[either > 0]).mean())


def judge(
    metadata: Metadata,
    opened: OpenNetwork,
    examples: Examples | Stream,
    workers: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Judgement:
    """Evaluate a network on the back end that it is timed on.

    Args:
        metadata: the metadata of the network or its file.
        opened: the network, open on the back end.
        examples: the data, for the network's task.
        workers: the number of processes that read images.
        on_progress: reports the current task, the steps done and the number of steps.

    Raises:
        InputError: the data do not fit the network, too many images are unreadable, or there are none.
        WeightsError: outputs are not finite.
    """
    spec, form = metadata.spec, metadata.options.output
    decisions = Decisions(spec, form)
    groups = LeftOut(spec, examples, form)

    def take(output: Tensor, targets: Any) -> None:  # noqa: ANN401 - as for meters
        decisions.add(output)
        groups.update(output, targets)

    found = evaluate(
        RunAsTimed(metadata, opened),
        examples,
        batch_size=len(opened.images),
        workers=workers,
        on_progress=on_progress,
        on_outputs=take,
    )
    metric = PRIMARY[spec.task]
    accuracy = found.metrics[metric]
    assert isinstance(accuracy, float)
    error = share_error(accuracy, found.images) if spec.task == "classification" else groups.error(metric)
    return Judgement(metric, accuracy, error, found.images, found.noun, decisions, found.metrics)


def share_error(share: float, count: int) -> float:
    """Compute the standard error of a share of `count` images."""
    return float((share * (1 - share) / count) ** 0.5)


class LeftOut:
    """A dense network's outputs by groups of images, for standard errors of metrics that are not means over images.

    Args:
        spec: the spec of the network.
        examples: the data.
        form: the form of the outputs.
    """

    def __init__(self, spec: ArchSpec, examples: Examples | Stream, form: Output) -> None:
        own = known_classes(examples.labels, spec.classes)
        self._make: Callable[[], Meter] = lambda: make_meter(spec, examples.labels, form, own=own)
        self._is_dense = spec.task != "classification"
        self._meters: dict[int, Meter] = {}
        self._images: dict[object, int] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def update(self, output: Tensor, targets: Sequence[Any]) -> None:
        """Add a batch; all people of one image go into the same group."""
        for place, target in enumerate(targets if self._is_dense else ()):
            image = target.person.image_id if isinstance(target, Crop) else (len(self._images),)
            group = self._images.setdefault(image, len(self._images)) % GROUPS
            self._meters.setdefault(group, self._make()).update(output[place : place + 1], [target])

    def error(self, metric: str) -> float | None:
        """Compute the standard error of a metric from its values with each group left out (the jackknife).

        Returns:
            The standard error; None: there are too few images.
        """
        meters = list(self._meters.values())
        if len(meters) < 2:
            return None
        figures = []
        for i in range(len(meters)):
            try:
                figure = self._joined(meters[:i] + meters[i + 1 :]).compute()[metric]
            except InputError:  # the other groups have no labels
                return None
            assert isinstance(figure, float)
            figures.append(figure)
        return float(np.sqrt((len(figures) - 1) * np.var(figures)))

    def _joined(self, meters: Sequence[Any]) -> Meter:
        if isinstance(meters[0], Segmentation):
            whole = copy.deepcopy(meters[0])
            for meter in meters[1:]:
                whole.confusion.confmat = whole.confusion.confmat + meter.confusion.confmat
            return whole
        joined: Any = self._make()
        joined.found = [one for meter in meters for one in meter.found]
        return joined  # type: ignore[no-any-return]
