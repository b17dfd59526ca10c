"""The work of a comparison: it makes the files, times all of them in turn, then judges each one.

If something fails, its row gives the reason, and the other rows continue.
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
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
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
"""The back end that runs a network in fp32 as the reference for its other rows, if it has no row in fp32."""


@dataclass(frozen=True)
class Source:
    """A model to compare, as the user requested it.

    Attributes:
        given: the model as the user named it.
        opened: the model as far as it has been read.
        pretrained: whether published weights are loaded.
        weights: the file of weights to load; None: none.
        seed: the seed of weights that are not loaded.
        size: height and width of the images; None: the model's own.
    """

    given: NetworkSource | nn.Module
    opened: NetworkSource | nn.Module
    pretrained: bool = False
    weights: str | Path | None = None
    seed: int = 0
    size: tuple[int, int] | None = None

    @property
    def file(self) -> Path | None:
        """The path of the exported file; None: it is a network."""
        return user_path(str(self.given)) if is_exported(self.given) else None

    def network(self) -> nn.Module:
        """Create the network in evaluation mode; a network that was given is returned unchanged.

        Raises:
            ZooError: the network cannot be opened.
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
    """A row in the making.

    Attributes:
        row: the results so far.
        model: the index of its model.
        spec: the spec of the network.
        what: the network or file that runs; None: nothing can run.
        case: the case to time.
        network: the network that the file was made from; None: the file was given.
    """

    row: ComparedNetwork
    model: int
    spec: ArchSpec
    what: nn.Module | Path | None = None
    case: Case | None = None
    network: nn.Module | None = None

    @property
    def name(self) -> str:
        """The name of the row in messages."""
        return f"{self.row.model} {self.row.precision} on {self.row.backend}"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Catch any error, and end only this row with it."""
        try:
            yield
        except ZooError as error:
            self.fail(str(error))
        except Exception as error:  # from a library: torch's exporter, a quantiser, a back end
            logging.getLogger(__name__).debug("%s", self.name, exc_info=True)
            first = next((line for line in map(str.strip, str(error).splitlines()) if line), "")
            self.fail(f"{type(error).__name__}: {first}")

    def fail(self, why: str) -> None:
        """End the row, and record the reason."""
        self.row, self.what = replace(self.row, error=why), None

    def runs(self) -> tuple[nn.Module | Path, Case] | None:
        """Return what runs and its case; None: nothing can run."""
        return (self.what, self.case) if self.what is not None and self.case is not None else None


@dataclass
class Comparing:
    """A comparison.

    Attributes:
        data: the data as the user named it, or open examples.
        settings: the settings that the table reports.
        backends: the back ends, in the order of the rows.
        precisions: the precisions of networks, in the order of the rows.
        batch: images per inference.
        threads: CPU threads that an operator may use.
        workers: the number of processes that read images.
        calibration: the user's folder of calibration images; None: use the training split.
        rebuild: whether files in the cache are made again.
        scratch: a folder for temporary files.
        keep: called with the table whenever it has new results.
        on_progress: reports the current task, the steps done and the number of steps.
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
        """Make all rows of the table.

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
                f"models: found none of {len(entries)} rows that can run here, expected one or more; the first,"
                f" {entries[0].name}: {entries[0].row.error}"
            )
        return table()

    # --- files ------------------------------------------------------------------------------------

    def _prepare(self, place: int, source: Source, models: int) -> list[Entry]:
        """Make the rows of a model with what runs in them; `models` is the number of models."""
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
        """Make the rows of an exported file, one per back end that can run it."""
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
                    raise UsageError(f"`batch`: found {self.batch}, expected {low} to {high}")
                entry.row = replace(row, file=str(path), file_bytes=file_bytes(path))
                entry.what, entry.case = path, Case(subject, backend, row.precision, self.batch)
            entries.append(entry)
        return entries

    def _make(self, entry: Entry, network: nn.Module, exports: CachedExports) -> None:
        """Make what a row runs: the file for its back end, or for torch the network itself."""
        backend, precision = entry.row.backend, entry.row.precision
        entry.network = network
        _require(backend)
        if backend not in FORMATS:
            if precision == "int8":
                raise UsageError("`precision`: found int8, expected fp32 or fp16 with torch")
            folder = exports.folder()
            entry.row = replace(entry.row, file=str(folder), file_bytes=file_bytes(folder))
            entry.what, entry.case = network, Case(Subject(entry.spec.name, entry.spec), backend, precision, self.batch)
            return
        images = self._calibration(entry.spec) if precision == "int8" else None
        path = exports.file(backend, precision, images)
        entry.row = replace(entry.row, file=str(path), file_bytes=file_bytes(path))
        entry.what, entry.case = path, Case(Subject.load(path), backend, precision, self.batch)

    def _calibration(self, spec: ArchSpec) -> CalibrationImages:
        """Find the calibration images, once per task; for people, once per size of crops."""
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
        """Time all rows in turn."""
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
        """Return the same network's decisions in fp32; for a file, those of an fp32 file or network of its spec."""
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
        """Return the data, which is opened once per task."""
        if not isinstance(self.data, str):
            return self.data
        if task not in self._examples:
            self._examples[task] = open_data(self.data, task, self.settings.split, limit=self.settings.limit)
        return self._examples[task]

    def _check_data(self, network: nn.Module) -> None:
        """Check that the data fit a network, before it is exported and timed."""
        inference = prepare_inference(network)
        labels, guessed = known_labels(inference)
        match_data(inference.spec, labels, self._judged(inference.spec.task), guessed)


def _spec(source: Source) -> ArchSpec:
    """Load the spec of a network without its weights."""
    if not isinstance(source.opened, NetworkSource):
        return spec_of(source.opened)
    spec = source.opened.spec if isinstance(source.opened, ModelFolder) else load_spec(source.opened)
    height, width = source.size or (None, None)
    return spec.replace(height=height, width=width)


def _require(backend: str) -> None:
    """Check that a back end can run here.

    Raises:
        BackendError: it cannot; the message says what is missing, and how to get it.
    """
    found = find_backend(backend)
    if not found.ready:
        raise BackendError(found.about)


def _metadata(entry: Entry) -> Metadata:
    """Return the metadata of what a row runs: how images are prepared, and what outputs mean."""
    if entry.network is not None:
        return metadata_of(entry.network, OnnxOptions())
    return cast("Exported", open_model(cast("Path", entry.what))).metadata


def _references_first(entries: Sequence[Entry]) -> list[Entry]:
    """Sort the rows in fp32 before the rows that are compared with them."""
    return sorted(entries, key=lambda entry: entry.row.precision != "fp32")
