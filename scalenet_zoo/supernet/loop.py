"""Training of a supernet, on one process or many: what ScaleNet's and ScaleNAS's have in common.

images --> the step's networks, one after another --losses--> windows' gradients --> optimiser --> shared weights
                ^
             sampler (seed, step)

Every process works on the same architectures in a step, each on its share of the images, or each on its own. As in
`train.py` of stand-alone networks, nothing random outlives a step, so a run that was killed goes on as if it had never
stopped.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.core.files import file_sha256, read_json, replacing
from scalenet_zoo.core.quantities import format_count, format_duration
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.broken import BrokenImages
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.loaders import training_loader
from scalenet_zoo.inference.evaluate import check_labels
from scalenet_zoo.networks.sync_batch_norm import share_statistics
from scalenet_zoo.supernet.optimiser import Gradients
from scalenet_zoo.supernet.summary import SUMMARY, SUPERNET_WEIGHTS, SupernetSummary
from scalenet_zoo.training.accelerator import make_accelerator, seed_step
from scalenet_zoo.training.checkpoint import Progress, newest, read_state, save_state
from scalenet_zoo.training.log import TrainingLog
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import check_batch_norm, make_scheduler, restore_layout
from scalenet_zoo.zoo.preparation import pretrained_cfg
from scalenet_zoo.zoo.weights import read_weights

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
    from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
    from scalenet_zoo.supernet.settings import LoopSettings
    from scalenet_zoo.training.recipe import Recipe

SETTINGS = "settings.json"


def load_supernet(supernet: ScaleNetSupernet | ScaleNASSupernet, run: Path) -> SupernetSummary:
    """Load a trained supernet from its folder.

    Raises:
        WeightsError: it is damaged, or of another space.
    """
    summary = SupernetSummary.load(run / SUMMARY)
    if summary.space_hash != supernet.space.hash:
        raise WeightsError(f"{run}: found a supernet of another space, expected {supernet.space.name}")
    if not (run / SUPERNET_WEIGHTS).is_file() or file_sha256(run / SUPERNET_WEIGHTS) != summary.weights_sha256:
        raise WeightsError(f"{run / SUPERNET_WEIGHTS}: is damaged or missing, expected what {SUMMARY} was written with")
    weights, _ = read_weights(run / SUPERNET_WEIGHTS)
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:  # other classes or channels
        reason = " ".join(str(error).split())
        raise WeightsError(f"{run / SUPERNET_WEIGHTS}: does not fit {supernet.space.name}: {reason}") from None
    return summary


class SupernetLoop(ABC):
    """One run, in three phases: before, run_epochs, after.

    A kind of supernet says which networks a step works on, how they learn, and with which optimiser.

    Args:
        supernet: to train.
        settings: how.
        recipe: the whole recipe, checked.
        largest: the supernet's largest network.
        training: images to learn from.
        run: the folder: checkpoints, log.jsonl, in the end supernet.safetensors and summary.json.
        workers: processes that load images, for each process that trains.
        cpu: train on the CPU, GPU or not.

    Attributes:
        step: optimiser steps done.
        total_steps: of the whole run.

    Raises:
        InputError: recipe, data and supernet do not fit.
    """

    supernet: ScaleNetSupernet | ScaleNASSupernet
    settings: LoopSettings

    def __init__(
        self,
        supernet: ScaleNetSupernet | ScaleNASSupernet,
        settings: LoopSettings,
        recipe: Recipe,
        largest: ArchSpec,
        training: Examples,
        run: Path,
        workers: int,
        cpu: bool,
    ) -> None:
        self.supernet, self.settings, self.recipe = supernet, settings, recipe
        self.training, self.folder = training, run
        check_labels(largest, Labels(), training)
        check_batch_norm(largest, recipe)
        self.accelerator = make_accelerator(recipe, cpu)
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        self.rank = self.accelerator.process_index
        if recipe.batch_size % self.processes:
            raise InputError(
                f"batch_size: found {recipe.batch_size}, expected a multiple of {self.processes} processes"
            )
        loader = training_loader(training, largest, pretrained_cfg(largest), recipe, recipe.batch_size, workers)
        self.steps_per_epoch = len(loader)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        supernet.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = self.new_optimizer()
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps_per_epoch)
        self.loader: Any = self.accelerator.prepare(loader)
        self.loss = task_loss(largest.task, recipe, self._mean_count)
        self.step, self.images, self.image_macs = 0, 0, 0
        self.broken = BrokenImages(recipe.broken_limit)
        self.began = time.monotonic()
        self.doing = f"epoch 0 of {recipe.epochs}"

    # --- what kinds of supernets differ in -----------------------------------------------------------

    @abstractmethod
    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimiser of the supernet's weights."""

    @abstractmethod
    def update(self, gradients: Gradients) -> None:
        """Take a step of the optimiser along these gradients; other weights stay as they are."""

    @abstractmethod
    def draw_networks(self, rng: np.random.Generator) -> list[ArchSpec]:
        """The networks of a step in one process."""

    @abstractmethod
    def activate(self, spec: ArchSpec) -> None:
        """Let a network run, in the way of this step."""

    @abstractmethod
    def losses(self, images: Tensor, target: Any, networks: Sequence[ArchSpec]) -> Iterator[Tensor]:  # noqa: ANN401 - each task has its own
        """Run one network after the other (`enter`); the loss of each, whose backward pass is taken before the next.

        Args:
            images: of a batch, as the loader gives them.
            target: of the batch.
            networks: of this process.
        """

    def facts(self) -> dict[str, JsonValue]:
        """What must be the same when a run is gone on with: settings, space and data."""
        return {
            "space": self.supernet.space.model_dump(mode="json", exclude={"name"}),
            "classes": self.supernet.classes,
            "training": [self.training.source, self.training.split, len(self.training)],
            **self.settings.model_dump(mode="json", exclude={"recipe"}),
            **{f"recipe.{name}": value for name, value in self.recipe.to_dict().items()},
        }

    # --- what they have in common --------------------------------------------------------------------

    def before(self) -> None:
        """Take up the folder: a new run, or one that was stopped."""
        exists = (self.folder / SETTINGS).exists()
        self.accelerator.wait_for_everyone()  # before one of them writes it
        self._check_or_write_settings(exists)
        space = self.supernet.space
        checkpoint = newest(self.folder, lambda path: read_state(path, space.hash, f"space {space.name}"))
        if checkpoint is not None:
            states = checkpoint.states
            self.step, self.began = checkpoint.progress.step, time.monotonic() - checkpoint.progress.seconds
            self.supernet.load_state_dict(states["supernet"])
            self.optimizer.load_state_dict(states["optimizer"])
            restore_layout(self.optimizer)
            self.images, self.image_macs = states["counts"]
            self.broken.add(checkpoint.progress.broken)
        self.accelerator.wait_for_everyone()
        self.log = TrainingLog(self.folder, self.step) if self.accelerator.is_main_process else None

    def run_epochs(self, save_every: int | None, log_interval: int, on_step: OnProgress) -> None:
        """Train from where the run is to the end.

        Args:
            save_every: steps between checkpoints, besides those after each epoch.
            log_interval: steps between lines of the log.
            on_step: told of every step: what is being done, how many are done, and of how many.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.supernet.train()
        losses: list[Tensor] = []
        since = time.monotonic()
        for epoch in range(self.step // self.steps_per_epoch, self.recipe.epochs):
            for batch in self._batches(epoch, self.step - epoch * self.steps_per_epoch):
                if self.scheduler is not None:
                    self.scheduler.step_update(self.step)
                networks = self.draw(self.step)
                losses.append(self._train_step(batch, networks))
                self.broken.add(batch["broken"])
                self.step += 1
                last = self.step % self.steps_per_epoch == 0
                if self.step % log_interval == 0 or last:
                    rate = len(losses) * self.recipe.batch_size / (time.monotonic() - since)
                    self._tell(losses, networks[self.rank][0], rate)
                    losses, since = [], time.monotonic()
                on_step(self.doing, self.step, self.total_steps)
                if last or (save_every and self.step % save_every == 0):
                    self._save()

    def after(self) -> SupernetSummary:
        """Write the supernet."""
        if self.log is not None:
            self.log.close()
        if self.accelerator.is_main_process and not (self.folder / SUMMARY).exists():
            state = {name: tensor.cpu().contiguous() for name, tensor in self.supernet.state_dict().items()}
            with replacing(self.folder / SUPERNET_WEIGHTS) as temporary:
                temporary.write_bytes(save(state))
            SupernetSummary(
                space_hash=self.supernet.space.hash,
                weights_sha256=file_sha256(self.folder / SUPERNET_WEIGHTS),
                steps=self.step,
                images=self.images,
                image_macs=self.image_macs,
                seconds=round(time.monotonic() - self.began, 1),
            ).save(self.folder / SUMMARY)
        self.accelerator.wait_for_everyone()
        return SupernetSummary.load(self.folder / SUMMARY)

    def draw(self, step: int) -> list[list[ArchSpec]]:
        """The networks of a step, for each process: a function of the seed and the step alone."""
        if self.settings.processes == "same":
            return [self._draw(step, 0)] * self.processes
        return [self._draw(step, rank) for rank in range(self.processes)]

    def enter(self, spec: ArchSpec) -> None:
        """Let a network run, with batch norms of all processes' images where they all run it."""
        self.activate(spec)
        if self.processes > 1 and self.settings.processes == "same":
            share_statistics(self.supernet.active)

    def _draw(self, step: int, rank: int) -> list[ArchSpec]:
        return self.draw_networks(np.random.default_rng([self.recipe.seed, step, rank]))

    def _batches(self, epoch: int, skip: int) -> Iterator[dict[str, Any]]:
        """The epoch's batches, from the one after `skip`, on the device."""
        self.loader.dataset.set_epoch(epoch)
        self.loader.set_epoch(epoch)
        yield from self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader

    def _train_step(self, batch: Mapping[str, Any], networks: Sequence[Sequence[ArchSpec]]) -> Tensor:
        """One optimiser step; the loss of the first network in this process."""
        images, target, mine = batch["image"], batch["target"], networks[self.rank]
        seed_step(self.recipe.seed, self.step, self.rank)
        gradients, losses = Gradients(), []
        if self.settings.processes == "different":  # first, so that all processes have the windows in one order
            for spec in chain.from_iterable(networks):
                self.enter(spec)
                gradients.cover(self.supernet.windows)
        for loss in self.losses(images, target, mine):
            (loss / len(mine)).backward()  # type: ignore[no-untyped-call]
            gradients.add(self.supernet.windows)
            losses.append(loss.detach())
        if self.processes > 1:
            gradients.average()
        if self.recipe.clip_grad is not None:
            gradients.clip(self.recipe.clip_grad)
        self.update(gradients)
        for spec in chain.from_iterable(networks):
            self.images += len(images)
            self.image_macs += len(images) * spec.cost.macs
        return losses[0]

    def _mean_count(self, count: Tensor) -> Tensor:
        if self.processes == 1:
            return count
        mean: Tensor = self.accelerator.reduce(count.float(), "mean")
        return mean

    def _tell(self, losses: list[Tensor], network: ArchSpec, rate: float) -> None:
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean").item())
        if not np.isfinite(loss):
            raise TrainingError(
                f"{self.folder}: found the loss {loss} near step {self.step}, expected a finite one:"
                " a lower lr, a longer warm-up or clip_grad may help"
            )
        epoch, macs = self.step / self.steps_per_epoch, network.cost.macs
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        if self.log is not None:
            values = {"epoch": epoch, "loss": loss, "lr": lr, "images_per_second": round(rate, 1), "macs": macs}
            self.log.write(self.step, "train", values)
        left = (self.total_steps - self.step) * self.recipe.batch_size / rate
        self.doing = (
            f"supernet: epoch {epoch:.2f} of {self.recipe.epochs}, loss {loss:.4g}, now {format_count(macs)} MACs,"
            f" {rate:,.0f} images/s, {format_duration(left)} left"
        )

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            states = {
                "supernet": dict(self.supernet.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "counts": [self.images, self.image_macs],
            }
            seconds = time.monotonic() - self.began
            progress = Progress(step=self.step, seconds=seconds, broken=tuple(self.broken.names))
            save_state(self.folder, self.supernet.space.hash, states, progress)
        self.accelerator.wait_for_everyone()

    def _check_or_write_settings(self, exists: bool) -> None:
        """Refuse to go on with other settings, space or data; of a new run, write them down."""
        path, facts = self.folder / SETTINGS, self.facts()
        if exists:
            try:
                before = read_json(path)
                if not isinstance(before, dict):
                    raise ValueError(f"found {quoted(before)}, expected an object")
            except ValueError as error:
                raise TrainingError(f"{path}: {error}") from None
            for name, value in facts.items():
                if before.get(name) != value:
                    found, expected = quoted(before.get(name)), quoted(value)
                    raise TrainingError(
                        f"{self.folder}: {name}: found {found} in this run, expected {expected}, as now given"
                    )
        elif self.accelerator.is_main_process:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({**facts, "machine": machine()}, indent=2) + "\n", encoding="utf-8")
