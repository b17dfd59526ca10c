"""Networks trained alone, several at a time. Each result is written at once, so a run can be resumed."""

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
    """Data that networks are trained on (split train) and judged by (split test).

    Attributes:
        source: as `--data` of `train` takes it.
        task: the networks' task.
        reading: other arguments of `open_data`.
        metric: the metric that networks are judged by; None: the first of the task.
    """

    source: str
    task: Task
    reading: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None


@dataclass(frozen=True)
class Training:
    """A network to be trained: a row without its result. It may appear under several names, once per seed of each."""

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
    """Train the networks whose rows are still missing.

    Args:
        trainings: all trainings of the run.
        path: the file of the `Standalone` document.
        folder: the folder for the runs, one per network and seed.
        data: data to train on and to judge by.
        recipe: values that differ from the defaults of `Recipe`.
        jobs: number of trainings at a time, with one thread each.
    """
    rows = {(row.group, row.name, row.seed): row for row in (Standalone.load(path).rows if path.exists() else ())}
    missing: dict[str, list[Training]] = {}
    for training in sorted(trainings, key=lambda each: -each.spec.cost.macs):  # the longest first, to keep cores busy
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
    """Train a network in this process, and evaluate it once at the end; return the result and the epochs."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # for the initial weights
    recipe = Recipe().replace({**values, "seed": seed})
    training, test = (open_data(data.source, data.task, split, **data.reading) for split in ("train", "test"))
    options = Options(workers=0, keep=1, val_interval=recipe.epochs, cpu=True)
    trained = train_network(create_model(spec), recipe, training, test, folder, options, resume=True)
    figures = {name: value for name, value in trained.last.items() if name.startswith(data.metric or trained.metric)}
    return float(next(iter(figures.values()))), recipe.epochs
