"""Latencies that hold on a machine whose speed drifts.

    models x back ends x precisions --prepare--> runners --measure--> Latency and Ratio of each --> Result

What is compared is timed in turn: A B C, C B A, ... Each visit to a network is long enough for a
median, and a ratio is that of visits made at nearly the same time.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import BACKENDS, require_backend
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import ENGINE, ONNX, exported_kind, user_path
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.export.metadata import Metadata, OnnxOptions, Precision
from scalenet_zoo.export.tensorrt.network import check_engine
from scalenet_zoo.latency.runners import Runner, check_batch, open_runner
from scalenet_zoo.zoo.create import create_model
from scalenet_zoo.zoo.sources import load_spec


class Lap(Protocol):
    """What can be timed: a `runners.Runner`, say."""

    def lap(self) -> float:
        """Run once; the milliseconds that it took."""
        ...


# --- timing ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How long a network is timed.

    A machine's speed may change for a second at a time, so many short visits beat a few long ones: with one network
    as both A and B, on 2 threads of a shared machine, ratios were off by up to 34% with 3 visits, by 3% with 10, in
    the same time.

    Attributes:
        warmup: seconds that it runs before all visits; a tenth of it begins each visit, untimed.
        seconds: at least so many, all visits together.
        runs: at least so many, all visits together.
        visits: to each network, in alternating order.
    """

    warmup: float = 1.0
    seconds: float = 3.0
    runs: int = 100
    visits: int = 10


@dataclass(frozen=True)
class MeasuredLatency:
    """Milliseconds of one inference, over all runs.

    Attributes:
        median: of all runs, as are the percentiles and the fastest.
        visits: the median of each visit.
        spread: the smallest and the largest of these.
        runs: how many there were.
    """

    median: float
    p90: float
    p95: float
    p99: float
    fastest: float
    visits: tuple[float, ...]
    spread: tuple[float, float]
    runs: int

    @classmethod
    def of(cls, visits: Sequence[Sequence[float]]) -> MeasuredLatency:
        """Sum up the milliseconds of every run of every visit."""
        runs = np.concatenate([np.asarray(visit, dtype=float) for visit in visits])
        median, p90, p95, p99 = map(float, np.percentile(runs, (50, 90, 95, 99)))
        medians = tuple(float(np.median(visit)) for visit in visits)
        return cls(median, p90, p95, p99, float(runs.min()), medians, (min(medians), max(medians)), len(runs))


@dataclass(frozen=True)
class Ratio:
    """A latency as a share of another: the median, and range, over pairs of visits made at nearly the same time."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: MeasuredLatency, other: MeasuredLatency) -> Ratio:
        """Pair the visits; below 1, ours is faster."""
        ratios = [a / b for a, b in zip(ours.visits, other.visits, strict=True)]
        return cls(float(np.median(ratios)), min(ratios), max(ratios))


def measure(
    runners: Sequence[Lap],
    timing: Timing = Timing(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[MeasuredLatency]:
    """Time networks in turn.

    Args:
        runners: one for each network.
        timing: how long, how often.
        on_progress: told the visits made and those to make.
    """
    visits: list[list[list[float]]] = [[] for _ in runners]
    order = list(range(len(runners)))
    seconds, runs = timing.seconds / timing.visits, math.ceil(timing.runs / timing.visits)
    with _no_garbage_collection():
        on_progress(0, timing.visits * len(runners))
        for runner in runners:
            run_for(runner, timing.warmup)
        for visit in range(timing.visits):
            for i in reversed(order) if visit % 2 else order:  # going first costs up to 1%
                run_for(runners[i], timing.warmup / 10)  # until the threads of the one before have gone to sleep
                visits[i].append(run_for(runners[i], seconds, runs))
                on_progress(sum(map(len, visits)), timing.visits * len(runners))
    return [MeasuredLatency.of(laps) for laps in visits]


def run_for(runner: Lap, seconds: float, runs: int = 1) -> list[float]:
    """Run for at least so many seconds, and at least so often; the milliseconds of each run."""
    laps: list[float] = []
    total = 0.0
    while total < 1000 * seconds or len(laps) < runs:
        laps.append(runner.lap())
        total += laps[-1]
    return laps


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# --- networks on back ends ------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What is benchmarked: a network with initial weights, or a file of one.

    Attributes:
        name: the spec's, or the file's.
        spec: with the size of the images.
        backends: that can run it.
        path: of an ONNX file of `export`, or of an engine.
        options: that the file was exported with.
        batches: the smallest and the largest that it takes; None: any.
    """

    name: str
    spec: ArchSpec
    backends: tuple[str, ...] = BACKENDS
    path: Path | None = None
    options: OnnxOptions | None = None
    batches: tuple[int, int] | None = None

    @classmethod
    def load(cls, source: str) -> Subject:
        """Look up a name of the zoo, or read a spec's JSON file, an ONNX file or an engine.

        Raises:
            ZooError: there is no such entry or file, or the file is not valid.
        """
        path = user_path(source)
        kind = exported_kind(path)
        if kind == ONNX:
            metadata = Metadata.read(path)
            backends = tuple(backend for backend in BACKENDS if not backend.startswith("torch"))
            batch = metadata.options.batch
        elif kind == ENGINE:
            record = check_engine(path)
            metadata = record.read_metadata(str(path))
            backends, batch = (record.library,), record.batch
        else:
            spec = load_spec(source)
            return cls(spec.name, spec)
        batches = (batch[0], batch[2]) if batch else None
        return cls(path.name, metadata.spec, backends, path, metadata.options, batches)


