"""The cases of a benchmark: networks and their exported files on back ends.

models x back ends x precisions --plan--> cases --open_runner--> runners --measure--> BenchmarkResult of each
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import nn

from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.backends import BACKENDS, Precision, require_backend
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import ENGINE, ONNX, OPENVINO, exported_kind, user_path
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.timing import MeasuredLatency, Ratio, Timing, measure
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.openvino.ir_file import IrFile
from scalenet_zoo.export.tensorrt.network import check_engine
from scalenet_zoo.latency.runners import Runner, check_batch, open_runner
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.sources import NetworkSource, load_spec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A network with initial weights, or an exported file, to be benchmarked.

    Attributes:
        name: the name of the spec or the file.
        spec: the spec, with the size of the images.
        backends: the back ends that can run it.
        path: the path of an exported ONNX file, an engine, or OpenVINO's IR; None: it is a network.
        options: the options that the file was exported with; None: it is a network.
        batches: the smallest and the largest batch size that it takes; None: any.
    """

    name: str
    spec: ArchSpec
    backends: tuple[str, ...] = BACKENDS
    path: Path | None = None
    options: OnnxOptions | None = None
    batches: tuple[int, int] | None = None

    @classmethod
    def load(cls, source: NetworkSource | nn.Module) -> Subject:
        """Load an exported file, or the spec of a network or of whatever `create_model` takes.

        Raises:
            ZooError: there is no such entry or file, or the file is not valid.
        """
        path = user_path(source) if isinstance(source, str | Path) else Path()
        kind = exported_kind(path)
        if kind == ONNX:
            metadata = Metadata.read(path)
            backends = tuple(backend for backend in BACKENDS if not backend.startswith("torch"))
            batch = metadata.options.batch
        elif kind == OPENVINO:
            metadata = IrFile.read(path).metadata
            backends, batch = ("openvino",), metadata.options.batch
        elif kind == ENGINE:
            record = check_engine(path)
            metadata = record.read_metadata(str(path))
            backends, batch = (record.library,), record.batch
        else:
            spec = load_spec(source) if isinstance(source, NetworkSource) else spec_of(source)
            return cls(spec.name, spec)
        batches = (batch[0], batch[2]) if batch else None
        return cls(path.name, metadata.spec, backends, path, metadata.options, batches)


