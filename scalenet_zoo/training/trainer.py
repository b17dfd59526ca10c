"""Training of a stand-alone network, for any task, on one process or many.

    examples --training_loader--> batches --mixup--> network --losses--> gradients --> optimiser --> moving average
                                     |                  ^                                                  |
                      (seed, epoch, image) alone        | checkpoint.py: RUN/checkpoints                   v
                      decide how it looks               +-------------------- state <---------- evaluate: RUN/best

Nothing random outlives a step: what is drawn in one (dropout, mixup) is a function of the seed, the step and the
process, what is drawn for an image of the seed, the epoch and the image. So a run that is resumed goes on as if it had
never stopped.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate.utils import send_to_device
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from scalenet_zoo.arch.labels import Labels, match_labels
from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import ArchSpec, Result, spec_of, unwrapped
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.distributed import rank_and_world
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.core.files import read_json, replacing, replacing_folder
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_duration
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import training_loader
from scalenet_zoo.inference.evaluate import check_labels, evaluate, match_data
from scalenet_zoo.inference.metrics import PRIMARY
from scalenet_zoo.inference.tiling import OVERLAP
from scalenet_zoo.networks.sync_batch_norm import synchronise_batch_norm
from scalenet_zoo.training.accelerator import alone_in, make_accelerator, seed_step
from scalenet_zoo.training.checkpoint import Progress, load_newest, save_checkpoint
from scalenet_zoo.training.doubts import doubts
from scalenet_zoo.training.log import LOG, RUN_FILE, TrainingLog, holds_run, plot_curves, read_log
from scalenet_zoo.training.losses import task_loss, teacher_loss
from scalenet_zoo.training.optimisation import check_batch_norm, make_optimizer, make_scheduler, restore_layout
from scalenet_zoo.training.recipe import Recipe, load_recipe
from scalenet_zoo.zoo.model_folder import save_model

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What does not change the result of a run, or only where it is looked at.

    Attributes:
        workers: processes that load images, for each process that trains.
        keep: checkpoints kept.
        save_every: optimiser steps between checkpoints within an epoch; None: one at the end of each epoch.
        log_interval: optimiser steps between lines of the log.
        val_interval: epochs between evaluations; the last epoch is always evaluated.
        cpu: train on the CPU, GPU or not.
        about: what else to say of the run in its spec's provenance: its command, say.
    """

    workers: int = 2
    keep: int = 2
    save_every: int | None = None
    log_interval: int = 50
    val_interval: int = 1
    cpu: bool = False
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
        network: of `create_model`, for as many classes or joints as the data have.
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
    trainer = Trainer(network, recipe, training, validation, run, options or Options(), teacher)
    with alone_in(run):
        trainer.before(resume)
        trainer.run_epochs(on_step)
        return trainer.after()