@dataclass(frozen=True)
class Case:
    """One row of a benchmark.

    Attributes:
        subject: a network, or a file of one.
        backend: one of `backends.BACKENDS`.
        precision: of weights and activations.
        batch: images of one inference.
    """

    subject: Subject
    backend: str
    precision: Precision
    batch: int

    def images(self) -> torch.Tensor:
        """Noise in the form that the network or the file takes."""
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
    """What was measured of a case.

    Attributes:
        device: the name of the GPU, or CPU.
        threads: CPU threads that an operator may use.
        interop_threads: CPU threads that operators may share.
        macs: of one image.
        channels_last: whether torch had the channels last in memory.
        graph: whether a CUDA graph was replayed.
        transfers: whether copies of the images to a GPU, and of the output back, are included.
        throughput: images a second, at the median latency.
        ratio: of the latency to that of the first case measured in turn with it.
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
    models: Sequence[str],
    backends: Sequence[str],
    batches: Sequence[int] = (1,),
    sizes: Sequence[tuple[int, int]] = (),
    precisions: Sequence[Precision] = (),
) -> list[list[Case]]:
    """List what is to be measured: a list for each size and batch, to be measured in turn.

    Args:
        models: names of the zoo, specs' JSON files, ONNX files of `export`, or engines.
        backends: names of `backends.BACKENDS`.
        batches: images of one inference.
        sizes: heights and widths of the images in pixels; none: each network's own.
        precisions: that networks are run in; none: fp32. A file has its own.

    Raises:
        ZooError: a model or a back end is not to be had, or a file cannot be run in this way.
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
    """See that a file can be run as asked; a network can."""
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


def benchmark(
    cases: Sequence[Case],
    threads: int | None = None,
    timing: Timing = Timing(),
    transfers: bool = False,
    channels_last: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[BenchmarkResult]:
    """Measure cases in turn.

    Args:
        cases: one list of `plan`.
        threads: CPU threads that an operator may use; None: as many as torch does now.
        timing: how long and how often.
        transfers: on GPUs, include copies of the images and the output.
        channels_last: the order of the axes in memory, where torch runs the network.
        on_progress: told of the cases prepared, then of the visits made.

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
            model = case.subject.path or _network(case.subject.spec)
            prepared = open_runner(model, images, case.backend, threads, case.precision, transfers)
            runners.append(stack.enter_context(prepared))
        latencies = measure(runners, timing, lambda done, total: on_progress("measuring", done, total))
    return [
        _result(case, runner, transfers, channels_last, latency, latencies[0])
        for case, runner, latency in zip(cases, runners, latencies, strict=True)
    ]


def _network(spec: ArchSpec) -> nn.Module:
    """A network with the same weights each time, so that engines of it can be kept."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return create_model(spec)


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
