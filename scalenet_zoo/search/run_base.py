"""What a run of either search has in common: its data, its folder, and what it was asked for."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scalenet_zoo._files import read_json, replacing, replacing_folder
from scalenet_zoo.accelerator import make_accelerator
from scalenet_zoo.backends import machine
from scalenet_zoo.data import open_data
from scalenet_zoo.errors import InputError, TrainingError
from scalenet_zoo.search.images import cached_images, check_data
from scalenet_zoo.search.processes import main_first
from scalenet_zoo.search.scoring import SharedSettings, validation_images
from scalenet_zoo.search.state import first_difference
from scalenet_zoo.supernet.loop import SUMMARY, WEIGHTS
from scalenet_zoo.training_log import LOG

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from scalenet_zoo.recipe import Recipe
    from scalenet_zoo.search.config import MultipathConfig, SearchConfig
    from scalenet_zoo.spec import ArchSpec, Task
    from scalenet_zoo.supernet.loop import SupernetSummary
    from scalenet_zoo.train import OnStep


RUN = "run.json"
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
    on_step: OnStep = lambda what, done, total: None
    about: Mapping[str, Any] = field(default_factory=dict)
    supernet: Path | None = None


class BaseRun:
    """A run in a folder.

    Args:
        config: what is asked for.
        folder: of the run.
        options: where and how it is told of.
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

    def __init__(
        self,
        config: SearchConfig | MultipathConfig,
        folder: Path,
        options: RunOptions,
        task: Task,
        recipe: Recipe,
        **reading: Any,  # noqa: ANN401 - as open_data has them
    ) -> None:
        self.folder, self.options, self.recipe = folder, options, recipe
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

    def begin(self, values: Mapping[str, Any], may_change: Collection[str]) -> None:
        """Refuse to go on with another configuration; of a new run, write it down, and take another's supernet.

        Args:
            values: the configuration, the space in full.
            may_change: fields that what was done does not depend on.

        Raises:
            InputError: there is no supernet to be taken.
            TrainingError: the folder holds a run with another configuration, or the supernet is of another.
            OutputError: a file cannot be written.
        """
        path = self.folder / RUN
        fixed = {name: value for name, value in values.items() if name not in may_change}
        about = _read_about(path) if path.exists() else None
        if about:
            before, now = (self._settled(config) for config in (about["config"], fixed))
            if difference := first_difference(before, now):
                name, found, expected = difference
                raise TrainingError(
                    f"{self.folder}: {name}: found {found} in this run, expected {expected}, as now given;"
                    " another configuration needs another folder"
                )
        if self.options.supernet is not None:
            self._take_supernet(self.options.supernet, fixed)
        with replacing(path) as temporary:
            about = {"config": fixed, "machine": about["machine"] if about else machine()}
            temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        with replacing(self.folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")

    def _settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that something in the folder depends on."""
        trained, searched = ((self.folder / name).exists() for name in ("supernet", "search"))
        return {name: value for name, value in config.items() if (searched if name in _OF_SEARCH else trained)}

    def _take_supernet(self, source: Path, config: Mapping[str, Any]) -> None:
        """Copy the supernet of another run, unless the folder has one."""
        target = self.folder / "supernet"
        if target.exists():
            return
        if not (source / "supernet" / SUMMARY).exists():
            raise InputError(f"{source}: found no trained supernet, expected one to search with")
        theirs, ours = (
            {name: each.get(name) for name in _OF_SUPERNET} for each in (_read_about(source / RUN)["config"], config)
        )
        if difference := first_difference(theirs, ours):
            name, found, expected = difference
            raise TrainingError(f"{source}: {name}: found {found} in this run, expected {expected}, as now given")
        with replacing_folder(target) as new:
            for name in (WEIGHTS, SUMMARY, LOG):
                shutil.copy(source / "supernet" / name, new / name)

    def check_validation(self, spec: ArchSpec, settings: SharedSettings) -> None:
        """Decode the images that a network will be judged by, as it wants them: what is wrong is found out early.

        Raises:
            InputError: the data are unfit.
            OutputError: the folder cannot be written.
        """
        images, folder = validation_images(self.validation, settings), self.folder / "images"
        limit = self.recipe.broken_limit
        main_first(lambda: len(cached_images(images, spec, folder, self.options.workers, limit)))

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


def _read_about(path: Path) -> dict[str, Any]:
    """What a run was asked for, and its machine: run.json."""
    try:
        about = read_json(path)
        return {"config": dict(about["config"]), "machine": about["machine"]}
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: {error}") from None
