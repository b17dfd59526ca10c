"""A whole search, from data to specs. Work that is already done is not repeated.

RUN/config.yaml, run.json   the configuration; versions and machine
RUN/latency                 the profile of the space, if latency is limited
RUN/supernet                checkpoints, log, weights; for ScaleNAS, the teacher, too
RUN/scores.jsonl, images    files of the scorer
RUN/search/SEARCH.json      `ledger.Ledger` of the method's own search and of each baseline
RUN/specs/NAME.json ...     the networks found, for `build`, `train`, `export`; for ScaleNet, family.json, too
RUN/baselines/SEARCH/       specs of the networks that the baselines found
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import Provenance, Result
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.core.files import replacing, replacing_folder
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.search.config import ABOUT_RUN, RunAbout
from scalenet_zoo.search.images import cached_images, check_data
from scalenet_zoo.search.ledger import first_difference
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.method import Origin
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scoring import Scorer, validation_images
from scalenet_zoo.supernet.summary import SUMMARY, SUPERNET_WEIGHTS, SupernetSummary, trained_supernet
from scalenet_zoo.training.accelerator import alone_in, make_accelerator
from scalenet_zoo.training.log import LOG
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.zoo.create import with_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.search.config import SearchConfig
    from scalenet_zoo.search.ledger import Ledger, ScoredNetwork
    from scalenet_zoo.search.limits import SearchBounds
    from scalenet_zoo.search.method import Method, Written

_OF_SEARCH = ("limits", "search", "latency")
"""Fields of the configuration that may change until a search begins; the others may until the supernet exists."""
_OF_SUPERNET = ("method", "data", "train_split", "limit", "ignore_index", "joints", "space", "supernet")
"""Fields of the configuration that the supernet depends on."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoopOptions):
    """Options that do not change the result of a search; `LoopOptions` has those of the supernet's training.

    Attributes:
        on_progress: called with what is being done, how much of it is done, and how much there is.
        about: details to add to the provenance of the networks that are found.
        supernet: another run whose supernet is used instead of training one; None: train one.
    """

    on_progress: OnProgress = lambda what, done, total: None
    about: Mapping[str, Any] = field(default_factory=dict)
    supernet: Path | None = None


