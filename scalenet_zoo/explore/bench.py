"""A bench: measures entries of the zoo beside a yardstick, and keeps what it measured.

    entry, precision --measure--> Figures (JSON, after each entry)

Kept figures are not measured again, and what a killed process measured is kept. Only one process measures at a time,
since two would disturb each other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import onnx
import torch
from torch import nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import Precision, require_backend
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.explore.figures import Figure, Figures, Setting, figures_path, load_figures
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.latency.measuring import prepare_yardstick
from scalenet_zoo.latency.precisions import QUANTISED_ON
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.latency.runners import Runner, check_batch, open_runner
from scalenet_zoo.latency.yardstick import RUNS, Visit, Yardstick, quiet
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.sources import load_spec

_log = logging.getLogger(__name__)

YARDSTICK = "mobilenetv2_050"
"""The entry that is timed beside the others, in fp32. It takes milliseconds, where the largest entry takes seconds."""
BENCH_VISITS, VISIT_SECONDS = 3, 8.0
"""Undisturbed visits to each entry, and the seconds after which disturbed ones are accepted."""
AGAIN, REST_SECONDS = 2, 10.0
"""How often an entry is measured again while every visit was disturbed, and the pause in seconds before each."""
MOST_TRIED = 15
"""Visits after which an entry is not measured again, even if all of them were disturbed."""
SLOW = 1000.0
"""Milliseconds per inference above which a visit is a single inference: one that long averages out its own noise."""


@dataclass
class Bench:
    """Measures entries in one setting; see `open_bench`.

    Attributes:
        setting: back end, threads and batch size.
        figures: what is known so far.
        visits: the least number of visits to each entry.
    """

    setting: Setting
    figures: Figures
    visits: int = BENCH_VISITS
    _measured: set[tuple[str, str]] = field(default_factory=set)
    _stack: ExitStack = field(default_factory=ExitStack)
    _yardstick: Yardstick | None = None
    _traced: tuple[ArchSpec, onnx.ModelProto] | None = None

    @property
    def measured(self) -> int:
        """How many figures this bench measured, or measured again; it found the others on disk."""
        return len(self._measured)

    @property
    def thorough(self) -> bool:
        """Whether an entry is measured again if every visit was disturbed."""
        return self.visits >= BENCH_VISITS

    def known(self, spec: ArchSpec, precision: Precision) -> Figure | None:
        """An entry's kept figure, if it has enough visits, and one of them was undisturbed or they are very many."""
        figure = self.figures.find(spec, precision)
        if figure is None or len(figure.visits) < self.visits:
            return None
        return figure if self.figures.quiet(figure) or len(figure.visits) >= MOST_TRIED else None

    def measure(
        self, spec: ArchSpec, precision: Precision, on_what: Callable[[str], None] = lambda what: None
    ) -> Figure:
        """Give an entry's figure: the kept one or, if there is none, one that is measured now and kept.

        A network is measured with random weights.

        Args:
            spec: the entry's spec.
            precision: the precision to run it in.
            on_what: called with what is being done, before anything that takes time.

        Raises:
            BackendError, ExportError: the back end cannot run the entry.
            TrainingError: another process is measuring.
            OutputError: the figure cannot be written.
        """
        if figure := self.known(spec, precision):
            return figure
        yardstick = self.make_ready(on_what)
        if figure := self.known(spec, precision):  # another process measured it meanwhile
            return figure
        on_what(f"measuring {spec.name} in {precision} on {self.setting.backend}")
        images = self._images(spec)
        model = self._model(spec, images, precision)
        with open_runner(model, images, self.setting.backend, self.setting.threads, precision) as runner:
            made = self._visit(runner, yardstick)
            for _ in range(AGAIN if self.thorough else 0):
                if quiet(made, yardstick.best):
                    break
                on_what(f"waiting, since this machine is disturbed, to measure {spec.name} again")
                time.sleep(REST_SECONDS)
                made += self._visit(runner, yardstick)
        self.figures = self.figures.with_visits(spec, precision, made)
        self.figures.save(figures_path(self.setting))
        self._measured.add((spec.name, precision))
        found = self.figures.find(spec, precision)
        assert found is not None
        return found

    def make_ready(self, on_what: Callable[[str], None]) -> Yardstick:
        """Lock the folder and prepare the yardstick, unless that is done already.

        `measure` calls this when it has to measure.

        Raises:
            BackendError: the back end cannot run the yardstick.
            TrainingError: another process is measuring.
            OutputError: figures cannot be written.
        """
        if self._yardstick is None:
            path = figures_path(self.setting)
            check_writable(path)
            on_what(f"preparing to measure on {self.setting.backend}")
            self._stack.enter_context(hold(path.parent))
            self.figures = load_figures(self.setting)
            settings = Settings(
                family="zoo", backend=self.setting.backend, threads=self.setting.threads, batch=self.setting.batch
            )
            constant = prepare_yardstick(load_spec(YARDSTICK), settings, self.figures.readings)
            self._yardstick = self._stack.enter_context(constant)
        return self._yardstick

    def _model(self, spec: ArchSpec, images: torch.Tensor, precision: Precision) -> nn.Module | onnx.ModelProto:
        """The entry as a network or, where one graph serves several precisions, as that graph, which is remembered."""
        if self.setting.backend not in QUANTISED_ON or precision == "fp16":
            return create_seeded(spec)
        if self._traced is None or self._traced[0] != spec:
            self._traced = spec, trace_graph(create_seeded(spec), images)
        return self._traced[1]

    def _images(self, spec: ArchSpec) -> torch.Tensor:
        shape = (spec.input.channels, spec.input.height, spec.input.width)
        check_batch(self.setting.batch, shape)
        return torch.randn(self.setting.batch, *shape, generator=torch.Generator().manual_seed(0))

    def _visit(self, runner: Runner, yardstick: Yardstick) -> list[Visit]:
        slow = runner.lap() > SLOW
        return yardstick.visit(runner, self.visits, VISIT_SECONDS, runs=1 if slow else RUNS)


@contextmanager
def open_bench(setting: Setting, visits: int = BENCH_VISITS) -> Iterator[Bench]:
    """Open a bench with the kept figures of a setting.

    Nothing is locked or prepared until something has to be measured.

    Args:
        setting: back end, threads and batch size.
        visits: the least number of visits to each entry.

    Raises:
        BackendError: the back end cannot run here.
        SpecError: the file of figures is damaged.
    """
    require_backend(setting.backend)
    bench = Bench(setting, load_figures(setting), visits)
    with bench._stack:
        yield bench
