"""A comparison at work: files made, all of them timed in turn, then each one judged.

What fails on the way is told in its row; the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import cast

import torch
from torch import nn

from scalenet_zoo.arch.spec import ArchSpec, Task, spec_of
from scalenet_zoo.core.backends import Precision, find_backend, machine
from scalenet_zoo.core.errors import BackendError, UsageError, ZooError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.timing import Ratio, measure
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import metadata_of
from scalenet_zoo.export.verify import Exported
from scalenet_zoo.inference.evaluate import known_labels, match_data
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.latency.cases import Case, Subject
from scalenet_zoo.latency.comparison.cached import FORMATS, CachedExports, file_bytes
from scalenet_zoo.latency.comparison.calibration import CalibrationImages
from scalenet_zoo.latency.comparison.judging import Decisions, judge
from scalenet_zoo.latency.comparison.peak_memory import peak_memory
from scalenet_zoo.latency.comparison.running import open_network
from scalenet_zoo.latency.comparison.table import ComparedNetwork, ComparisonSettings, ComparisonTable
from scalenet_zoo.models.opening import open_model
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.model_folder import ModelFolder
from scalenet_zoo.zoo.sources import NetworkSource, is_exported, load_spec

REFERENCE = "torch"
"""Runs a network in fp32 for others to be compared with, where no row of it is in fp32."""


@dataclass(frozen=True)
class Source:
    """A model, as it was asked for.

    Attributes:
        given: as the user named it.
        opened: what of it was read already.
        pretrained: published weights are loaded.
        weights: of this file.
        seed: of weights that are not loaded.
        size: height and width of the images; None: its own.
    """

    given: NetworkSource | nn.Module
    opened: NetworkSource | nn.Module
    pretrained: bool = False
    weights: str | Path | None = None
    seed: int = 0
    size: tuple[int, int] | None = None

    @property
    def file(self) -> Path | None:
        """The exported file that it is, if it is one."""
        return user_path(str(self.given)) if is_exported(self.given) else None

    def network(self) -> nn.Module:
        """The network, in evaluation; one that was given keeps its place, and its state.

        Raises:
            ZooError: it cannot be opened.
        """
        if not isinstance(self.opened, NetworkSource):
            if self.size:
                raise UsageError("`resolution`: found it with a network that is built, expected a name or spec")
            return self.opened
        made = create_seeded(
            self.opened, self.seed, pretrained=self.pretrained, weights=self.weights, img_size=self.size
        )
        return made.eval()


@dataclass
class Entry:
    """A row on its way.

    Attributes:
        row: what is known so far.
        model: the place of its model among the models.
        spec: of the network.
        what: runs: the network, or a file; None: nothing does.
        case: how it is timed.
        network: that the file is of; None: the file was given.
    """

    row: ComparedNetwork
    model: int
    spec: ArchSpec
    what: nn.Module | Path | None = None
    case: Case | None = None
    network: nn.Module | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.row.model} {self.row.precision} on {self.row.backend}"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let an error be the end of this row alone."""
        try:
            yield
        except ZooError as error:
            self.fail(str(error))
        except Exception as error:  # of a library: torch's exporter, a quantiser, a back end
            logging.getLogger(__name__).debug("%s", self.name, exc_info=True)
            first = next((line for line in map(str.strip, str(error).splitlines()) if line), "")
            self.fail(f"{type(error).__name__}: {first}")

    def fail(self, why: str) -> None:
        """Tell why there is no more of this row."""
        self.row, self.what = replace(self.row, error=why), None

    def runs(self) -> tuple[nn.Module | Path, Case] | None:
        """What runs, and how, if something does."""
        return (self.what, self.case) if self.what is not None and self.case is not None else None


