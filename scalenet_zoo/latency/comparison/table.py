"""What a comparison gives: rows of figures, how they were measured, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task
    from scalenet_zoo.core.backends import Precision
    from scalenet_zoo.core.timing import MeasuredLatency, Ratio, Timing

METRIC_NAMES: Mapping[Task, str] = {"classification": "top-1", "segmentation": "mIoU", "pose": "AP"}
"""What the accuracy of each task is called; `inference.metrics.PRIMARY` has its name among the figures."""


@dataclass(frozen=True)
class ComparedNetwork:
    """A row: one network in one precision on one back end. What is not known (yet), or does not apply, is None.

    Attributes:
        model: the network's name, or the exported file's.
        task: of the network.
        backend: that it runs on.
        precision: of weights and activations.
        device: the name of the GPU, or CPU.
        threads: CPU threads that an operator may use.
        batch: images of one inference.
        height: of the images, in pixels.
        width: of them.
        macs: of one image.
        params: of the network.
        file: that runs, given or in the cache; of torch, the folder with the weights.
        file_bytes: its size, external data included; of torch, of the weights in fp32.
        memory_bytes: see `peak_memory`.
        latency: of one inference.
        ratio: of it to the first row that has one.
        accuracy: the task's figure (top-1, mIoU, AP), from 0 to 1.
        accuracy_error: its standard error.
        images: that it was measured on.
        noun: what is counted as an image: images, or persons.
        metrics: all figures of the evaluation.
        agreement: the share of decisions that are those of the same network in fp32, as it is compared with.
        error: why there is no more than this, in one line.
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
        data: the data set, as the user wrote it.
        split: of it.
        limit: images that were taken of it, spread evenly; None: all.
        weights: what networks have: published ones, a file's, their own, or initial ones.
        calibration: the folder of images for int8; None: the training split's.
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
    """Rows, in the order of models, precisions and back ends.

    Attributes:
        machine: what this machine is.
        settings: how it was made.
        rows: of all combinations, those that cannot be made or run here included.
    """

    machine: Mapping[str, Any]
    settings: ComparisonSettings
    rows: tuple[ComparedNetwork, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