class Run:
    """A run in a folder; work that an earlier session of the run did is not repeated.

    Args:
        kind: the method.
        config: a configuration of that method.
        folder: the run's folder.
        options: options that do not change the result.

    Attributes:
        method: the method, with the labels of the data.
        accelerator: devices and processes.
        training, validation: the data.
        recipe: the recipe of the supernet.

    Raises:
        InputError: data, space and configuration do not fit each other.
        BudgetError: no network can keep the limits.
        BackendError: the back end whose latency is limited cannot run here.
    """

    def __init__(self, kind: type[Method[Any]], config: SearchConfig, folder: Path, options: RunOptions) -> None:
        config.check()
        self.config, self.folder, self.options, self.recipe = config, folder, options, config.make_recipe()
        self.accelerator = make_accelerator(self.recipe, options.cpu)
        splits, task = (config.train_split, config.val_split), config.task
        self.training, self.validation = check_data(
            *(open_data(config.data, task, split, limit=config.limit, **config.reading) for split in splits), task=task
        )
        if not self.training.labels.names:
            raise InputError(f"{config.data}: found no names of classes, expected data that name them")
        self.method = kind(config, self.training.labels)
        self._values = config.model_dump(mode="json") | {"space": self.method.space.model_dump(mode="json")}
        self.latency: LatencyMeter | None = None
        if config.limits.on_latency:
            self.latency = LatencyMeter(self.method, folder / "latency", options.on_progress)
        self.method.check_limits()

    def train(self) -> SupernetSummary:
        """Train the supernet, if it is not trained yet.

        Raises:
            TrainingError: another run is working in the folder, or the folder has a run with another configuration.
        """
        with self.at_work():
            return self.load_supernet()

    def search(self) -> Written:
        """Do the work that is missing, and write the specs of the networks found.

        Returns:
            What the method's own search wrote.

        Raises:
            TrainingError: another run is working in the folder, or the folder has a run with another configuration.
        """
        with self.at_work():
            return self._search()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Lock the folder for this run; in a new folder, write the configuration, and copy the other run's supernet.

        Raises:
            InputError: the other run has no trained supernet.
            TrainingError: another run is working in the folder, the folder has a run with another configuration, or
                the supernet was trained with another configuration.
            SpecError: a file of an earlier session is damaged.
            OutputError: a file cannot be written.
        """
        on_main_rank(self.check)  # before the lock, so that an invalid run makes no folder
        with alone_in(self.folder):
            on_main_rank(self._begin)
            yield

    def check(self) -> None:
        """Compare the configuration with that of an earlier session, and with that of the other run's supernet.

        Raises:
            InputError: the other run has no trained supernet.
            TrainingError: the configurations differ.
            SpecError: a file of an earlier session is damaged.
        """
        if (path := self.folder / ABOUT_RUN).exists():
            before, now = (self._settled(config) for config in (RunAbout.load(path).config, self._fixed))
            if difference := first_difference(before, now):
                raise TrainingError(
                    f"{self.folder}: {_told(difference)}, as now given; another configuration needs another folder"
                )
        source = self.options.supernet
        if source is not None and not (self.folder / "supernet").exists():
            trained_supernet(source)
            theirs, ours = (
                {name: each.get(name) for name in _OF_SUPERNET}
                for each in (RunAbout.load(source / ABOUT_RUN).config, self._fixed)
            )
            if difference := first_difference(theirs, ours):
                raise TrainingError(f"{source}: {_told(difference)}, as now given")

    def load_supernet(self) -> SupernetSummary:
        """Load the method's supernet into memory, or train it if it is not trained yet.

        Returns:
            The summary of the training.

        Raises:
            WeightsError: the supernet's weights are damaged, or are of another space.
        """
        options, folder = self.options, self.folder / "supernet"
        with with_seed(self.recipe.seed):
            if (folder / SUMMARY).exists():
                return self.method.load(folder, self.accelerator.device)
            return self.method.train(self.training, self.validation, folder, options, options.on_progress)

    def make_scorer(self, summary: SupernetSummary) -> Scorer:
        """Make the scorer, which scores networks with the supernet's weights.

        Raises:
            TrainingError: the folder has scores of other weights, data or settings.
            OutputError: the folder cannot be written.
        """
        return Scorer(
            self.method,
            self.training,
            self.validation,
            self.folder,
            summary.weights_sha256,
            self.options.workers,
            self.recipe.broken_limit,
        )

    def record(
        self, search: str, scorer: Scorer, bounds: SearchBounds, ledgers: Mapping[str, Ledger]
    ) -> Record[Any, Any]:
        """Make the record of a search.

        Args:
            search: one of the method's searches.
            scorer: scores networks.
            bounds: the limits, before anything is measured for this search.
            ledgers: the ledgers of the searches before it, by name.

        Raises:
            TrainingError: the file has a search with other settings.
            SpecError: the file is damaged.
        """
        method, space = self.method, self.method.space
        settings = {
            **method.settings(search, ledgers),
            "supernet": scorer.identity,
            "scoring": self.config.scoring.model_dump(mode="json"),
            **({"latency": self.config.latency.model_dump(mode="json")} if self.latency else {}),
        }
        first = method.ledger(
            method=method.name,
            search=search,
            name=self.config.name,
            space=space.model_dump(mode="json"),
            space_hash=space.hash,
            settings=settings,
        )
        path = self.folder / "search" / f"{search}.json"
        return Record(path, first, scorer, bounds, self.latency, self._tell)

    def _search(self) -> Written:
        method, own = self.method, next(iter(self.method.searches))
        model = self.latency.model() if self.latency else None
        if model:  # limits out of reach are refused before the long work
            method.check_limits(model)
        self._check_validation()
        summary = self.load_supernet()
        scorer, bounds = self.make_scorer(summary), method.bounds(model)
        ledgers: dict[str, Ledger] = {}
        written: dict[str, Written] = {}
        for search in (own, *self.config.baselines):
            record = self.record(search, scorer, bounds, ledgers)
            ledgers[search] = ledger = record.run(partial(method.search, search, record, ledgers))
            folder = self.folder / ("specs" if search == own else f"baselines/{search}")
            origin = self._origin(ledger, summary)
            written[search] = on_main_rank(partial(method.write, ledger, folder, origin))
        return written[own]

    def _check_validation(self) -> None:
        """Decode the validation images, so that unusable ones are refused before the long work."""
        images, spec = validation_images(self.validation, self.config.scoring), self.method.largest
        folder, limit = self.folder / "images", self.recipe.broken_limit
        interface = self.method.interface(spec)
        on_main_rank(lambda: len(cached_images(images, spec, folder, self.options.workers, limit, interface)))

    def _tell(self, ledger: Ledger) -> None:
        self.options.on_progress(*self.method.tell(ledger))

    def _origin(self, ledger: Ledger, summary: SupernetSummary) -> Origin:
        """The provenance that the specs of a search's networks have."""
        method, config, data, here = self.method, self.config, public_source(self.config.data), machine()
        provenance = Provenance(
            source=f"searched in the space {method.space.name} on {data}",
            method=method.searches[ledger.search],
            paper=method.paper,
            details={
                "space": method.space.name,
                "space_hash": method.space.hash,
                "data": f"{data} {config.train_split}, scored on {config.val_split}",
                "limits": config.limits.model_dump(mode="json", exclude_defaults=True),
                "supernet": {"steps": summary.steps, "images": summary.images, "seconds": summary.seconds},
                "networks_scored": ledger.evaluations,
                "search_seconds": round(ledger.seconds, 1),
                "machine": here["gpu"] or here["cpu"],
                "versions": {name: here["versions"][name] for name in ("scalenet-zoo", "torch")},
                **self.options.about,
            },
        )
        of_machine = self.latency.told if self.latency else ""

        def results(network: ScoredNetwork) -> tuple[Result, ...]:
            measured = (
                (f"supernet_{method.metric}", network.score, f"{data} {config.val_split}"),
                ("latency_ms", network.measured_ms, of_machine),
            )
            return tuple(
                Result(metric=metric, value=value, data=where, origin="measured")
                for metric, value, where in measured
                if value is not None
            )

        return Origin(provenance, results)

    def _begin(self) -> None:
        """Check again, now that nobody else can change the folder, and write the configuration."""
        self.check()
        target, path = self.folder / "supernet", self.folder / ABOUT_RUN
        if self.options.supernet is not None and not target.exists():
            with replacing_folder(target) as new:
                for name in (SUPERNET_WEIGHTS, SUMMARY, LOG):
                    shutil.copy(self.options.supernet / "supernet" / name, new / name)
        about = RunAbout(config=self._fixed, machine=RunAbout.load(path).machine if path.exists() else machine())
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(about.model_dump(), indent=2) + "\n", encoding="utf-8")
        with replacing(self.folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(self._values, sort_keys=False), encoding="utf-8")

    @property
    def _fixed(self) -> dict[str, Any]:
        """The configuration without the fields that may change at any time."""
        return {name: value for name, value in self._values.items() if name not in self.method.may_change}

    def _settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields on which work in the folder already depends."""
        trained, searched = ((self.folder / name).exists() for name in ("supernet", "search"))
        return {name: value for name, value in config.items() if (searched if name in _OF_SEARCH else trained)}


def _told(difference: tuple[str, Any, Any]) -> str:
    name, found, expected = difference
    return f"{name}: found {quoted(found)} in this run, expected {quoted(expected)}"
