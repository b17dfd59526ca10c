"""The loop that trains networks and supernets: one run in its own folder, step by step.

    images --training_loader--> batches --take_step--> loss --reduce--> RUN/log.jsonl, RUN/tensorboard, progress
       |                           |          ^   |                                |
    RUN/<record>, compared      broken        |   +--> optimiser <-- schedule      +--> not finite: the run ends
    with the current facts      images        |            |
                                   RUN/checkpoints <-- every `save_every` steps, and after each epoch

No random state outlives a step. The random numbers of a step (dropout, mixup, a supernet's networks) depend only on
the seed, the step and the process. Those of an image (augmentation) depend only on the seed, the epoch and the image.
So a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import json
import math
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
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import seeded, training_loader
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.evaluate import check_labels
from scalenet_zoo.training.accelerator import alone_in, make_accelerator
from scalenet_zoo.training.checkpoint import Checkpoint, Progress
from scalenet_zoo.training.log import TrainingLog, holds_run
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import check_batch_norm, restore_layout
from scalenet_zoo.zoo.create import with_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.training.recipe import Recipe
    from scalenet_zoo.zoo.interface import Interface

Outcome = TypeVar("Outcome")
"""The result of a run."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Options that do not change the result of a run.

    Attributes:
        workers: processes that load images, for each process that trains.
        keep: the number of checkpoints to keep.
        save_every: optimiser steps between checkpoints within an epoch; None: one at the end of each epoch.
        log_interval: optimiser steps between lines of the log.
        cpu: train on the CPU, even if there is a GPU.
    """

    workers: int = 2
    keep: int = 2
    save_every: int | None = None
    log_interval: int = 50
    cpu: bool = False


class TrainingLoop(ABC, Generic[Outcome]):
    """One run. Subclasses define what a step does, what is saved and recorded, and what the run returns.

    Args:
        spec: the spec of the network; for a supernet, the spec of its largest network.
        interface: the interface of the network, which says how to prepare images.
        recipe: the recipe to train with.
        training: the examples to learn from.
        folder: the folder of the run.
        options: where to train, and how often to save and to log.

    Attributes:
        record: the name of the file that describes the run.
        kind: the first words of each line of progress.
        model: the model that is trained; subclasses set it, its optimiser and its schedule.
        rank: the rank of this process among `processes`.
        parts: the number of batches per optimiser step.
        step: optimiser steps done, of `total_steps`.
        steps_per_epoch: optimiser steps per epoch.
        macs: the MACs of the network that the last step trained, if every step trains a different one; otherwise None.
        best: the best value of the task's metric so far, and its step.
        epoch_loss, epoch_rate: the mean loss and the images per second of the last epoch; None before its end.
        began: the start on the monotonic clock, in seconds, as if earlier sessions had ended right before this one.

    Raises:
        InputError: recipe, data and network do not fit together.
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
        is_stream = isinstance(training, Stream)  # a stream is already divided among processes
        at_once = share if is_stream else share * self.processes
        loader: Any = training_loader(training, spec, interface, recipe, at_once, options.workers)
        self.loader: Any = loader if is_stream else self.accelerator.prepare(loader)
        self.steps_per_epoch = len(loader) // self.parts
        if not self.steps_per_epoch:
            raise InputError(
                f"{training.source}: found fewer images than one batch needs, expected {recipe.batch_size} or more"
            )
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.memory_format = self.choose_layout()
        self.loss = task_loss(spec.task, recipe, self._mean_count, spec.bottom_up)
        self.mixup: Mixup | None = None
        if spec.task == "classification" and (recipe.mixup or recipe.cutmix):
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=spec.classes)
            if share % 2:
                raise InputError(
                    f"batch_size: found {recipe.batch_size}, expected an even number of images per process and"
                    " accumulation step, to mix them in pairs"
                )
        self.step, self.macs = 0, None
        self.best: tuple[float, int] | None = None
        self.broken = BrokenImages(recipe.broken_limit)
        self.log: TrainingLog | None = None
        self.began = time.monotonic()
        self.epoch_loss: float | None = None
        self.epoch_rate: float | None = None
        self.doing = f"{self.kind}epoch 1/{recipe.epochs}"

    # --- what subclasses define ------------------------------------------------------------------------

    def choose_layout(self) -> torch.memory_format:
        """Choose the memory format of images and weights."""
        return torch.channels_last if self.recipe.channels_last else torch.contiguous_format

    @abstractmethod
    def take_step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:
        """Take an optimiser step on the next `parts` batches.

        Returns:
            The loss in this process, a scalar, and the names of the broken images.
        """

    @abstractmethod
    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint, except for the state of the optimiser."""

    @abstractmethod
    def save(self, progress: Progress) -> None:
        """Write a checkpoint."""

    @abstractmethod
    def finish(self) -> Outcome:
        """Write the last files, and return the run's outcome."""

    def end_epoch(self, epoch: int, on_step: OnProgress) -> None:
        """Do the work that is due after an epoch, before the checkpoint is saved; epochs count from 1."""

    def facts(self) -> dict[str, Any]:
        """Return the facts that must be the same when a run resumes."""
        return {"classes": self.spec.classes, "training": identity(self.training)}

    def recorded(self) -> dict[str, Any]:
        """Read the facts of an earlier session.

        Raises:
            TrainingError: the record cannot be read.
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
        """The machine that this run trains on."""
        return machine()

    def write_record(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the facts and the machine to a file."""
        path.write_text(json.dumps({**facts, "machine": self.machine}, indent=2) + "\n", encoding="utf-8")

    # --- what all runs share -------------------------------------------------------------------------

    def run(self, on_step: OnProgress, resume: bool = True) -> Outcome:
        """Train from the run's current step to its end, and lock its folder meanwhile.

        Args:
            on_step: called at every step with what is being done, the number of steps done, and the total.
            resume: continue from the newest intact checkpoint in the folder, if there is one.

        Returns:
            The result of the run, from `finish`.

        Raises:
            InputError: too many images cannot be read.
            WeightsError: a checkpoint is damaged, or of another architecture.
            TrainingError: the loss is not finite, the folder holds another run, or another process works in it.
            OutputError: a file cannot be written.
        """
        seed = self.recipe.seed  # every step seeds the generators; at the end they are restored
        with alone_in(self.folder), seeded(seed), with_seed(seed):
            self.take_up(resume)
            for epoch in range(self.step // self.steps_per_epoch, self.recipe.epochs):
                self._run_epoch(epoch, on_step)
                self.end_epoch(epoch + 1, on_step)
                self._save()
            if self.log is not None:
                self.log.close()
            return self.finish()

    def take_up(self, resume: bool) -> None:
        """Begin a new run in the folder, or resume a stopped one.

        Raises:
            WeightsError: a checkpoint is damaged, or of another architecture.
            TrainingError: the folder holds another run, or a run that is not resumed.
            OutputError: a file cannot be written.
        """
        exists = holds_run(self.folder, resume, self.record)
        self.accelerator.wait_for_everyone()  # all of them look before one writes the record
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
        parts: list[tuple[int, float, float]] = []  # number of steps, their mean loss, seconds
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
                seconds = time.monotonic() - since
                parts.append((len(losses), self._tell(losses, seconds), seconds))
                losses, since = [], time.monotonic()
            on_step(self.doing, self.step, self.total_steps)
            if self.options.save_every and self.step % self.options.save_every == 0 and not is_last:
                self._save()
        if steps := sum(count for count, _, _ in parts):
            self.epoch_loss = sum(count * loss for count, loss, _ in parts) / steps
            self.epoch_rate = steps * self.recipe.batch_size / sum(seconds for _, _, seconds in parts)

    def _batches(self, epoch: int, skip: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of an epoch on the device, without the first `skip`."""
        self.loader.dataset.set_epoch(epoch)
        if isinstance(self.training, Stream):
            for batch in islice(self._rounds(self.training), skip, None):
                yield send_to_device(batch, self.device)
        else:
            self.loader.set_epoch(epoch)
            yield from self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader

    def _rounds(self, stream: Stream) -> Iterator[dict[str, Any]]:
        """Yield batches of a stream without end; a stream that is shorter than its description says starts again."""
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

    def _tell(self, losses: list[Tensor], seconds: float) -> float:
        """Log the mean loss of some steps and the images per second; return the loss."""
        rate = len(losses) * self.recipe.batch_size / seconds
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean").item())
        if not np.isfinite(loss):
            raise TrainingError(
                f"{self.folder}: found the loss {loss} near step {self.step}, expected a finite one:"
                " a lower lr, a longer warm-up or clip_grad may help"
            )
        epoch, lr = self.step / self.steps_per_epoch, max(group["lr"] for group in self.optimizer.param_groups)
        values = {"epoch": epoch, "loss": loss, "lr": lr, "images_per_second": round(rate, 1)}
        size = ""
        if self.macs is not None:
            values["macs"], size = self.macs, f", {format_count(self.macs)} MACs"
        if self.log is not None:
            self.log.write(self.step, "train", values)
        self.doing = self._describe(f"loss {loss:.4g}{size}, {rate:,.0f} images/s")
        return loss

    def _describe(self, figures: str) -> str:
        """Describe what the run is doing, in words that fit beside a progress bar."""
        epoch = max(1, math.ceil(self.step / self.steps_per_epoch))
        return f"{self.kind}epoch {epoch}/{self.recipe.epochs}, {figures}"

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            seconds = time.monotonic() - self.began
            self.save(Progress(step=self.step, seconds=seconds, best=self.best, broken=tuple(self.broken.names)))
        self.accelerator.wait_for_everyone()

    def _compare_or_write(self, exists: bool) -> None:
        """Refuse to resume a run whose facts differ; write the facts of a new run."""
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
    """Identify examples by source, split and number of images; the number of a stream is None."""
    return [examples.source, examples.split, None if isinstance(examples, Stream) else len(examples)]
