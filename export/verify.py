"""The check of every export before it is reported as done: outputs and decisions, compared with the network's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import torch
from torch import nn

from scalenet_zoo.arch.spec import Task, unwrapped
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import VerificationError
from scalenet_zoo.core.files import scratch_folder
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.graph_check import check_graph
from scalenet_zoo.export.inputs import file_input, network_input
from scalenet_zoo.export.metadata import Metadata, OnnxOptions, Output
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.precision import rounded
from scalenet_zoo.export.processing import POSTPROCESSING
from scalenet_zoo.inference.predict import DECISIONS


@dataclass(frozen=True)
class Tolerance:
    """How far the outputs of an exported file may differ from the network's.

    Attributes:
        largest: the largest difference, as a share of the network's largest output.
        noise: the root mean square of the differences, as a share of that of the network's outputs.
        floor: the least scale of outputs; smaller outputs, such as an untrained network's, count as this large.
    """

    largest: float
    noise: float
    floor: float = 0.0


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(largest=1e-4, noise=1e-4),
    "fp16": Tolerance(largest=2e-2, noise=1e-2, floor=float(np.finfo(np.float16).tiny)),
    "int8": Tolerance(largest=1.0, noise=0.25),
}
MIN_AGREEMENT: dict[Task, float] = {"classification": 0.9, "segmentation": 0.8, "pose": 0.9}
"""The least agreement of int8 files with trained networks. In segmentation, rare classes count as much as common ones,
so the limit is lower there."""
DECIDED_TOGETHER = 16
"""Images per batch when decisions are compared and the file takes any batch."""
DECIDED_PIXELS = DECIDED_TOGETHER * 256 * 256
"""The most pixels in such a batch."""
BATCH_SIZES = (1, 2, 3)
"""The batch sizes that are compared if the file takes any batch. The graph is traced with a batch of 2, so a graph that
is fixed to this size fails."""
MEASURES: dict[Task, str] = {"classification": "top-1", "segmentation": "mIoU", "pose": "keypoints"}

Reference = Callable[[np.ndarray], np.ndarray]
"""The network itself: it maps float32 images (n, channels, height, width) to its raw output."""


class Exported(Protocol):
    """A network opened from an exported file: ONNX in ONNX Runtime, OpenVINO's IR, or an engine."""

    @property
    def metadata(self) -> Metadata:
        """The metadata of the file."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on a batch of images, in the form that it takes, and return its output."""


@dataclass(frozen=True)
class Comparison:
    """How an exported file's outputs differ from the network's.

    Attributes:
        photograph: the name of the image that `expected` and `found` belong to.
        expected: the network's output for it, without the batch axis, processed as in the file.
        found: the exported file's output for it.
        difference: the largest difference over all batches; see `differences` for classes of pixels and joints.
        relative: the same as a share of the network's largest absolute output.
        noise: the root mean square of the differences, as a share of that of the network's outputs.
        batch_sizes: the batch sizes that were compared.
        metadata: the metadata of the exported file.
    """

    photograph: str
    expected: np.ndarray
    found: np.ndarray
    difference: float
    relative: float
    noise: float
    batch_sizes: tuple[int, ...]
    metadata: Metadata


@dataclass(frozen=True)
class Agreement:
    """How often an exported file decides as the network does.

    Attributes:
        measure: top-1: images with the same likeliest class; mIoU: overlap of the classes' areas; keypoints: joints at
            most one cell of the heatmap apart.
        share: the share of equal decisions, from 0 to 1.
        images: the number of images that were compared.
    """

    measure: str
    share: float
    images: int


@dataclass(frozen=True)
class Verification(Comparison):
    """The result of checking an exported file.

    Attributes:
        params: the number of parameters in the file.
        agreement: how often an int8 file decides as the network does; None: the file is not int8, or has no classes.
        torch_ms: the network's median latency in PyTorch for the smallest batch, in milliseconds.
        exported_ms: the exported file's median latency for the same batch, in milliseconds.
        runtime: the runtime that ran the file: ONNX Runtime or OpenVINO.
        threads: the number of CPU threads of both.
    """

    params: int
    agreement: Agreement | None
    torch_ms: float
    exported_ms: float
    runtime: str
    threads: int


