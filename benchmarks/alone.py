"""Networks trained alone, several at a time; what each reaches is written down at once: a run can be resumed."""

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.search.standalone import Standalone, StandaloneGroup, StandaloneRow
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network


@dataclass(frozen=True)
class Data:
    """What networks learn from, in the split train, and are judged by, in the split test.

    Attributes:
        source: as `--data` of `train` takes it.
        task: of the networks.
        reading: other arguments of `open_data`.
        metric: that they are judged by; None: the task's first.
    """

    source: str
    task: Task
    reading: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None


@dataclass(frozen=True)
class Training:
    """A network to be trained, as a row without its figure; it may stand under several names, once a seed of each."""

    group: StandaloneGroup
    name: str
    stage: int
    seed: int
    spec: ArchSpec
    score: float | None

    @property
    def row(self) -> tuple[StandaloneGroup, str, int]:
        return self.group, self.name, self.seed

    @property
    def folder(self) -> str:
        return f"{self.spec.hash[:16]}-{self.spec.input.height}-seed{self.seed}"


def train_missing(
    trainings: Iterable[Training],
    path: Path,
    folder: Path,
    data: Data,
    recipe: dict[str, JsonValue],
    jobs: int,
) -> None:
    """Train networks whose rows are not there yet.

    Args:
        trainings: all that there shall be.
        path: of the `Standalone` document.
        folder: for the runs, one a network and seed.
        data: to train and judge by.
        recipe: values that differ from `Recipe`'s.
        jobs: trainings at a time, a thread each.
    """
    rows = {(row.group, row.name, row.seed): row for row in (Standalone.load(path).rows if path.exists() else ())}
    missing: dict[str, list[Training]] = {}
    for training in sorted(trainings, key=lambda each: -each.spec.cost.macs):  # the longest first: no core idles
        if training.row not in rows:
            missing.setdefault(training.folder, []).append(training)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running = {
            pool.submit(_train, twins[0].spec, folder / name, data, recipe, twins[0].seed): twins
            for name, twins in missing.items()
        }
        for done, future in enumerate(as_completed(running), 1):
            reached, epochs = future.result()
            for training in running[future]:
                cost = training.spec.cost
                rows[training.row] = StandaloneRow(
                    group=training.group,
                    name=training.name,
                    stage=training.stage,
                    seed=training.seed,
                    macs=cost.macs,
                    params=cost.params,
                    reached=reached,
                    epochs=epochs,
                    score=training.score,
                )
                print(
                    f"{training.name}, seed {training.seed}: {reached:.3f} ({done} of {len(running)})", file=sys.stderr
                )
            Standalone(rows=tuple(rows[row] for row in sorted(rows))).save(path)


def _train(spec: ArchSpec, folder: Path, data: Data, values: dict[str, JsonValue], seed: int) -> tuple[float, int]:
    """Train a network, evaluate it once, at the end: its figure and the epochs; in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # of the initial weights
    recipe = Recipe().replace({**values, "seed": seed})
    training, test = (open_data(data.source, data.task, split, **data.reading) for split in ("train", "test"))
    options = Options(workers=0, keep=1, val_interval=recipe.epochs, cpu=True)
    trained = train_network(create_model(spec), recipe, training, test, folder, options, resume=True)
    figures = {name: value for name, value in trained.last.items() if name.startswith(data.metric or trained.metric)}
    return float(next(iter(figures.values()))), recipe.epochs
