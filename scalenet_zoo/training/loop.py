"""What training a network and training a supernet have in common: one run in a folder of its own, step by step.

    images --training_loader--> batches --take_step--> loss --reduce--> RUN/log.jsonl, RUN/tensorboard, progress
       |                           |          ^   |                                |
    RUN/<record>, compared      broken        |   +--> optimiser <-- schedule      +--> not finite: the run ends
    with what is now given      images        |            |
                                   RUN/checkpoints <-- every so many steps, and after each epoch

Nothing random outlives a step: what is drawn in one (dropout, mixup, a supernet's networks) is a function of the seed,
the step and the process, what is drawn for an image of the seed, the epoch and the image. So a run that is resumed goes
on as if it had never stopped.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from timm.data import Mixup

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import InputError, TrainingError
from scalenet_zoo.core.files import read_json, replacing
from scalenet_zoo.core.quantities import format_count, format_duration
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import training_loader
from scalenet_zoo.inference.evaluate import check_labels
from scalenet_zoo.training.accelerator import alone_in, make_accelerator
from scalenet_zoo.training.checkpoint import Checkpoint, Progress
from scalenet_zoo.training.log import TrainingLog, holds_run
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import check_batch_norm, restore_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.training.recipe import Recipe
    from scalenet_zoo.zoo.interface import Interface

Outcome = TypeVar("Outcome")
"""What a run comes to."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What does not change the result of a run, or only where it is looked at.

    Attributes:
        workers: processes that load images, for each process that trains.
        keep: checkpoints kept.
        save_every: optimiser steps between checkpoints within an epoch; None: one at the end of each epoch.
        log_interval: optimiser steps between lines of the log.
        cpu: train on the CPU, GPU or not.
    """

    workers: int = 2
    keep: int = 2
    save_every: int | None = None
    log_interval: int = 50
    cpu: bool = False


class TrainingLoop(ABC, Generic[Outcome]):
    """One run; a kind of run says what a step does, what is saved and written down, and what comes of it.

    Args:
        spec: of the network; of a supernet, of its largest one.
        interface: of the network: how images are prepared.
        recipe: how to train.
        training: images to learn from.
        folder: of the run.
        options: where, and how often to save and to tell.

    Attributes:
        record: the file in the folder that says what the run is.
        kind: what begins each line of progress.
        model: what learns; a kind of run sets it, its optimiser and its schedule.
        rank: of this process among `processes`.
        parts: batches of an optimiser step.
        step: optimiser steps done, of `total_steps`.
        steps_per_epoch: optimiser steps of an epoch.
        macs: of the network that the last step worked on, if it is another in each.
        best: the best value of the task's metric so far, and its step.
        began: when, by the monotonic clock; earlier sittings of the run count as if they had come right before.

    Raises:
        InputError: recipe, data and network do not fit.
    """

    record: ClassVar[str]
    kind: ClassVar[str] = ""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def __init__(
        self,
        spec: ArchSpec,
        interface: Interface,
        recipe: Recipe,
        training: Examples | Stream,
        folder: Path,
        options: LoopOptions,
    ) -> None:
        self.spec, self.recipe, self.training, self.folder, self.options = spec, recipe, training, folder, options
        has_dead_ends = len(spec.trace.live_ops) < len(spec.trace.ops)
        self.accelerator = make_accelerator(recipe, options.cpu, has_dead_ends)
        self.device, self.rank = self.accelerator.device, self.accelerator.process_index
        self.processes, self.parts = self.accelerator.num_processes, recipe.grad_accum_steps
        share, rest = divmod(recipe.batch_size, self.parts * self.processes)
        if rest:
            raise InputError(
                f"batch_size: found {recipe.batch_size}, expected a multiple of {self.parts * self.processes}"
                f" ({self.parts} grad_accum_steps, {self.processes} processes)"
            )
        check_batch_norm(spec, recipe)
        check_labels(spec, Labels(), training)
        is_stream = isinstance(training, Stream)  # which divides itself among processes
        at_once = share if is_stream else share * self.processes
        loader: Any = training_loader(training, spec, interface, recipe, at_once, options.workers)
        self.loader: Any = loader if is_stream else self.accelerator.prepare(loader)
        self.steps_per_epoch = len(loader) // self.parts
        if not self.steps_per_epoch:
            raise InputError(
                f"{training.source}: found fewer images than a batch has, expected {recipe.batch_size} or more"
            )
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.loss = task_loss(spec.task, recipe, self._mean_count, spec.bottom_up)
        self.mixup: Mixup | None = None
        if spec.task == "classification" and (recipe.mixup or recipe.cutmix):
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=spec.classes)
            if share % 2:
                raise InputError(
                    f"batch_size: found {recipe.batch_size}, expected an even share of it, to mix images in pairs"
                )
        self.step, self.macs = 0, None
        self.best: tuple[float, int] | None = None
        self.broken = BrokenImages(recipe.broken_limit)
        self.log: TrainingLog | None = None
        self.began = time.monotonic()
        self.doing = f"{self.kind}epoch 0 of {recipe.epochs}"

    # --- what kinds of runs differ in ----------------------------------------------------------------

    @abstractmethod
    def take_step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:
        """One optimiser step, on the next `parts` batches; its loss in this process, and images that are broken."""

    @abstractmethod
    def load(self) -> Checkpoint | None:
        """Load the newest whole checkpoint, all but the optimiser's state."""

    @abstractmethod
    def save(self, progress: Progress) -> None:
        """Write a checkpoint."""

    @abstractmethod
    def finish(self) -> Outcome:
        """Write what is left to be written; say what the run came to."""

    def end_epoch(self, epoch: int, on_step: OnProgress) -> None:
        """Do what is due after so many epochs, before they are saved."""

    def facts(self) -> dict[str, Any]:
        """What must be the same when a run is gone on with."""
        return {"classes": self.spec.classes, "training": identity(self.training)}

    def recorded(self) -> dict[str, Any]:
        """The facts of an earlier sitting.

        Raises:
            TrainingError: they cannot be read.
        """
        path = self.folder / self.record
        try:
            facts = read_json(path)
            if not isinstance(facts, dict):
                raise ValueError(f"found {quoted(facts)}, expected an object")
        except ValueError as error:
            raise TrainingError(f"{path}: {error}") from None
        return facts

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What trains."""
        return machine()

    def write_record(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the facts down, and the machine."""
        path.write_text(json.dumps({**facts, "machine": self.machine}, indent=2) + "\n", encoding="utf-8")

    # --- what they have in common --------------------------------------------------------------------

    def run(self, on_step: OnProgress, resume: bool = True) -> Outcome:
        """Train from where the run is to its end, alone in its folder.

        Args:
            on_step: told of every step: what is being done, how many are done, and of how many.
            resume: go on from the newest whole checkpoint in the folder, if there is one.

        Raises:
            InputError: too many images cannot be read.
            WeightsError: a checkpoint is damaged, or of another architecture.
            TrainingError: the loss is not finite, the folder holds another run, or another process is at work in it.
            OutputError: a file cannot be written.
        """
        with alone_in(self.folder):
            self.take_up(resume)
            for epoch in range(self.step // self.steps_per_epoch, self.recipe.epochs):
                self._run_epoch(epoch, on_step)
                self.end_epoch(epoch + 1, on_step)
                self._save()
            if self.log is not None:
                self.log.close()
            return self.finish()

    def take_up(self, resume: bool) -> None:
        """Take up the folder: a new run, or one that was stopped."""
        exists = holds_run(self.folder, resume, self.record)
        self.accelerator.wait_for_everyone()  # before one of them writes it
        self._compare_or_write(exists)
        checkpoint = self.load()
        if checkpoint is not None:
            progress = checkpoint.progress
            self.step, self.best, self.began = progress.step, progress.best, time.monotonic() - progress.seconds
            self.optimizer.load_state_dict(checkpoint.states["optimizer"])
            restore_layout(self.optimizer)
            self.broken.add(progress.broken)
        self.accelerator.wait_for_everyone()
        self.log = TrainingLog(self.folder, self.step) if self.accelerator.is_main_process else None

    def _run_epoch(self, epoch: int, on_step: OnProgress) -> None:
        done = self.step - epoch * self.steps_per_epoch
        batches = self._batches(epoch, done * self.parts)
        self.model.train()
        losses: list[Tensor] = []
        since = time.monotonic()
        for _ in range(done, self.steps_per_epoch):
            if self.scheduler is not None:
                self.scheduler.step_update(self.step)
            loss, broken = self.take_step(batches)
            losses.append(loss)
            self.broken.add(broken)
            self.step += 1
            is_last = self.step % self.steps_per_epoch == 0
            if is_last or self.step % self.options.log_interval == 0:
                self._tell(losses, len(losses) * self.recipe.batch_size / (time.monotonic() - since))
                losses, since = [], time.monotonic()
            on_step(self.doing, self.step, self.total_steps)
            if self.options.save_every and self.step % self.options.save_every == 0 and not is_last:
                self._save()

    def _batches(self, epoch: int, skip: int) -> Iterator[dict[str, Any]]:
        """The epoch's batches, from the one after `skip`, on the device."""
        self.loader.dataset.set_epoch(epoch)
        if isinstance(self.training, Stream):
            for batch in islice(self._rounds(self.training), skip, None):
                yield send_to_device(batch, self.device)
        else:
            self.loader.set_epoch(epoch)
            yield from self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader

    def _rounds(self, stream: Stream) -> Iterator[dict[str, Any]]:
        """A stream's batches, from its beginning after its end: it may have fewer than its description says."""
        while True:
            batch = None
            for batch in self.loader:
                yield batch
            if batch is None:
                raise InputError(stream.complaint)

    def _mean_count(self, count: Tensor) -> Tensor:
        if self.processes == 1:
            return count
        mean: Tensor = self.accelerator.reduce(count.float(), "mean")
        return mean

    def _tell(self, losses: list[Tensor], rate: float) -> None:
        """Log the mean loss and the rate in images a second."""
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean").item())
        if not np.isfinite(loss):
            raise TrainingError(
                f"{self.folder}: found the loss {loss} near step {self.step}, expected a finite one:"
                " a lower lr, a longer warm-up or clip_grad may help"
            )
        epoch, lr = self.step / self.steps_per_epoch, max(group["lr"] for group in self.optimizer.param_groups)
        values = {"epoch": epoch, "loss": loss, "lr": lr, "images_per_second": round(rate, 1)}
        now = ""
        if self.macs is not None:
            values["macs"], now = self.macs, f" now {format_count(self.macs)} MACs,"
        if self.log is not None:
            self.log.write(self.step, "train", values)
        left = (self.total_steps - self.step) * self.recipe.batch_size / rate
        self.doing = (
            f"{self.kind}epoch {epoch:.2f} of {self.recipe.epochs}, loss {loss:.4g},{now} {rate:,.0f} images/s,"
            f" {format_duration(left)} left"
        )

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            seconds = time.monotonic() - self.began
            self.save(Progress(step=self.step, seconds=seconds, best=self.best, broken=tuple(self.broken.names)))
        self.accelerator.wait_for_everyone()

    def _compare_or_write(self, exists: bool) -> None:
        """Refuse to go on where a fact is another one; of a new run, write the facts down."""
        facts = self.facts()
        if exists:
            before = self.recorded()
            for name, value in facts.items():
                if before.get(name) != value:
                    raise TrainingError(
                        f"{self.folder}: {name}: found {quoted(before.get(name))} in this run,"
                        f" expected {quoted(value)}, as now given"
                    )
        elif self.accelerator.is_main_process:
            with replacing(self.folder / self.record) as temporary:
                self.write_record(temporary, facts)


def identity(examples: Examples | Stream) -> list[Any]:
    """Which images these are, as far as it is written down: their source, split and number, of a stream unknown."""
    return [examples.source, examples.split, None if isinstance(examples, Stream) else len(examples)]