def verify(model: nn.Module, path: Path, images: Sequence[Path] = (), min_agreement: float = 0.0) -> Verification:
    """Check an exported ONNX file against the network that it was exported from.

    Args:
        model: the network, in evaluation mode.
        path: the file.
        images: image files to run both on; none: the sample photographs.
        min_agreement: the least share of decisions in which an int8 file must agree with the network.

    Raises:
        VerificationError: the file is not valid ONNX, its parameters are not those of its spec, its outputs are not
            finite or differ by more than `TOLERANCES` allows, or its decisions differ too often.
        InputError: the file or an image cannot be read.
    """
    model = unwrapped(model)
    images = images or sample_photographs()
    exported = OnnxNetwork.load(path)
    reference = partial(run_torch, model)
    metadata = exported.metadata
    params = check_graph(path, metadata)
    comparison = compare_outputs(reference, exported, images)
    if metadata.options.precision == "fp16":
        with scratch_folder() as folder:
            truly_half = folder / path.name
            onnx.save(rounded(onnx.load(path)), truly_half, save_as_external_data=True)
            comparison = compare_outputs(reference, OnnxNetwork.open(truly_half, metadata), images)
    return check_decisions(reference, exported, images, comparison, params, "ONNX Runtime", min_agreement)


def check_decisions(
    reference: Reference,
    exported: Exported,
    images: Sequence[Path],
    comparison: Comparison,
    params: int,
    runtime: str,
    min_agreement: float = 0.0,
) -> Verification:
    """Complete the check of a file whose outputs were compared: compare an int8 file's decisions, and time the file.

    Args:
        reference: the network.
        exported: the file.
        images: image files to run both on.
        comparison: the comparison of the outputs.
        params: the number of parameters in the file.
        runtime: the name of the runtime.
        min_agreement: the least share of decisions in which an int8 file must agree with the network.

    Raises:
        VerificationError: the decisions differ too often.
    """
    metadata, agreed = exported.metadata, None
    if metadata.options.precision == "int8" and metadata.spec.classes:
        agreed = agree(reference, exported, images)
        if not agreed.share >= min_agreement:
            raise VerificationError(
                f"{metadata.spec.name}: found {agreed.measure} agreement of {agreed.share:.3f} on"
                f" {agreed.images} images, expected at least {min_agreement:g}"
            )
    smallest = comparison.batch_sizes[0]
    batch, file_batch = network_input(metadata, images, smallest), file_input(metadata, images, smallest)
    return Verification(
        **vars(comparison),
        params=params,
        agreement=agreed,
        torch_ms=median_ms(lambda: reference(batch)),
        exported_ms=median_ms(lambda: exported(file_batch)),
        runtime=runtime,
        threads=torch.get_num_threads(),
    )


