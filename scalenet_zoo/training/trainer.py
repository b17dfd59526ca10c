"""Training of a stand-alone network, for any task, on one process or many: the loop of `loop.py` with one network.

    batches --mixup--> network --losses--> gradients, summed over parts --> optimiser --> moving average
                          ^           ^                                                        |
                          |        teacher's output                                            v
                  RUN/checkpoints: network, average, optimiser                 evaluate, after an epoch: RUN/best

The network is trained in place, and its own `spec` and `pretrained_cfg` do not change. The files of the run describe it
with the labels of the data, the measured results and the details of its training.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from scalenet_zoo.arch.labels import match_labels
from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result, spec_of, unwrapped
from scalenet_zoo.core.distributed import rank_and_world
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.digits import drawing_of
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.evaluate import check_labels, evaluate_network, match_data
from scalenet_zoo.inference.metrics import PRIMARY
from scalenet_zoo.inference.tiling import OVERLAP
from scalenet_zoo.networks.sync_batch_norm import synchronise_batch_norm
from scalenet_zoo.training.accelerator import seed_step
from scalenet_zoo.training.checkpoint import Checkpoint, Progress, load_newest, save_checkpoint
from scalenet_zoo.training.doubts import doubts
from scalenet_zoo.training.log import LOG, RUN_FILE, plot_curves, read_log
from scalenet_zoo.training.loop import LoopOptions, TrainingLoop, identity
from scalenet_zoo.training.losses import teacher_loss
from scalenet_zoo.training.optimisation import make_optimizer, make_scheduler
from scalenet_zoo.training.recipe import Recipe, load_recipe
from scalenet_zoo.zoo.create import with_seed
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model

_logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
"""The file with the recipe, beside RUN/run.json."""


@dataclass(frozen=True)
class EpochReport:
    """The figures of a finished epoch.

    Attributes:
        epoch: the number of the epoch, from 1.
        epochs: the number of epochs of the run.
        loss: the mean training loss of the epoch; None: this session of the run took no step of it.
        metric: the name of the task's metric.
        value: the metric on the validation images; None: this epoch was not evaluated.
        best: the best value so far; None: no epoch has been evaluated yet.
        lr: the learning rate at the end of the epoch.
        images_per_second: the speed of training, without evaluation; None in the same case as `loss`.
    """

    epoch: int
    epochs: int
    loss: float | None
    metric: str
    value: float | None
    best: float | None
    lr: float
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Options(LoopOptions):
    """Options that do not change the result of a run, in addition to those of `LoopOptions`.

    Attributes:
        val_interval: epochs between evaluations; the last epoch is always evaluated.
        about: details to add to the provenance in the spec, such as the command.
        on_epoch: called after each epoch, in every process.
    """

    val_interval: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)
    on_epoch: Callable[[EpochReport], None] = lambda report: None


@dataclass(frozen=True)
class Fitted:
    """The outcome of a run.

    Attributes:
        run: the folder of the run; `best` in it holds the best network.
        metric: the name of the task's metric.
        best: the best value of the metric on the validation images.
        epoch: the epoch, from 1, after which the best value was reached.
        last: all metrics at the end, with the step and the epoch.
        seconds: the duration of the run, including evaluation.
        broken: the names of the images that could not be read.
    """

    run: Path
    metric: str
    best: float
    epoch: int
    last: Mapping[str, Any]
    seconds: float
    broken: tuple[str, ...]


def train_network(
    network: nn.Module,
    recipe: Recipe,
    training: Examples | Stream,
    validation: Examples | Stream,
    run: Path,
    options: Options | None = None,
    teacher: nn.Module | None = None,
    resume: bool = False,
    on_step: OnProgress = lambda what, done, total: None,
) -> Fitted:
    """Train a network; write checkpoints, the best network, figures and curves to a folder.

    Args:
        network: a network from `create_model`, with as many classes or joints as the data have. It is trained in place
            and keeps its own `spec` and `pretrained_cfg`.
        recipe: the recipe to train with.
        training: the examples to learn from.
        validation: the examples that choose the best epoch.
        run: the folder to write to.
        options: where to train, and how often to save and to log.
        teacher: a network whose outputs the network also learns from.
        resume: continue from the newest intact checkpoint in the folder, if there is one.
        on_step: called at every step with what is being done, the number of steps done, and the total.

    Returns:
        The outcome: the folder of the run, the metrics, and the epoch with the best value.

    Raises:
        InputError: recipe, data and network do not fit together, or too many images cannot be read.
        WeightsError: a checkpoint is damaged, or of another architecture.
        TrainingError: the loss is not finite, the folder holds another run, or another process works in it.
        OutputError: a file cannot be written.
    """
    return Trainer(network, recipe, training, validation, run, options or Options(), teacher).run(on_step, resume)


class Trainer(TrainingLoop[Fitted]):
    """The run that trains one network; it takes the arguments of `train_network`."""

    record = RUN_FILE
    options: Options

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        training: Examples | Stream,
        validation: Examples | Stream,
        run: Path,
        options: Options,
        teacher: nn.Module | None,
    ) -> None:
        network = unwrapped(network)
        with with_seed(recipe.seed):
            _fit_head(network, training)
        self.interface = Interface.of_network(network).model_copy(
            update={"labels": training.labels, "drawing": drawing_of(training.source)}
        )
        self.validation = validation
        super().__init__(spec_of(network), self.interface, recipe, training, run, options)
        match_data(self.spec, training.labels, validation)
        network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.average = (
            ModelEmaV3(network, recipe.model_ema_decay, use_warmup=True) if recipe.model_ema_decay is not None else None
        )
        self.network = synchronise_batch_norm(network, self.device) if self.processes > 1 else network
        optimizer = make_optimizer(self.network, recipe)
        self.scheduler = make_scheduler(optimizer, recipe, self.steps_per_epoch)
        model = torch.compile(self.network) if recipe.torchcompile else self.network
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.teacher = None
        if teacher is not None:
            self.teacher = teacher.to(self.device, memory_format=self.memory_format).eval()  # type: ignore[call-overload]
            _check_teacher(spec_of(teacher), self.spec)
            check_labels(spec_of(teacher), Interface.of_network(teacher).labels, training)
        self.learn = teacher_loss(self.spec.task, recipe.distill_temperature)
        self.metric = PRIMARY[self.spec.task]

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average, or the trained network itself."""
        return self.average.module if self.average is not None else self.network

    def take_step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:  # noqa: D102
        total, broken = torch.zeros((), device=self.device), []
        for part in range(self.parts):
            batch = next(batches)
            seed_step(self.recipe.seed, self.step, part, self.rank)  # loaders draw random numbers, too
            broken += batch["broken"]
            apart = self.accelerator.no_sync(self.model) if part + 1 < self.parts else nullcontext()
            with apart:
                loss = self._loss(batch["image"], batch["target"]) / self.parts
                if part == 0:
                    self.optimizer.zero_grad()  # here, so that the backward pass reuses the memory at once
                self.accelerator.backward(loss)
            total += loss.detach()
        if self.recipe.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, self.step + 1)
        return total, broken

    def _loss(self, images: Tensor, target: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        if self.mixup is not None:
            images, target = self.mixup(images, target)
        images = images.contiguous(memory_format=self.memory_format)
        output = self.model(images)
        loss = self.loss(output, target)
        if self.teacher is not None:
            with torch.no_grad(), self.accelerator.autocast():
                taught = self.teacher(images)
            loss = loss + self.recipe.distill_weight * self.learn(output, taught)
        return loss

    def end_epoch(self, epoch: int, on_step: OnProgress) -> None:
        """Evaluate the network or its moving average if that is due, save it if it is the best so far, and report."""
        is_due = epoch % self.options.val_interval == 0 or epoch == self.recipe.epochs
        value = self._evaluate(epoch, on_step) if is_due else None
        self.options.on_epoch(
            EpochReport(
                epoch=epoch,
                epochs=self.recipe.epochs,
                loss=self.epoch_loss,
                metric=self.metric,
                value=value,
                best=None if self.best is None else self.best[0],
                lr=max(group["lr"] for group in self.optimizer.param_groups),
                images_per_second=self.epoch_rate,
            )
        )

    def _evaluate(self, epoch: int, on_step: OnProgress) -> float:
        """Evaluate the network, save it if it is the best so far, and return the task's metric."""
        on_step(self._describe("evaluating"), self.step, self.total_steps)
        found = evaluate_network(
            self._described(),
            self.validation,
            batch_size=max(1, self.recipe.batch_size // self.parts // self.processes),
            workers=self.options.workers,
            overlap=OVERLAP if self.recipe.own_resolution else None,
            rank=self.rank,
            world=self.processes,
        )
        value = float(found.metrics[self.metric])  # type: ignore[arg-type] # it is not a dict
        if self.best is None or value > self.best[0]:
            self.best = value, self.step
            if self.accelerator.is_main_process:
                with replacing_folder(self.folder / "best") as folder:
                    save_model(self._described(metrics=found.metrics), folder)
        if self.log is not None:
            self.log.write(self.step, "val", {"epoch": epoch, **found.metrics})
        self.doing = self._describe(f"{self.metric} {value:.4g}")
        on_step(self.doing, self.step, self.total_steps)
        return value

    def load(self) -> Checkpoint | None:  # noqa: D102
        checkpoint = load_newest(self.folder, self.network, self.average.module if self.average else None)
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.states["scaler"])
        return checkpoint

    def save(self, progress: Progress) -> None:  # noqa: D102
        scaler, average = self.accelerator.scaler, self.average.module if self.average is not None else None
        states = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        save_checkpoint(self.folder, self._described(self.network), states, progress, average, self.options.keep)

    def finish(self) -> Fitted:
        """Draw the curves, log doubts about the network, and return the run's outcome."""
        if self.best is None:
            raise TrainingError(f"{self.folder}: found no evaluation, expected one at the end of the run")
        best, step = self.best
        if self.accelerator.is_main_process:
            plot_curves(self.folder, self.metric)
            for doubt in doubts(self._described(), self.validation, self.metric, best, self.total_steps):
                _logger.warning("%s: %s", self.folder, doubt)
        self.accelerator.wait_for_everyone()
        last = next((line for line in reversed(read_log(self.folder)) if line["kind"] == "val"), None)
        if last is None:
            raise TrainingError(f"{self.folder / LOG}: found no evaluation, expected the one at the end of the run")
        return Fitted(
            run=self.folder,
            metric=self.metric,
            best=best,
            epoch=step // self.steps_per_epoch,
            last=last,
            seconds=time.monotonic() - self.began,
            broken=tuple(self.broken.names),
        )

    def facts(self) -> dict[str, Any]:
        """Describe the network, the data, the teacher and the recipe."""
        return {
            **super().facts(),
            "spec_hash": self.spec.hash,
            "input": self.spec.input.model_dump(),
            "labels": list(self.training.labels.ids or self.training.labels.names),
            "validation": identity(self.validation),
            "teacher": spec_of(self.teacher).hash if self.teacher is not None else None,
            **self.recipe.to_dict(),
        }

    def recorded(self) -> dict[str, Any]:  # noqa: D102
        before = {**super().recorded(), **load_recipe(self.folder / RECIPE_FILE).to_dict()}
        if "spec_hash" in before:
            before.setdefault("labels", self.facts()["labels"])  # runs of older versions have no labels
        return before

    def write_record(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the recipe to its own file, and the other facts to `path`."""
        recipe = self.recipe.to_dict()
        path.with_name(RECIPE_FILE).write_text(yaml.safe_dump(recipe, sort_keys=False))
        super().write_record(path, {name: value for name, value in facts.items() if name not in recipe})

    def _described(self, of: nn.Module | None = None, metrics: Mapping[str, Any] | None = None) -> nn.Module:
        """Return a copy of a network with the description of this run; modules and weights are shared.

        Args:
            of: the network; None: `result`, which is evaluated.
            metrics: its measured results.
        """
        network = copy(self.result if of is None else of)
        network.pretrained_cfg = self.interface.to_timm(self.spec, network.pretrained_cfg)  # type: ignore[arg-type, assignment]
        network.spec = self.spec.model_copy(update={"provenance": self._provenance(metrics or {})})  # type: ignore[assignment]
        return network

    def _provenance(self, metrics: Mapping[str, Any]) -> Provenance:
        """Describe the origin of the network, its training and its measured results."""
        here, data = self.machine, f"{public_source(self.validation.source)} {self.validation.split}"
        if self.recipe.own_resolution:
            data += ", in tiles"
        measured = [
            Result(metric=name, value=float(value), data=data, origin="measured")
            for name, value in metrics.items()
            if isinstance(value, int | float)
        ]
        source, split, images = identity(self.training)
        training = {
            "data": public_source(source),
            "split": split,
            "images": images,
            "epochs": self.step // self.steps_per_epoch,
            "steps": self.step,
            "seconds": round(time.monotonic() - self.began, 1),
            "processes": self.processes,
            "device": here["gpu"] if self.device.type == "cuda" else here["cpu"],
            "versions": {name: here["versions"][name] for name in ("scalenet-zoo", "torch", "timm")},
            "recipe": self.recipe.to_dict(self.spec.task),
            **self.options.about,
        }
        before = self.spec.provenance
        return before.model_copy(
            update={"results": tuple(measured), "details": {**before.details, "training": training}}
        )


def _fit_head(network: nn.Module, training: Examples | Stream) -> None:
    """Match a trained network's last layer with the classes or joints of the data, by name.

    If the network knows the same names in another order, its last layer is put into the data's order. If it knows other
    names, the layer starts from scratch. A warning reports either change.
    """
    spec, known = spec_of(network), Interface.of_network(network).labels
    if not len(known.names) == len(training.labels.names) == spec.classes or training.task != spec.task:
        return
    order = match_labels(known, training.labels)
    if order == list(range(spec.classes)):
        return
    noun = "joints" if spec.task == "pose" else "classes"
    head = network.get_classifier()  # type: ignore[operator]
    if isinstance(head, nn.Linear | nn.Conv2d) and None not in order:
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(parameter[order])
        done = f"knows the {noun} of {training.source} in another order: its last layer is put into the data's order"
    else:
        network.reset_classifier(spec.classes)  # type: ignore[operator]
        network.spec = spec  # type: ignore[assignment] # the caller's own spec, which is equal
        done = f"knows other {noun} than {training.source} has: its last layer starts from scratch"
    if rank_and_world()[0] == 0:
        _logger.warning("%s: %s", spec.name, done)


def _check_teacher(teacher: ArchSpec, student: ArchSpec) -> None:
    for name, theirs, ours in (
        ("task", teacher.task, student.task),
        ("bottom_up", teacher.bottom_up, student.bottom_up),
        ("classes", teacher.classes, student.classes),
        ("channels", teacher.input.channels, student.input.channels),
    ):
        if theirs != ours:
            raise InputError(f"teacher: found {name} {theirs} of {teacher.name}, expected {ours} as {student.name} has")