@dataclass
class Comparing:
    """A comparison.

    Attributes:
        data: as the user wrote it, or examples.
        settings: what is told of it.
        backends: in this order.
        precisions: of networks, in this order.
        batch: images of one inference.
        threads: CPU threads that an operator may use.
        workers: processes that read images.
        calibration: the user's folder of images.
        rebuild: whether files in the cache are made anew.
        scratch: a folder for temporary files.
        keep: told the table whenever there is more.
        on_progress: told what is being done.
    """

    data: str | Examples | Stream
    settings: ComparisonSettings
    backends: Sequence[str]
    precisions: Sequence[Precision]
    batch: int
    threads: int | None
    workers: int
    calibration: Path | None
    rebuild: bool
    scratch: Path
    keep: Callable[[ComparisonTable], None]
    on_progress: OnProgress
    _examples: dict[Task, Examples | Stream] = field(default_factory=dict)
    _images: dict[object, CalibrationImages] = field(default_factory=dict)
    _references: dict[int, Decisions] = field(default_factory=dict)

    def run(self, sources: Sequence[Source]) -> ComparisonTable:
        """Fill the table.

        Raises:
            BackendError: no row could be made; the message has the first reason.
        """
        here = machine()
        entries: list[Entry] = []

        def table() -> ComparisonTable:
            return ComparisonTable(here, self.settings, tuple(entry.row for entry in entries))

        for place, source in enumerate(sources):
            entries += self._prepare(place, source, len(sources))
        self.keep(table())
        self._time(entries)
        self.keep(table())
        for done, entry in enumerate(judged := _references_first(entries)):
            if entry.runs():
                self._judge(entry, entries, done, len(judged))
                self.keep(table())
        if all(entry.row.error for entry in entries):
            raise BackendError(
                f"none of {len(entries)} networks, precisions and back ends can be compared here;"
                f" the first, {entries[0].name}: {entries[0].row.error}"
            )
        return table()

    # --- files ------------------------------------------------------------------------------------

    def _prepare(self, place: int, source: Source, models: int) -> list[Entry]:
        """The rows of a model, one of so many, with what runs in them."""
        if source.file:
            return self._of_file(place, source.file)
        spec = _spec(source)
        entries = [
            Entry(self._row(spec.name, spec, backend, precision), place, spec)
            for precision, backend in product(self.precisions, self.backends)
        ]
        opening = Entry(entries[0].row, place, spec)
        with opening.attempt():
            network = source.network()
            self._check_data(network)
            exports = CachedExports.of(network, self.batch, self.rebuild)
        if opening.row.error:
            for entry in entries:
                entry.fail(opening.row.error)
            return entries
        for done, entry in enumerate(entries, place * len(entries)):
            self.on_progress(f"making {entry.name}", done, models * len(entries))
            with entry.attempt():
                self._make(entry, network, exports)
        return entries

    def _row(self, name: str, spec: ArchSpec, backend: str, precision: Precision) -> ComparedNetwork:
        size, cost = spec.input, spec.cost
        return ComparedNetwork(
            name, spec.task, backend, precision, self.batch, size.height, size.width, cost.macs, cost.params
        )

    def _of_file(self, place: int, path: Path) -> list[Entry]:
        """The rows of an exported file: on those back ends that it can be run on."""
        subject = Subject.load(path)
        assert subject.options is not None
        own = subject.options.target or subject.backends[0]
        entries = []
        for backend in [name for name in self.backends if name in subject.backends] or [own]:
            row = self._row(subject.name, subject.spec, backend, subject.options.precision)
            entry = Entry(row, place, subject.spec)
            with entry.attempt():
                _require(backend)
                low, high = subject.batches or (1, self.batch)
                if not low <= self.batch <= high:
                    raise UsageError(f"found a batch of {self.batch}, expected {low} to {high}")
                entry.row = replace(row, file=str(path), file_bytes=file_bytes(path))
                entry.what, entry.case = path, Case(subject, backend, row.precision, self.batch)
            entries.append(entry)
        return entries

    def _make(self, entry: Entry, network: nn.Module, exports: CachedExports) -> None:
        """See that there is what a row runs."""
        backend, precision = entry.row.backend, entry.row.precision
        entry.network = network
        _require(backend)
        if backend not in FORMATS:
            if precision == "int8":
                raise UsageError("found int8, expected fp32 or fp16: PyTorch runs no quantised networks here")
            folder = exports.folder()
            entry.row = replace(entry.row, file=str(folder), file_bytes=file_bytes(folder))
            entry.what, entry.case = network, Case(Subject(entry.spec.name, entry.spec), backend, precision, self.batch)
            return
        images = self._calibration(entry.spec) if precision == "int8" else None
        path = exports.file(backend, precision, images)
        entry.row = replace(entry.row, file=str(path), file_bytes=file_bytes(path))
        entry.what, entry.case = path, Case(Subject.load(path), backend, precision, self.batch)

    def _calibration(self, spec: ArchSpec) -> CalibrationImages:
        """Images for int8, looked for once; of persons once for each size of crops."""
        key = (spec.task, spec.input) if spec.task == "pose" else spec.task
        if key not in self._images:
            judged = self._judged(spec.task)
            if self.calibration:
                self._images[key] = CalibrationImages.of_folder(self.calibration, judged)
            else:
                folder = self.scratch / f"calibration-{len(self._images)}"
                folder.mkdir(exist_ok=True)
                self._images[key] = CalibrationImages.of_training(self.data, spec, judged, folder)
        return self._images[key]

    # --- latency ----------------------------------------------------------------------------------

    def _time(self, entries: Sequence[Entry]) -> None:
        """Time all in turn."""
        with ExitStack() as stack:
            ready = []
            for done, entry in enumerate(entries):
                if not (runs := entry.runs()):
                    continue
                self.on_progress(f"opening {entry.name}", done, len(entries))
                with entry.attempt():
                    opened = stack.enter_context(open_network(*runs, self.threads))
                    device = torch.cuda.get_device_name() if opened.runner.device.type == "cuda" else "CPU"
                    entry.row = replace(entry.row, device=device, threads=opened.runner.threads)
                    ready.append((entry, opened))
            timing = self.settings.timing
            latencies = measure(
                [opened for _, opened in ready], timing, lambda done, total: self.on_progress("measuring", done, total)
            )
            for (entry, _), latency in zip(ready, latencies, strict=True):
                entry.row = replace(entry.row, latency=latency, ratio=Ratio.of(latency, latencies[0]))

    # --- accuracy, agreement, memory --------------------------------------------------------------

    def _judge(self, entry: Entry, entries: Sequence[Entry], done: int, total: int) -> None:
        runs = entry.runs()
        assert runs
        what, case = runs
        row = entry.row
        self.on_progress(f"memory of {entry.name}", done, total)
        assert row.file
        memory = peak_memory(Path(row.file), row.backend, row.precision, self.batch, row.threads)
        entry.row = row = replace(row, memory_bytes=memory)
        with entry.attempt():
            metadata = _metadata(entry)
            with open_network(what, case, self.threads) as opened:
                found = judge(metadata, opened, self._judged(entry.spec.task), self.workers, self._telling(entry.name))
            entry.row = replace(
                row,
                accuracy=found.accuracy,
                accuracy_error=found.error,
                images=found.images,
                noun=found.noun,
                metrics=found.metrics,
            )
            if row.precision == "fp32" and entry.model not in self._references:
                self._references[entry.model] = found.decisions
            elif reference := self._reference(entry, entries):
                entry.row = replace(entry.row, agreement=found.decisions.agreement(reference))

    def _reference(self, entry: Entry, entries: Sequence[Entry]) -> Decisions | None:
        """What the same network decides in fp32; of a file, an fp32 file or network of the same architecture."""
        if entry.network is None:
            if entry.row.precision == "fp32":
                return self._references.get(entry.model)
            same = [
                other.model
                for other in entries
                if (other.spec.hash, other.spec.classes, other.spec.input)
                == (entry.spec.hash, entry.spec.classes, entry.spec.input)
                and self._references.get(other.model)
            ]
            nearest = [place for place in same if place <= entry.model][-1:] or same[:1]
            return self._references[nearest[0]] if nearest else None
        if entry.model not in self._references:
            subject = Subject(entry.spec.name, entry.spec)
            case = Case(subject, REFERENCE, "fp32", self.batch)
            with open_network(entry.network, case, self.threads) as opened:
                telling = self._telling(f"{entry.spec.name} fp32 on {REFERENCE}")
                found = judge(_metadata(entry), opened, self._judged(entry.spec.task), self.workers, telling)
            self._references[entry.model] = found.decisions
        return self._references[entry.model]

    def _telling(self, name: str) -> OnProgress:
        return lambda what, done, total: self.on_progress(f"judging {name}", done, total)

    def _judged(self, task: Task) -> Examples | Stream:
        """The data, opened once for each task."""
        if not isinstance(self.data, str):
            return self.data
        if task not in self._examples:
            self._examples[task] = open_data(self.data, task, self.settings.split, limit=self.settings.limit)
        return self._examples[task]

    def _check_data(self, network: nn.Module) -> None:
        """See that the data are for a network, before it is exported and timed."""
        inference = prepare_inference(network)
        labels, guessed = known_labels(inference)
        match_data(inference.spec, labels, self._judged(inference.spec.task), guessed)


def _spec(source: Source) -> ArchSpec:
    """Of a network, without its weights."""
    if not isinstance(source.opened, NetworkSource):
        return spec_of(source.opened)
    spec = source.opened.spec if isinstance(source.opened, ModelFolder) else load_spec(source.opened)
    height, width = source.size or (None, None)
    return spec.replace(height=height, width=width)


def _require(backend: str) -> None:
    """Insist that a back end can run here.

    Raises:
        BackendError: it cannot; what is missing, and how to get it.
    """
    found = find_backend(backend)
    if not found.ready:
        raise BackendError(found.about)


def _metadata(entry: Entry) -> Metadata:
    """How images are prepared for what runs, and what comes out."""
    if entry.network is not None:
        return metadata_of(entry.network, OnnxOptions())
    return cast("Exported", open_model(cast("Path", entry.what))).metadata


def _references_first(entries: Sequence[Entry]) -> list[Entry]:
    """Those in fp32 before those that are compared with them."""
    return sorted(entries, key=lambda entry: entry.row.precision != "fp32")