@dataclass(frozen=True)
class Case:
    """One row of a benchmark.

    Attributes:
        subject: the network or the exported file.
        backend: one of `backends.BACKENDS`.
        precision: the precision of weights and activations.
        batch: images per inference.
    """

    subject: Subject
    backend: str
    precision: Precision
    batch: int

    def images(self) -> torch.Tensor:
        """Make a batch of noise in the form that the network or the file takes.

        Raises:
            BackendError: the batch does not fit into memory.
        """
        size, options = self.subject.spec.input, self.subject.options
        check_batch(self.batch, (size.channels, size.height, size.width))
        generator = torch.Generator().manual_seed(0)
        if options and options.preprocess:
            shape = (self.batch, size.height, size.width, size.channels)
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        images = torch.randn(self.batch, size.channels, size.height, size.width, generator=generator)
        return images.half() if options and options.io == "fp16" else images


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a case.

    Attributes:
        model: the name of the network or the file.
        backend: the back end.
        device: the name of the GPU, or CPU.
        precision: the precision of weights and activations.
        threads: CPU threads that an operator may use.
        interop_threads: CPU threads that operators may share.
        batch: images per inference.
        height: the height of the images in pixels.
        width: the width of the images in pixels.
        macs: multiply-adds for one image.
        params: the number of parameters.
        channels_last: whether torch had the channels last in memory.
        graph: whether a CUDA graph was replayed.
        transfers: whether copies of the images to a GPU, and of the output back, are included.
        latency: the latency of one inference in milliseconds.
        throughput: images per second, at the median latency.
        ratio: the latency as a multiple of that of the first case measured in turn with it.
    """

    model: str
    backend: str
    device: str
    precision: str
    threads: int
    interop_threads: int
    batch: int
    height: int
    width: int
    macs: int
    params: int
    channels_last: bool
    graph: bool
    transfers: bool
    latency: MeasuredLatency
    throughput: float
    ratio: Ratio


def plan(
    models: Sequence[NetworkSource | nn.Module],
    backends: Sequence[str],
    batches: Sequence[int] = (1,),
    sizes: Sequence[tuple[int, int]] = (),
    precisions: Sequence[Precision] = (),
) -> list[list[Case]]:
    """Plan the cases: one list per size and batch, whose cases are measured in turn.

    Args:
        models: what `create_model` takes, networks, or exported files: ONNX, engines, OpenVINO's IR.
        backends: names in `backends.BACKENDS`.
        batches: images per inference.
        sizes: heights and widths of the images in pixels; none: each network's own.
        precisions: the precisions to run networks in; none: fp32. A file has its own precision.

    Raises:
        ZooError: a model or a back end is not available, or a file cannot be run with these options.
    """
    for backend in backends:
        require_backend(backend)
    subjects = [Subject.load(model) for model in models]
    for subject in subjects:
        _check(subject, backends, batches, sizes, precisions)
    every_size: Sequence[tuple[int, int] | None] = sizes or [None]
    return [
        [
            Case(_resized(subject, size), backend, precision, batch)
            for backend, subject in product(backends, subjects)
            for precision in ([subject.options.precision] if subject.options else precisions or ["fp32"])
        ]
        for size, batch in product(every_size, batches)
    ]


def _resized(subject: Subject, size: tuple[int, int] | None) -> Subject:
    if size is None or subject.path:
        return subject
    return replace(subject, spec=subject.spec.replace(height=size[0], width=size[1]))


def _check(
    subject: Subject,
    backends: Sequence[str],
    batches: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    precisions: Sequence[Precision],
) -> None:
    """Check that a file can be run with these options, and warn if it was made for another back end."""
    if wrong := [backend for backend in backends if backend not in subject.backends]:
        raise InputError(f"{subject.path}: found the back end {wrong[0]}, expected {' or '.join(subject.backends)}")
    if subject.options is None:
        return
    own = (subject.spec.input.height, subject.spec.input.width)
    if any(size != own for size in sizes):
        raise InputError(f"{subject.path}: found another resolution, expected {own[0]}x{own[1]}, the file's own")
    low, high = subject.batches or (1, max(batches))
    if wrong_batches := [batch for batch in batches if not low <= batch <= high]:
        expected = f"{low} to {high}" if low < high else low
        raise InputError(f"{subject.path}: found a batch of {wrong_batches[0]}, expected {expected}")
    if precisions and subject.options.precision not in precisions:
        raise InputError(f"{subject.path}: found {' and '.join(precisions)}, expected {subject.options.precision}")
    for backend in backends:
        if doubt := subject.options.doubt(backend):
            _log.warning("%s: %s", subject.name, doubt)


def measure_cases(
    cases: Sequence[Case],
    threads: int | None = None,
    timing: Timing = Timing(),  # noqa: B008 - it cannot be changed
    transfers: bool = False,
    channels_last: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[BenchmarkResult]:
    """Measure cases in turn.

    Args:
        cases: one list from `plan`.
        threads: CPU threads that an operator may use; None: as many as torch uses now.
        timing: how long and how often to time.
        transfers: on GPUs, include copies of the images and the output.
        channels_last: put the channels last in memory if torch runs the network.
        on_progress: reports the cases prepared, then the visits made.

    Returns:
        The results, in the order of `cases`.

    Raises:
        ZooError: a back end cannot run a network with this batch.
    """
    with ExitStack() as stack:
        runners: list[Runner] = []
        for case in cases:
            on_progress(f"preparing {case.subject.name} on {case.backend}", len(runners), len(cases))
            images = case.images()
            if case.backend.startswith("torch"):
                images = images.to(
                    "cuda" if torch.cuda.is_available() else "cpu",
                    memory_format=torch.channels_last if channels_last else torch.contiguous_format,
                )
            model = case.subject.path or create_seeded(case.subject.spec)
            prepared = open_runner(model, images, case.backend, threads, case.precision, transfers)
            runners.append(stack.enter_context(prepared))
        latencies = measure(runners, timing, lambda done, total: on_progress("measuring", done, total))
    return [
        _result(case, runner, transfers, channels_last, latency, latencies[0])
        for case, runner, latency in zip(cases, runners, latencies, strict=True)
    ]


def _result(
    case: Case, runner: Runner, transfers: bool, channels_last: bool, latency: MeasuredLatency, first: MeasuredLatency
) -> BenchmarkResult:
    spec, on_gpu = case.subject.spec, runner.device.type == "cuda"
    return BenchmarkResult(
        model=case.subject.name,
        backend=case.backend,
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
        precision=case.precision,
        threads=runner.threads,
        interop_threads=runner.interop_threads,
        batch=case.batch,
        height=spec.input.height,
        width=spec.input.width,
        macs=spec.cost.macs,
        params=spec.cost.params,
        channels_last=channels_last and case.backend.startswith("torch"),
        graph=runner.graph,
        transfers=transfers and on_gpu,
        latency=latency,
        throughput=1000 * case.batch / latency.median,
        ratio=Ratio.of(latency, first),
    )
