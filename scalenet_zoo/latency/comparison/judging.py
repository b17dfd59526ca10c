"""How good what is timed is: accuracy with its standard error, and all decisions, to compare with those of fp32."""

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
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Crop, Examples, known_classes
from scalenet_zoo.export.inference import file_inference
from scalenet_zoo.export.metadata import Metadata, Output
from scalenet_zoo.inference.decode import find_joints
from scalenet_zoo.inference.metrics import PRIMARY, Meter, Metrics, Segmentation, make_meter
from scalenet_zoo.inference.prepare import Inference
from scalenet_zoo.latency.comparison.running import OpenNetwork
from scalenet_zoo.models.evaluation import evaluate

GROUPS = 20
"""Of images, each left out once to see how much a figure varies with them (the delete-a-group jackknife)."""
CELLS = 1.01
"""How far apart, in cells of the heatmap and rounding aside, two joints may lie that count as one decision."""


@dataclass(frozen=True)
class Judgement:
    """What a network is worth on a data set.

    Attributes:
        metric: the task's figure.
        accuracy: its value, from 0 to 1.
        error: its standard error, of which images happen to be in the data set; None: there are too few of them.
        images: that were looked at.
        noun: what is counted as an image: images, or persons.
        decisions: on all of them, in their order.
        metrics: all figures.
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
    """A network as it is timed, for `evaluate`: what is judged is what runs on the back end.

    Attributes:
        metadata: of the network, or of its file.
        opened: on the back end.
    """

    metadata: Metadata
    opened: OpenNetwork

    def inference(self) -> Inference:
        """The network, ready for batches of as many images as it is timed with."""
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
    """What a network decides on each image: its class, its pixels' classes, or its joints.

    Args:
        spec: of the network.
        form: of its outputs.
    """

    def __init__(self, spec: ArchSpec, form: Output) -> None:
        self.spec, self.form = spec, form
        self._parts: list[np.ndarray] = []

    def add(self, output: Tensor) -> None:
        """Take in a batch of outputs."""
        if self.spec.task == "pose":
            maps = output[:, : self.spec.classes] if self.spec.bottom_up else output
            decided = find_joints(maps.float().contiguous()) if self.form == "raw" else output
            self._parts.append(decided.cpu().numpy().astype(np.float32))
            return
        decided = output if self.form == "argmax" else output.argmax(1)
        smallest: type = np.uint8 if self.spec.classes <= 256 else np.int32
        self._parts.append(decided.cpu().numpy().astype(smallest))

    def agreement(self, other: Decisions) -> float:
        """The share of equal decisions, from 0 to 1, as `export.verify.agree` counts them.

        Of a segmentation it is the mean overlap of the classes' areas; two joints at most one cell of the heatmap apart
        are equal.
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
    """Evaluate a network.

    Args:
        metadata: of the network, or of its file.
        opened: on the back end that it is timed on.
        examples: of its task.
        workers: processes that read images.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        InputError: the data do not fit the network, too many images are broken, or there are none.
        WeightsError: outputs are not finite.
    """
    spec, form = metadata.spec, metadata.options.output
    decisions = Decisions(spec, form)
    groups = LeftOut(spec, examples, form)

    def take(output: Tensor, targets: Any) -> None:  # noqa: ANN401 - as meters
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
    """The standard error of a share of so many images."""
    return float((share * (1 - share) / count) ** 0.5)


class LeftOut:
    """Outputs of a dense network by groups of images, for the standard error of figures that are no mean over images.

    Args:
        spec: of the network.
        examples: the data.
        form: of the outputs.
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
        """Take in a batch; persons of one image go together."""
        for place, target in enumerate(targets if self._is_dense else ()):
            image = target.person.image_id if isinstance(target, Crop) else (len(self._images),)
            group = self._images.setdefault(image, len(self._images)) % GROUPS
            self._meters.setdefault(group, self._make()).update(output[place : place + 1], [target])

    def error(self, metric: str) -> float | None:
        """The standard error of a figure: by how much it varies as one group after the other is left out.

        None: there are too few images.
        """
        meters = list(self._meters.values())
        if len(meters) < 2:
            return None
        figures = []
        for i in range(len(meters)):
            try:
                figure = self._joined(meters[:i] + meters[i + 1 :]).compute()[metric]
            except InputError:  # the others show nothing that is labelled
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