class Trainer:
    """One run, in three phases: before, run_epochs, after; arguments as `train`.

    Attributes:
        step: optimiser steps done.
        steps_per_epoch: optimiser steps of an epoch.
        best: the best value of the task's metric so far, and its step.
        began: when, by the monotonic clock; earlier sittings of the run count as if they had come right before.
    """

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
        self.network, self.recipe, self.options, self.folder = network, recipe, options, run
        self.training, self.validation = training, validation
        _fit_head(network, training)
        self.spec = spec_of(network)
        self.accelerator = make_accelerator(
            recipe, options.cpu, has_dead_ends=len(self.spec.trace.live_ops) < len(self.spec.trace.ops)
        )
        self.device = self.accelerator.device
        self.parts = recipe.grad_accum_steps
        processes = self.accelerator.num_processes
        if recipe.batch_size % (self.parts * processes):
            raise InputError(
                f"batch_size: found {recipe.batch_size}, expected a multiple of"
                f" {self.parts * processes} ({self.parts} grad_accum_steps, {processes} processes)"
            )
        check_batch_norm(self.spec, recipe)
        check_labels(self.spec, Labels(), training)
        match_data(self.spec, training.labels, validation)
        cfg: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        cfg["labels"] = training.labels.to_cfg()
        self.is_stream = isinstance(training, Stream)  # which divides itself among processes
        shares = self.parts * (processes if self.is_stream else 1)
        loader: Any = training_loader(training, self.spec, cfg, recipe, recipe.batch_size // shares, options.workers)
        self.steps_per_epoch = len(loader) // self.parts
        if not self.steps_per_epoch:
            raise InputError(
                f"{training.source}: found fewer images than a batch has, expected {recipe.batch_size} or more"
            )
        self.total_steps = self.steps_per_epoch * recipe.epochs

        memory = torch.channels_last if recipe.channels_last else torch.contiguous_format
        network.to(self.device, memory_format=memory)  # type: ignore[call-overload]
        self.memory_format = memory
        self.average = (
            ModelEmaV3(network, recipe.model_ema_decay, use_warmup=True) if recipe.model_ema_decay is not None else None
        )
        if processes > 1:
            self.network = synchronise_batch_norm(network, self.device)
        optimizer = make_optimizer(self.network, recipe)
        self.scheduler = make_scheduler(optimizer, recipe, self.steps_per_epoch)
        model = torch.compile(self.network) if recipe.torchcompile else self.network
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.loader = loader if self.is_stream else self.accelerator.prepare(loader)
        self.loss = task_loss(self.spec.task, recipe, self._mean_count, self.spec.bottom_up)
        self.mixup = None
        if self.spec.task == "classification" and (recipe.mixup or recipe.cutmix):
            self.mixup = Mixup(
                recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=self.spec.classes
            )
            if recipe.batch_size // self.parts // processes % 2:
                raise InputError(
                    f"batch_size: found {recipe.batch_size}, expected an even share of it, to mix images in pairs"
                )
        self.teacher = teacher.to(self.device, memory_format=memory).eval() if teacher is not None else None  # type: ignore[call-overload]
        if teacher is not None:
            _check_teacher(spec_of(teacher), self.spec)
            check_labels(spec_of(teacher), Labels.of(teacher.pretrained_cfg), training)  # type: ignore[arg-type]
        self.learn = teacher_loss(self.spec.task, recipe.distill_temperature)
        self.metric = PRIMARY[self.spec.task]
        self.step = 0
        self.best: tuple[float, int] | None = None
        self.began = time.monotonic()
        self.machine = machine()
        self.broken = BrokenImages(recipe.broken_limit)
        self.doing = f"epoch 0 of {recipe.epochs}"

    def before(self, resume: bool) -> None:
        """Take up the folder: a new run, or one that was stopped."""
        exists = holds_run(self.folder, resume)
        self.accelerator.wait_for_everyone()  # before one of them writes it
        self._check_or_write_run(exists)
        checkpoint = load_newest(self.folder, self.network, self.average.module if self.average else None)
        if checkpoint is not None:
            progress = checkpoint.progress
            self.step, self.best, self.began = progress.step, progress.best, time.monotonic() - progress.seconds
            self.optimizer.load_state_dict(checkpoint.states["optimizer"])
            restore_layout(self.optimizer)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(checkpoint.states["scaler"])
            self.broken.add(progress.broken)
        self.accelerator.wait_for_everyone()
        self.log = TrainingLog(self.folder, self.step) if self.accelerator.is_main_process else None

    def run_epochs(self, on_step: OnProgress) -> None:
        """Train from where the run is to the end."""
        first = self.step // self.steps_per_epoch
        for epoch in range(first, self.recipe.epochs):
            self._run_epoch(epoch, on_step)
            done = epoch + 1
            if done % self.options.val_interval == 0 or done == self.recipe.epochs:
                self._evaluate(done, on_step)
            self._save()

    def after(self) -> Fitted:
        """Draw the curves; say what the run came to."""
        if self.best is None:
            raise TrainingError(f"{self.folder}: found no evaluation, expected one at the end of the run")
        best, step = self.best
        if self.log is not None:
            self.log.close()
            plot_curves(self.folder, self.metric)
            network = self.average.module if self.average is not None else self.network
            for doubt in doubts(network, self.validation, self.metric, best, self.total_steps):
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

    def _run_epoch(self, epoch: int, on_step: OnProgress) -> None:
        done = self.step - epoch * self.steps_per_epoch
        batches = self._batches(epoch, done * self.parts)
        self.model.train()
        losses: list[Tensor] = []
        since, images = time.monotonic(), 0
        for index in range(done, self.steps_per_epoch):
            step = epoch * self.steps_per_epoch + index
            if self.scheduler is not None:
                self.scheduler.step_update(step)
            loss, names = self._step(step, batches)
            losses.append(loss)
            images += self.recipe.batch_size
            self.broken.add(names)
            self.step = step + 1
            last = index + 1 == self.steps_per_epoch
            if self.step % self.options.log_interval == 0 or last:
                value = self._mean_loss(losses)
                rate = images / (time.monotonic() - since)
                self._tell(value, rate)
                losses, since, images = [], time.monotonic(), 0
            on_step(self.doing, self.step, self.total_steps)
            every = self.options.save_every
            if every and self.step % every == 0 and not last:
                self._save()

    def _batches(self, epoch: int, skip: int) -> Iterator[dict[str, Any]]:
        """The epoch's batches, from the one after `skip`, on the device."""
        self.loader.dataset.set_epoch(epoch)
        if self.is_stream:
            for batch in islice(self._rounds(), skip, None):
                yield send_to_device(batch, self.device)
        self.loader.set_epoch(epoch)
        yield from self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader

    def _rounds(self) -> Iterator[dict[str, Any]]:
        """A stream's batches, from its beginning after its end: it may have fewer than its description says."""
        while True:
            batch = None
            for batch in self.loader:
                yield batch
            if batch is None and isinstance(self.training, Stream):
                raise InputError(self.training.complaint)

    def _step(self, step: int, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:
        """One optimiser step; its loss in this process, and images that could not be read."""
        total, names = torch.zeros((), device=self.device), []
        for part in range(self.parts):
            batch = next(batches)
            seed_step(self.recipe.seed, step, part, self.accelerator.process_index)  # loaders draw numbers, too
            names += batch["broken"]
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
            self.average.update(self.network, step + 1)
        return total, names

    def _loss(self, images: Tensor, target: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        if self.mixup is not None:
            images, target = self.mixup(images, target)
        images = images.contiguous(memory_format=self.memory_format)
        output = self.model(images)
        loss = self.loss(output, target)
        if self.teacher is not None:
            with torch.no_grad(), self._autocast():
                taught = self.teacher(images)
            loss = loss + self.recipe.distill_weight * self.learn(output, taught)
        return loss

    def _autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def _mean_count(self, count: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return count
        mean: Tensor = self.accelerator.reduce(count.float(), "mean")
        return mean

    def _mean_loss(self, losses: list[Tensor]) -> float:
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        if not np.isfinite(mean):
            raise TrainingError(
                f"{self.folder}: found the loss {mean} near step {self.step}, expected a finite one:"
                " a lower lr, a longer warm-up or clip_grad may help"
            )
        return float(mean)

    def _tell(self, loss: float, rate: float) -> None:
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        epoch = self.step / self.steps_per_epoch
        if self.log is not None:
            self.log.write(
                self.step, "train", {"epoch": epoch, "loss": loss, "lr": lr, "images_per_second": round(rate, 1)}
            )
        left = (self.total_steps - self.step) * self.recipe.batch_size / rate
        self.doing = (
            f"epoch {epoch:.2f} of {self.recipe.epochs}, loss {loss:.4g}, {rate:,.0f} images/s,"
            f" {format_duration(left)} left"
        )

    def _evaluate(self, epoch: int, on_step: OnProgress) -> None:
        """Evaluate the network, or its moving average; keep it if it is the best so far."""
        network = self.average.module if self.average is not None else self.network
        found = evaluate(
            network,
            self.validation,
            batch_size=max(1, self.recipe.batch_size // self.parts // self.accelerator.num_processes),
            workers=self.options.workers,
            overlap=OVERLAP if self.recipe.own_resolution else None,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        value = float(found.metrics[self.metric])  # type: ignore[arg-type] # it is no dict
        if self.best is None or value > self.best[0]:
            self.best = value, self.step
            if self.accelerator.is_main_process:
                self._save_best(network, found.metrics, epoch)
        if self.log is not None:
            self.log.write(self.step, "val", {"epoch": epoch, **found.metrics})
        self.doing = f"epoch {epoch} of {self.recipe.epochs}, {self.metric} {value:.4g}"
        on_step(self.doing, self.step, self.total_steps)

    def _save_best(self, network: nn.Module, metrics: Mapping[str, Any], epoch: int) -> None:
        here, data = self.machine, f"{public_source(self.validation.source)} {self.validation.split}"
        if self.recipe.own_resolution:
            data += ", in tiles"
        measured = [
            Result(metric=name, value=float(value), data=data, origin="measured")
            for name, value in metrics.items()
            if isinstance(value, int | float)
        ]
        training = {
            "data": public_source(self.training.source),
            "split": self.training.split,
            "images": _size(self.training),
            "epochs": epoch,
            "steps": self.step,
            "seconds": round(time.monotonic() - self.began, 1),
            "processes": self.accelerator.num_processes,
            "device": here["gpu"] if self.device.type == "cuda" else here["cpu"],
            "versions": {name: here["versions"][name] for name in ("scalenet-zoo", "torch", "timm")},
            "recipe": self.recipe.to_dict(self.spec.task),
            **self.options.about,
        }
        before = self.spec.provenance
        provenance = before.model_copy(
            update={"results": tuple(measured), "details": {**before.details, "training": training}}
        )
        network.spec = self.spec.model_copy(update={"provenance": provenance})  # type: ignore[assignment]
        with replacing_folder(self.folder / "best") as folder:
            save_model(network, folder)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            states = {"optimizer": self.optimizer.state_dict(), "scaler": None}
            if self.accelerator.scaler is not None:
                states["scaler"] = self.accelerator.scaler.state_dict()
            average = self.average.module if self.average is not None else None
            seconds = time.monotonic() - self.began
            progress = Progress(step=self.step, seconds=seconds, best=self.best, broken=tuple(self.broken.names))
            save_checkpoint(self.folder, self.network, states, progress, average, self.options.keep)
        self.accelerator.wait_for_everyone()

    def _check_or_write_run(self, exists: bool) -> None:
        """Refuse to go on with another recipe, network or data; of a new run, write them down."""
        path, recipe_path = self.folder / RUN_FILE, self.folder / "recipe.yaml"
        fixed = {
            "spec_hash": self.spec.hash,
            "input": self.spec.input.model_dump(),
            "classes": self.spec.classes,
            "labels": list(self.training.labels.ids or self.training.labels.names),
            "training": [self.training.source, self.training.split, _size(self.training)],
            "validation": [self.validation.source, self.validation.split, _size(self.validation)],
            "teacher": spec_of(self.teacher).hash if self.teacher is not None else None,
        }
        if exists:
            before = {**_read_object(path), **load_recipe(recipe_path).to_dict()}
            if "spec_hash" in before:
                before.setdefault("labels", fixed["labels"])  # runs of older versions do not say them
            for name, value in {**fixed, **self.recipe.to_dict()}.items():
                if before.get(name) != value:
                    raise TrainingError(
                        f"{self.folder}: {name}: found {quoted(before.get(name))} in this run,"
                        f" expected {quoted(value)}, as now given"
                    )
        elif self.accelerator.is_main_process:
            with replacing(path) as temporary:
                temporary.with_name(recipe_path.name).write_text(yaml.safe_dump(self.recipe.to_dict(), sort_keys=False))
                temporary.write_text(json.dumps({**fixed, "machine": self.machine}, indent=2) + "\n", encoding="utf-8")


def _fit_head(network: nn.Module, training: Examples | Stream) -> None:
    """Let a trained network's last layer begin with what it knows of the data's classes or joints, found by name.

    The same in another order are put in the data's; where there are others, the layer begins anew. Both are told.
    """
    spec, known = spec_of(network), Labels.of(network.pretrained_cfg)  # type: ignore[arg-type]
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
        done = f"knows other {noun} than {training.source} has: its last layer begins anew"
    if rank_and_world()[0] == 0:
        _logger.warning("%s: %s", spec.name, done)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise ValueError(f"found {quoted(value)}, expected an object")
    except ValueError as error:
        raise TrainingError(f"{path}: {error}") from None
    return value


def _check_teacher(teacher: ArchSpec, student: ArchSpec) -> None:
    for name, theirs, ours in (
        ("task", teacher.task, student.task),
        ("bottom_up", teacher.bottom_up, student.bottom_up),
        ("classes", teacher.classes, student.classes),
        ("channels", teacher.input.channels, student.input.channels),
    ):
        if theirs != ours:
            raise InputError(f"teacher: found {name} {theirs} of {teacher.name}, expected {ours} as {student.name} has")


def _size(examples: Examples | Stream) -> int | None:
    return None if isinstance(examples, Stream) else len(examples)
