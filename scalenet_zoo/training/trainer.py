"""Training of a stand-alone network, for any task, on one process or many: the loop of `loop.py` with one network.

    batches --mixup--> network --losses--> gradients, summed over parts --> optimiser --> moving average
                          ^           ^                                                        |
                          |        teacher's output                                            v
                  RUN/checkpoints: network, average, optimiser                 evaluate, after an epoch: RUN/best

The network is trained in place; how its own `spec` and `pretrained_cfg` describe it stays as it was. What is written
describes it as the run knows it: the data's labels, what was measured, how it was trained.
"""

import logging
import time
from collections.abc import Iterator, Mapping
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
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples
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
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model

_logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
"""How the network is trained, beside RUN/run.json."""


@dataclass(frozen=True, kw_only=True)
class Options(LoopOptions):
    """What does not change the result of a run, or only where it is looked at; more than `LoopOptions` has.

    Attributes:
        val_interval: epochs between evaluations; the last epoch is always evaluated.
        about: what else to say of the run in its spec's provenance: its command, say.
    """

    val_interval: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """What a run came to.

    Attributes:
        run: its folder; `best` in it holds the best network.
        metric: the task's metric.
        best: its best value on the validation images.
        epoch: after which it was reached, counted from 1.
        last: all metrics at the end, with step and epoch.
        seconds: the run took, evaluation included.
        broken: images that could not be read.
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
        network: of `create_model`, for as many classes or joints as the data have; it is trained in place, and keeps
            its own `spec` and `pretrained_cfg`.
        recipe: how.
        training: images to learn from.
        validation: images to choose the best epoch by.
        run: the folder.
        options: where, and how often to save and to tell.
        teacher: a network whose outputs the network also learns from.
        resume: go on from the newest whole checkpoint in the folder, if there is one.
        on_step: told of every step: what is being done, how many are done, and of how many.

    Raises:
        InputError: recipe, data and network do not fit, or too many images cannot be read.
        WeightsError: a checkpoint is damaged, or of another architecture.
        TrainingError: the loss is not finite, the folder holds another run, or another process is at work in it.
        OutputError: a file cannot be written.
    """
    return Trainer(network, recipe, training, validation, run, options or Options(), teacher).run(on_step, resume)


class Trainer(TrainingLoop[Fitted]):
    """One run; arguments as `train_network`."""

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
        _fit_head(network, training)
        self.interface = Interface.of_network(network).model_copy(update={"labels": training.labels})
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
        """The network that is judged and kept: the moving average, or the one that is trained."""
        return self.average.module if self.average is not None else self.network

    def take_step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:  # noqa: D102
        total, broken = torch.zeros((), device=self.device), []
        for part in range(self.parts):
            batch = next(batches)
            seed_step(self.recipe.seed, self.step, part, self.rank)  # loaders draw numbers, too
            broken += batch["broken"]
            apart = self.accelerator.no_sync(self.model) if part + 1 < self.parts else nullcontext()
            with apart:
                loss = self._loss(batch["image"], batch["target"]) / self.parts
                if part == 0:
                    self.optimizer.zero_grad()  # here, the backward pass takes the memory again at once
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
        """Evaluate the network, or its moving average, if it is due; keep it if it is the best so far."""
        if epoch % self.options.val_interval and epoch != self.recipe.epochs:
            return
        found = evaluate_network(
            self._described(),
            self.validation,
            batch_size=max(1, self.recipe.batch_size // self.parts // self.processes),
            workers=self.options.workers,
            overlap=OVERLAP if self.recipe.own_resolution else None,
            rank=self.rank,
            world=self.processes,
        )
        value = float(found.metrics[self.metric])  # type: ignore[arg-type] # it is no dict
        if self.best is None or value > self.best[0]:
            self.best = value, self.step
            if self.accelerator.is_main_process:
                with replacing_folder(self.folder / "best") as folder:
                    save_model(self._described(metrics=found.metrics), folder)
        if self.log is not None:
            self.log.write(self.step, "val", {"epoch": epoch, **found.metrics})
        self.doing = f"epoch {epoch} of {self.recipe.epochs}, {self.metric} {value:.4g}"
        on_step(self.doing, self.step, self.total_steps)

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
        """Draw the curves; say what speaks against the network, and what the run came to."""
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
            raise TrainingError(f"{self.folder / LOG}: found no evaluation, expected that of the end of the run")
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
        """Network, data, teacher and recipe."""
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
            before.setdefault("labels", self.facts()["labels"])  # runs of older versions do not say them
        return before

    def write_record(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write down the recipe, in a file of its own, and the other facts."""
        recipe = self.recipe.to_dict()
        path.with_name(RECIPE_FILE).write_text(yaml.safe_dump(recipe, sort_keys=False))
        super().write_record(path, {name: value for name, value in facts.items() if name not in recipe})

    def _described(self, of: nn.Module | None = None, metrics: Mapping[str, Any] | None = None) -> nn.Module:
        """A network, described as this run knows it; its modules and weights are the very same.

        Args:
            of: the network; None: the one that is judged.
            metrics: what was measured of it.
        """
        network = copy(self.result if of is None else of)
        network.pretrained_cfg = self.interface.to_timm(self.spec, network.pretrained_cfg)  # type: ignore[arg-type, assignment]
        network.spec = self.spec.model_copy(update={"provenance": self._provenance(metrics or {})})  # type: ignore[assignment]
        return network

    def _provenance(self, metrics: Mapping[str, Any]) -> Provenance:
        """Where the network comes from, how it was trained, and what was measured of it."""
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
    """Let a trained network's last layer begin with what it knows of the data's classes or joints, found by name.

    The same in another order are put in the data's; where there are others, the layer begins anew. Both are told.
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
        done = f"knows the {noun} of {training.source} in another order: its last layer is put in theirs"
    else:
        network.reset_classifier(spec.classes)  # type: ignore[operator]
        network.spec = spec  # type: ignore[assignment] # the caller's own, which says the same
        done = f"knows other {noun} than {training.source} has: its last layer begins anew"
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