def compare_outputs(
    reference: Reference, exported: Exported, images: Sequence[Path], sizes: tuple[int, ...] = ()
) -> Comparison:
    """Run a network and its exported file on batches of several sizes, and compare their outputs.

    Args:
        reference: the network.
        exported: the file.
        images: image files.
        sizes: the batch sizes, in ascending order; none: those of `batch_sizes`.

    Raises:
        VerificationError: the outputs are not finite, have another shape, or differ by more than `TOLERANCES` allows.
        InputError: an image cannot be read.
    """
    metadata = exported.metadata
    options = metadata.options
    sizes = sizes or batch_sizes(options)
    inputs, file_inputs = (prepare(metadata, images, sizes[-1]) for prepare in (network_input, file_input))
    raw = np.concatenate([reference(inputs[i : i + sizes[0]]) for i in range(0, sizes[-1], sizes[0])])
    expected = processed(raw, options.output)
    found = [exported(file_inputs[:size]) for size in sizes]
    for output, size in zip(found, sizes, strict=True):
        if output.shape != expected[:size].shape:
            raise VerificationError(
                f"{metadata.spec.name}: found outputs of shape {output.shape}, expected {expected[:size].shape}"
            )
    pairs = [differences(raw[: len(output)], output, options.output) for output in found]
    off, outputs = (np.concatenate([np.ravel(pair[i]) for pair in pairs]).astype(np.float64) for i in (0, 1))
    allowed = TOLERANCES[options.precision]
    difference, scale = float(np.abs(off).max()), max(float(np.abs(outputs).max()), allowed.floor)
    noise = float(np.sqrt(np.mean(off**2))) / max(float(np.sqrt(np.mean(outputs**2))), allowed.floor, 1e-300)
    if not (scale > 0 and difference <= allowed.largest * scale and noise <= allowed.noise):  # NaN fails too
        raise VerificationError(
            f"{metadata.spec.name}: found outputs that differ by {difference:.3g} where the largest is {scale:.3g}"
            f" ({noise:.3g} in the root mean square), expected at most {allowed.largest:g} of it"
            f" ({allowed.noise:g}) in {options.precision}"
        )
    return Comparison(
        photograph=images[0].name,
        expected=expected[0],
        found=found[0][0],
        difference=difference,
        relative=difference / scale,
        noise=noise,
        batch_sizes=sizes,
        metadata=metadata,
    )


def batch_sizes(options: OnnxOptions) -> tuple[int, ...]:
    """List the batch sizes to compare: the file's smallest, optimal and largest; `BATCH_SIZES` if it takes any."""
    return tuple(sorted(set(options.batch or BATCH_SIZES)))


@torch.inference_mode()
def processed(raw: np.ndarray, output: Output) -> np.ndarray:
    """Process raw outputs as a file with this kind of output does; `processing` has the shapes."""
    result: torch.Tensor = POSTPROCESSING[output]()(torch.from_numpy(raw))
    return result.numpy()


def differences(raw: np.ndarray, found: np.ndarray, output: Output) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far the outputs of a file are off.

    The error of a pixel's class is the gap between the network's highest logit there and that of the chosen class. A
    joint has four errors: how much higher its heatmap is elsewhere, the difference of its score, and for each axis the
    slope of the heatmap if the file shifts the joint the wrong way.

    Args:
        raw: the network's raw outputs (n, channels, ...).
        found: the exported file's outputs, processed as `output` says.
        output: the kind of the file's outputs.

    Returns:
        The errors, and the outputs of the network whose size the errors are compared with.
    """
    if output == "argmax":
        known = (found >= 0) & (found < raw.shape[1])
        chosen = np.take_along_axis(raw, np.where(known, found, 0)[:, None], axis=1)[:, 0]
        return np.where(known, raw.max(1) - chosen, np.inf), raw
    if output == "joints":
        return _joint_differences(raw, found), raw.max((2, 3))
    expected = processed(raw, output)
    return found - expected, expected


def _joint_differences(heatmaps: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Compute the errors of joints: heatmaps (n, joints, height, width), joints (n, joints, 3) -> (n, joints, 4)."""
    size = np.array(heatmaps.shape[:1:-1])  # width, height
    places = joints[..., :2] * size
    cells = np.clip(np.nan_to_num(np.floor(places)), 0, size - 1).astype(np.int64)
    shifts = places - cells - 0.5  # -1/4, 0 or 1/4

    def at(cells: np.ndarray) -> np.ndarray:
        x, y = np.moveaxis(np.clip(cells, 0, size - 1), -1, 0)
        flat = (y * size[0] + x)[..., None]
        return np.take_along_axis(heatmaps.reshape(*heatmaps.shape[:2], -1), flat, axis=2)[..., 0]

    off = [heatmaps.max((2, 3)) - at(cells), joints[..., 2] - at(cells)]
    for axis, step in enumerate(np.eye(2, dtype=np.int64)):
        inside = (cells[..., axis] > 0) & (cells[..., axis] < size[axis] - 1)
        slope = np.where(inside, at(cells + step) - at(cells - step), 0)
        moved = np.round(4 * shifts[..., axis])
        possible = (np.abs(4 * shifts[..., axis] - moved) < 0.2) & (np.abs(moved) <= inside)
        off.append(np.where(possible, np.where(moved == np.sign(slope), 0, np.abs(slope)), np.inf))
    return np.stack(off, axis=-1)


