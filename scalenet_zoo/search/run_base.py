"""What a run of either search has in common: its data, its folder, and what it was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scalenet_zoo._files import read_json, replacing
from scalenet_zoo.accelerator import make_accelerator
from scalenet_zoo.backends import machine
from scalenet_zoo.data import open_data
from scalenet_zoo.errors import InputError, TrainingError
from scalenet_zoo.search.images import check_data
from scalenet_zoo.search.state import first_difference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from scalenet_zoo.recipe import Recipe
    from scalenet_zoo.search.config import BaseConfig
    from scalenet_zoo.spec import Task
    from scalenet_zoo.supernet.loop import SupernetSummary
    from scalenet_zoo.train import OnStep


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
    """

    workers: int = 2
    save_every: int | None = None
    log_interval: int = 50
    cpu: bool = False
    on_step: OnStep = lambda what, done, total: None
    about: Mapping[str, Any] = field(default_factory=dict)


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

    Raises:
        InputError: the data are unfit.
    """

    def __init__(
        self,
        config: BaseConfig,
        folder: Path,
        options: RunOptions,
        task: Task,
        recipe: Recipe,
        **reading: Any,  # noqa: ANN401 - as open_data has them
    ) -> None:
        self.folder, self.options = folder, options
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

    def check_or_write(self, values: Mapping[str, Any], may_change: Collection[str]) -> None:
        """Refuse to go on with another configuration; of a new run, write it down.

        Args:
            values: the configuration, the space in full.
            may_change: fields that what was done does not depend on.

        Raises:
            TrainingError: the folder holds a run with another configuration.
            OutputError: a file cannot be written.
        """
        path = self.folder / "run.json"
        fixed = {name: value for name, value in values.items() if name not in may_change}
        if path.exists():
            try:
                before = read_json(path)["config"]
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{path}: {error}") from None
            if difference := first_difference(before, fixed):
                name, found, expected = difference
                raise TrainingError(
                    f"{self.folder}: {name}: found {found} in this run, expected {expected}, as now given;"
                    " another configuration needs another folder"
                )
        else:
            with replacing(path) as temporary:
                about = {"config": fixed, "machine": machine()}
                temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        with replacing(self.folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")

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
