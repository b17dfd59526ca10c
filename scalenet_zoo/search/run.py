"""What a run of either search has in common: its data, its folder, and what it was asked for."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.core.files import replacing, replacing_folder
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.search.config import RUN_FILE, RunAbout
from scalenet_zoo.search.images import cached_images, check_data
from scalenet_zoo.search.scalenet.state import first_difference
from scalenet_zoo.search.scoring import validation_images
from scalenet_zoo.supernet.summary import SUMMARY, SUPERNET_WEIGHTS, trained_supernet
from scalenet_zoo.training.accelerator import alone_in, make_accelerator
from scalenet_zoo.training.log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scalenet_zoo.arch.spec import ArchSpec, Task
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.search.config import MultipathConfig, SearchConfig
    from scalenet_zoo.search.settings import SharedSettings
    from scalenet_zoo.spaces.space_file import SpaceFile
    from scalenet_zoo.supernet.summary import SupernetSummary
    from scalenet_zoo.training.recipe import Recipe


_OF_SEARCH = ("limits", "search", "latency")
"""Fields of the configuration that may change until a search has begun; the others, until there is a supernet."""
_OF_SUPERNET = ("method", "data", "train_split", "limit", "ignore_index", "joints", "space", "supernet")
"""Fields of the configuration that a supernet depends on."""


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result of a search.

    Attributes:
        workers: processes that load images, for each process that trains.
        save_every: steps between checkpoints of the supernet, besides those after each epoch.
        log_interval: steps between lines of its log.
        cpu: stay on the CPU, GPU or not.
        on_step: told what is being done, how much of it is done, and how much there is.
        about: what else to say in the family's provenance.
        supernet: another run, whose supernet is taken instead of training one.
    """

    workers: int = 2
    save_every: int | None = None
    log_interval: int = 50
    cpu: bool = False
    on_step: OnProgress = lambda what, done, total: None
    about: Mapping[str, Any] = field(default_factory=dict)
    supernet: Path | None = None


class BaseRun:
    """A run in a folder.

    Args:
        config: what is asked for.
        folder: of the run.
        options: where and how it is told of.
        space: to search.
        task: of the networks.
        recipe: of the supernet.
        reading: other arguments of `open_data`.

    Attributes:
        accelerator: devices and processes.
        training, validation: the data.
        classes: classes or joints of the data.
        recipe: of the supernet.

    Raises:
        InputError: the data are unfit.
    """

    may_change: ClassVar[tuple[str, ...]]
    """Fields of the configuration that what was done does not depend on."""

    def __init__(
        self,
        config: SearchConfig | MultipathConfig,
        folder: Path,
        options: RunOptions,
        space: SpaceFile,
        task: Task,
        recipe: Recipe,
        **reading: Any,  # noqa: ANN401 - as open_data has them
    ) -> None:
        self.folder, self.options, self.recipe = folder, options, recipe
        self._values = config.model_dump(mode="json") | {"space": space.model_dump(mode="json")}
        self.accelerator = make_accelerator(recipe, options.cpu)
        splits = (config.train_split, config.val_split)
        self.training, self.validation = check_data(
            *(open_data(config.data, task, split, limit=config.limit, **reading) for split in splits), task=task
        )
        self.classes = len(self.training.labels.names)
        if not self.classes:
            raise InputError(f"{config.data}: found no names of classes, expected data that tell them")

    @property
    def training_options(self) -> dict[str, Any]:
        """How the supernet's training runs, and how it is told of."""
        names = ("workers", "save_every", "log_interval", "cpu", "on_step")
        return {name: getattr(self.options, name) for name in names}

    def state_path(self, method: str) -> Path:
        """Where a search writes its state."""
        return self.folder / "search" / f"{method}.json"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be the only run in the folder; of a new one, write down what is asked for, and take another's supernet.

        Raises:
            InputError: there is no supernet to be taken.
            TrainingError: another run is at work in the folder, it holds one with another configuration, or the
                supernet is of another.
            SpecError: a file of an earlier sitting is damaged.
            OutputError: a file cannot be written.
        """
        on_main_rank(self.check)  # of what cannot be, no folder is made
        with alone_in(self.folder):
            on_main_rank(self._begin)
            yield

    def check(self) -> None:
        """Compare the configuration with that of an earlier sitting, and with that of the supernet to be taken.

        Raises:
            InputError: there is no supernet to be taken.
            TrainingError: a configuration is another one.
            SpecError: a file of an earlier sitting is damaged.
        """
        if (path := self.folder / RUN_FILE).exists():
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
                for each in (RunAbout.load(source / RUN_FILE).config, self._fixed)
            )
            if difference := first_difference(theirs, ours):
                raise TrainingError(f"{source}: {_told(difference)}, as now given")

    def _begin(self) -> None:
        """Check once more, now that nobody else can change the folder, and write down what is asked for."""
        self.check()
        target, path = self.folder / "supernet", self.folder / RUN_FILE
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
        """The configuration without what may change."""
        return {name: value for name, value in self._values.items() if name not in self.may_change}

    def _settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that something in the folder depends on."""
        trained, searched = ((self.folder / name).exists() for name in ("supernet", "search"))
        return {name: value for name, value in config.items() if (searched if name in _OF_SEARCH else trained)}

    def check_validation(self, spec: ArchSpec, settings: SharedSettings) -> None:
        """Decode the images that a network will be judged by, as it wants them: what is wrong is found out early.

        Raises:
            InputError: the data are unfit.
            OutputError: the folder cannot be written.
        """
        images, folder = validation_images(self.validation, settings), self.folder / "images"
        limit = self.recipe.broken_limit
        on_main_rank(lambda: len(cached_images(images, spec, folder, self.options.workers, limit)))

    def details(self, summary: SupernetSummary, scored: int, seconds: float) -> dict[str, Any]:
        """What a found network's provenance says of the search, beside space and limits.

        Args:
            summary: of the supernet's training.
            scored: how many networks were.
            seconds: that the search took.
        """
        here = machine()
        return {
            "supernet": {"steps": summary.steps, "images": summary.images, "seconds": summary.seconds},
            "networks_scored": scored,
            "search_seconds": round(seconds, 1),
            "machine": here["gpu"] or here["cpu"],
            "versions": {name: here["versions"][name] for name in ("scalenet-zoo", "torch")},
            **self.options.about,
        }


def _told(difference: tuple[str, Any, Any]) -> str:
    name, found, expected = difference
    return f"{name}: found {quoted(found)} in this run, expected {quoted(expected)}"