def agree(reference: Reference, exported: Exported, images: Sequence[Path]) -> Agreement:
    """Run a network and its exported file on each image, and measure how often they decide the same."""
    return agreement(network_decisions(reference, exported.metadata, images), exported, images)


def network_decisions(reference: Reference, metadata: Metadata, images: Sequence[Path]) -> list[np.ndarray]:
    """Compute a network's decisions on image files.

    Returns:
        One array per batch: probabilities (n, classes), classes of pixels (n, h, w), or joints (n, joints, 3).

    Raises:
        InputError: an image cannot be read.
    """
    decisions = []
    for some, size in _batches(metadata, images):
        raw = reference(network_input(metadata, some, size))[: len(some)]
        decisions.append(_decided(raw, "raw", metadata))
    return decisions


def agreement(expected: Sequence[np.ndarray], exported: Exported, images: Sequence[Path]) -> Agreement:
    """Compare the decisions of a network with those of its exported file.

    Args:
        expected: the network's, from `network_decisions` for these images.
        exported: the file.
        images: image files.

    Raises:
        InputError: an image cannot be read.
    """
    metadata = exported.metadata
    task, counts = metadata.spec.task, []
    for (some, size), decisions in zip(_batches(metadata, images), expected, strict=True):
        found = exported(file_input(metadata, some, size))[: len(some)]
        shape = metadata.spec.trace.shapes[metadata.spec.trace.output]
        counts.append(_same(decisions, _decided(found, metadata.options.output, metadata), shape, task))
    same, all_ = np.sum(counts, axis=0)
    return Agreement(MEASURES[task], float(np.mean((same / np.maximum(all_, 1))[all_ > 0])), len(images))


def _batches(metadata: Metadata, images: Sequence[Path]) -> Iterator[tuple[Sequence[Path], int]]:
    """Yield the image files of each batch, and the batch size that the file takes for them."""
    options, size = metadata.options, metadata.spec.input
    smallest, _, largest = options.batch or (1, 1, DECIDED_TOGETHER)
    together = max(smallest, min(largest, DECIDED_TOGETHER, DECIDED_PIXELS // (size.height * size.width)))
    for start in range(0, len(images), together):
        some = images[start : start + together]
        yield some, max(len(some), smallest)


def _decided(outputs: np.ndarray, form: Output, metadata: Metadata) -> np.ndarray:
    if metadata.spec.bottom_up:  # the heatmaps come first; the tags and coarse heatmaps decide nothing on their own
        outputs = outputs[:, : metadata.spec.classes]
    return processed(outputs, DECISIONS[metadata.spec.task]) if form == "raw" else outputs


def _same(expected: np.ndarray, found: np.ndarray, shape: tuple[int, ...], task: Task) -> np.ndarray:
    """Count equal decisions and all decisions: (2, classes) for segmentation, (2, 1) otherwise."""
    if task == "segmentation":
        same, ours, theirs = (
            np.bincount(classes.ravel(), minlength=shape[0])
            for classes in (expected[expected == found], expected, found)
        )
        return np.stack([same, ours + theirs - same])
    if task == "classification":
        equal = expected.argmax(1) == found.argmax(1)
    else:
        apart = np.abs(expected - found)[..., :2] * np.array(shape[:0:-1])
        equal = (apart <= 1.01).all(-1)  # one cell, with room for rounding
    return np.array([[equal.sum()], [equal.size]])


@torch.inference_mode()
def run_torch(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Run a network on images (n, channels, height, width), and return its output in float32."""
    parameter = next(model.parameters())
    output: torch.Tensor = model(torch.from_numpy(images).to(parameter.device, parameter.dtype))
    return output.float().cpu().numpy()


def median_ms(function: Callable[[], object], seconds: float = 0.3) -> float:
    """Measure the median time of a call in milliseconds, over calls of `seconds` in all."""
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
