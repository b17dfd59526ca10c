"""The result of a comparison: rows of figures, with their settings and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task
    from scalenet_zoo.core.backends import Precision
    from scalenet_zoo.core.timing import MeasuredLatency, Ratio, Timing

METRIC_NAMES: Mapping[Task, str] = {"classification": "top-1", "segmentation": "mIoU", "pose": "AP"}
"""The name of each task's accuracy for people; `inference.metrics.PRIMARY` has its key in the metrics."""


@dataclass(frozen=True)
class ComparedNetwork:
    """A row: one network in one precision on one back end. Values that are unknown or do not apply are None.

    Attributes:
        model: the name of the network or the exported file.
        task: the task of the network.
        backend: the back end that it runs on.
        precision: the precision of weights and activations.
        device: the name of the GPU, or CPU.
        threads: CPU threads that an operator may use.
        batch: images per inference.
        height: the height of the images in pixels.
        width: the width of the images in pixels.
        macs: multiply-adds for one image.
        params: the number of parameters.
        file: the file that runs, given or in the cache; for torch, the folder with the weights.
        file_bytes: the size of the file, external data included; for torch, the size of the weights in fp32.
        memory_bytes: the memory of the network; see `peak_memory`.
        latency: the latency of one inference in milliseconds.
        ratio: the latency as a multiple of that of the first row with a latency.
        accuracy: the task's metric (top-1, mIoU, AP), from 0 to 1.
        accuracy_error: the standard error of the accuracy.
        images: the number of images that it was measured on.
        noun: what counts as an image: images or persons.
        metrics: all metrics of the evaluation.
        agreement: the share of decisions that are equal to those of the same network in fp32.
        error: the reason why the row is incomplete, in one line.
    """

    model: str
    task: Task
    backend: str
    precision: Precision
    batch: int
    height: int
    width: int
    macs: int
    params: int
    device: str | None = None
    threads: int | None = None
    file: str | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None
    latency: MeasuredLatency | None = None
    ratio: Ratio | None = None
    accuracy: float | None = None
    accuracy_error: float | None = None
    images: int | None = None
    noun: str = "images"
    metrics: Mapping[str, Any] | None = None
    agreement: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ComparisonSettings:
    """How a table was made.

    Attributes:
        data: the data set, as the user named it.
        split: the split of the data set.
        limit: the most images that were taken from the split, spread evenly; None: all.
        weights: the networks' weights: published, from a file, their own, or initial.
        calibration: the folder of calibration images for int8; None: the training split.
        timing: how long and how often each network was timed.
    """

    data: str
    split: str
    limit: int | None
    weights: str
    calibration: str | None
    timing: Timing


@dataclass(frozen=True)
class ComparisonTable:
    """The rows of a comparison, in the order of models, precisions and back ends.

    Attributes:
        machine: the description of this machine.
        settings: how the table was made.
        rows: the rows of all combinations, including those that cannot be made or run here.
    """

    machine: Mapping[str, Any]
    settings: ComparisonSettings
    rows: tuple[ComparedNetwork, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to values for JSON."""
        return asdict(self)
