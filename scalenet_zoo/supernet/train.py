"""Training of the super-supernet, on one process or many.

images at the largest resolution --resized--> active network --loss--> windows' gradients --WindowSGD--> wide weights
                                                ^
             sampler (seed, step) --space--> architecture, side of the channels

Every process works on the same architecture in a step, each on its share of the images, or each on its own. As in
`train.py`, nothing random outlives a step, so a run that was killed goes on as if it had never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, JsonValue
from safetensors.torch import save
from timm.data import Mixup
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo._files import file_sha256, read_json, replacing
from scalenet_zoo.accelerator import make_accelerator, seed_step
from scalenet_zoo.backends import machine
from scalenet_zoo.checkpoint import Progress, newest, read_state, save_state
from scalenet_zoo.data import BrokenImages, Examples, training_loader
from scalenet_zoo.distributed import share_statistics
from scalenet_zoo.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.losses import task_loss
from scalenet_zoo.optimisation import make_scheduler, restore_layout
from scalenet_zoo.quantities import format_count, format_duration
from scalenet_zoo.recipe import Recipe, load_recipe
from scalenet_zoo.search.candidates import Candidate
from scalenet_zoo.search.space import Space
from scalenet_zoo.spec import ArchSpec, Document, Strict
from scalenet_zoo.supernet.elastic import Side
from scalenet_zoo.supernet.optimiser import Gradients, WindowSGD
from scalenet_zoo.supernet.samplers import HierarchicalSampler, Sampler, SandwichSampler, UniformSampler
from scalenet_zoo.supernet.scalenet import SuperSupernet
from scalenet_zoo.train import OnStep
from scalenet_zoo.training_log import TrainingLog
from scalenet_zoo.weights import read_weights
from scalenet_zoo.zoo import pretrained_cfg

WEIGHTS, SUMMARY, SETTINGS = "supernet.safetensors", "summary.json", "settings.json"

_FIXED = {
    "opt": "sgd",
    "grad_accum_steps": 1,
    "layer_decay": None,
    "model_ema_decay": None,
    "torchcompile": False,
    "train_size": None,
    "drop": 0.0,
    "drop_path": 0.0,
}
"""What a supernet's recipe cannot change."""


class SupernetSettings(Strict):
    """How a supernet is trained.

    Attributes:
        sampler: which networks a step works on: `hierarchical` and `uniform` one, `sandwich` four.
        stage_probabilities: of the hierarchical sampler; None: by the number of multipliers.
        resolution: `stage`: of the scaling stage that was drawn; `random`: any of the space's.
        processes: whether all processes work on the `same` architectures in a step, or on `different` ones.
        recipe: values that differ from recipe.yaml, the paper's.
    """

    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    stage_probabilities: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    resolution: Literal["stage", "random"] = "stage"
    processes: Literal["same", "different"] = "same"
    recipe: dict[str, JsonValue] = Field(default_factory=dict)

    def make_recipe(self) -> Recipe:
        """The recipe.

        Raises:
            InputError: a value is unknown, out of range, or has no meaning for a supernet.
        """
        paper = load_recipe(str(files("scalenet_zoo.supernet") / "recipe.yaml"))
        recipe = paper.replace(self.recipe, "supernet: recipe")
        for name, expected in _FIXED.items():
            if getattr(recipe, name) != expected:
                found = getattr(recipe, name)
                raise InputError(f"supernet: recipe: {name}: found {found}, expected {expected} for a supernet")
        if recipe.amp == "fp16":
            raise InputError("supernet: recipe: amp: found fp16, expected bf16 or no for a supernet")
        return recipe

    def make_sampler(self, space: Space) -> Sampler:
        """The sampler.

        Raises:
            InputError: the stage probabilities are not for the space, or for another sampler.
        """
        if self.stage_probabilities is not None and self.sampler == "uniform":
            raise InputError("supernet: stage_probabilities: found some, expected none for the uniform sampler")
        if self.sampler == "uniform":
            return UniformSampler(space)
        hierarchical = HierarchicalSampler(space, self.stage_probabilities)
        return SandwichSampler(space, hierarchical) if self.sampler == "sandwich" else hierarchical


class SupernetSummary(Document):
    """What training a supernet came to: RUN/supernet/summary.json.

    Attributes:
        space_hash: of the space.
        weights_sha256: of the file with its weights.
        steps: optimiser steps.
        images: forward and backward, over all processes; one that several networks of a step see counts for each.
        image_macs: multiply-adds of these forward passes.
        seconds: training took.
    """

    format: Literal["scalenet-zoo/supernet"] = "scalenet-zoo/supernet"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    space_hash: str
    weights_sha256: str
    steps: int
    images: int
    image_macs: int
    seconds: float


def train_supernet(
    supernet: SuperSupernet,
    settings: SupernetSettings,
    training: Examples,
    run: Path,
    *,
    workers: int = 2,
    save_every: int | None = None,
    log_interval: int = 50,
    cpu: bool = False,
    on_step: OnStep = lambda what, done, total: None,
) -> SupernetSummary:
    """Train a supernet, or go on with it, and write it to a folder.

    Args:
        supernet: to train.
        settings: how.
        training: images to learn from.
        run: the folder: checkpoints, log.jsonl, in the end supernet.safetensors and summary.json.
        workers: processes that load images, for each process that trains.
        save_every: steps between checkpoints, besides those after each epoch.
        log_interval: steps between lines of the log.
        cpu: train on the CPU, GPU or not.
        on_step: told of every step: what is being done, how many are done, and of how many.

    Raises:
        InputError: settings, data and space do not fit.
        TrainingError: the loss is not finite, or the folder holds a run with other settings.
        WeightsError: a checkpoint is damaged.
        OutputError: a file cannot be written.
    """
    trainer = SupernetTrainer(supernet, settings, training, run, workers, cpu)
    trainer.before()
    trainer.run_epochs(save_every, log_interval, on_step)
    return trainer.after()


def load_supernet(supernet: SuperSupernet, run: Path) -> SupernetSummary:
    """Load a trained supernet from its folder.

    Raises:
        WeightsError: it is damaged, or of another space.
    """
    summary = SupernetSummary.load(run / SUMMARY)
    if summary.space_hash != supernet.space.hash:
        raise WeightsError(f"{run}: found a supernet of another space, expected {supernet.space.name}")
    if not (run / WEIGHTS).is_file() or file_sha256(run / WEIGHTS) != summary.weights_sha256:
        raise WeightsError(f"{run / WEIGHTS}: is damaged or missing, expected what {SUMMARY} was written with")
    weights, _ = read_weights(run / WEIGHTS)
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:  # other classes or channels
        reason = " ".join(str(error).split())
        raise WeightsError(f"{run / WEIGHTS}: does not fit {supernet.space.name}: {reason}") from None
    return summary


class SupernetTrainer:
    """One run, in three phases: before, run_epochs, after; arguments as `train_supernet`.

    Attributes:
        step: optimiser steps done.
        total_steps: of the whole run.
    """

    def __init__(
        self,
        supernet: SuperSupernet,
        settings: SupernetSettings,
        training: Examples,
        run: Path,
        workers: int,
        cpu: bool,
    ) -> None:
        self.supernet, self.settings, self.training, self.folder = supernet, settings, training, run
        self.space = supernet.space
        self.recipe = recipe = settings.make_recipe()
        self.sampler = settings.make_sampler(self.space)
        self.accelerator = make_accelerator(recipe, cpu)
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        self.rank = self.accelerator.process_index
        if recipe.batch_size % self.processes:
            raise InputError(
                f"batch_size: found {recipe.batch_size}, expected a multiple of {self.processes} processes"
            )
        largest = self.space.largest_spec(supernet.classes, supernet.in_channels)
        loader = training_loader(training, largest, pretrained_cfg(largest), recipe, recipe.batch_size, workers)
        self.steps_per_epoch = len(loader)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        memory = torch.channels_last if recipe.channels_last else torch.contiguous_format
        supernet.to(self.device, memory_format=memory)  # type: ignore[call-overload]
        self.memory_format = memory
        self.optimizer = WindowSGD(supernet, recipe.lr, recipe.momentum, recipe.weight_decay)
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps_per_epoch)
        self.loader: Any = self.accelerator.prepare(loader)
        self.loss = task_loss("classification", recipe)
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=supernet.classes
            )
        self.step, self.images, self.image_macs = 0, 0, 0
        self.broken = BrokenImages(recipe.broken_limit)
        self.began = time.monotonic()
        self.doing = f"epoch 0 of {recipe.epochs}"

    def before(self) -> None:
        """Take up the folder: a new run, or one that was stopped."""
        exists = (self.folder / SETTINGS).exists()
        self.accelerator.wait_for_everyone()  # before one of them writes it
        self._check_or_write_settings(exists)
        checkpoint = newest(self.folder, lambda path: read_state(path, self.space.hash, f"space {self.space.name}"))
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

    def run_epochs(self, save_every: int | None, log_interval: int, on_step: OnStep) -> None:
        """Train from where the run is to the end."""
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
            with replacing(self.folder / WEIGHTS) as temporary:
                temporary.write_bytes(save(state))
            SupernetSummary(
                space_hash=self.space.hash,
                weights_sha256=file_sha256(self.folder / WEIGHTS),
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

    def _draw(self, step: int, rank: int) -> list[ArchSpec]:
        rng = np.random.default_rng([self.recipe.seed, step, rank])
        networks = self.sampler.sample(rng)
        if self.settings.resolution == "random":
            at = int(rng.choice(self.space.resolutions))
            networks = [Candidate(c.kernels, replace(c.scaling, resolution=at)) for c in networks]
        classes, channels = self.supernet.classes, self.supernet.in_channels
        return [self.space.spec(c.kernels, c.scaling, classes, in_channels=channels) for c in networks]

    def _batches(self, epoch: int, skip: int) -> Iterator[dict[str, Any]]:
        """The epoch's batches, from the one after `skip`, on the device."""
        self.loader.dataset.set_epoch(epoch)
        self.loader.set_epoch(epoch)
        yield from self.accelerator.skip_first_batches(self.loader, skip) if skip else self.loader

    def _train_step(self, batch: Mapping[str, Any], networks: Sequence[Sequence[ArchSpec]]) -> Tensor:
        """One optimiser step; the loss of the first network in this process."""
        images, target = batch["image"], batch["target"]
        seed_step(self.recipe.seed, self.step, self.rank)
        if self.mixup is not None:
            images, target = self.mixup(images, target)
        side: Side = "right" if self.step % 2 else "left"  # bilateral coupling
        gradients, losses, taught = Gradients(), [], None
        mine = networks[self.rank]
        if self.settings.processes == "different":  # first, so that all processes have the windows in one order
            for spec in chain.from_iterable(networks):
                self._activate(spec, side)
                gradients.cover(self.supernet.windows)
        for spec in mine:
            self._activate(spec, side)
            with self.accelerator.autocast():
                output = self.supernet(self._resized(images, spec.input.height))
                loss = self.loss(output, target) if taught is None else F.cross_entropy(output, taught)
            (loss / len(mine)).backward()  # type: ignore[no-untyped-call]
            gradients.add(self.supernet.windows)
            losses.append(loss.detach())
            taught = output.detach().float().softmax(dim=1) if taught is None else taught
        if self.processes > 1:
            gradients.average()
        if self.recipe.clip_grad is not None:
            gradients.clip(self.recipe.clip_grad)
        self.optimizer.update(gradients)
        for spec in chain.from_iterable(networks):
            self.images += len(images)
            self.image_macs += len(images) * spec.cost.macs
        return losses[0]

    def _activate(self, spec: ArchSpec, side: Side) -> None:
        assert spec.network.type == "mbconv"
        self.supernet.activate(spec.network, side)
        if self.processes > 1 and self.settings.processes == "same":
            share_statistics(self.supernet.active)

    def _resized(self, images: Tensor, pixels: int) -> Tensor:
        if images.shape[-1] != pixels:
            images = F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)
        return images.contiguous(memory_format=self.memory_format)

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
            save_state(self.folder, self.space.hash, states, progress)
        self.accelerator.wait_for_everyone()

    def _check_or_write_settings(self, exists: bool) -> None:
        """Refuse to go on with other settings, space or data; of a new run, write them down."""
        path = self.folder / SETTINGS
        fixed = {
            "space": self.space.model_dump(mode="json", exclude={"name"}),
            "classes": self.supernet.classes,
            "training": [self.training.source, self.training.split, len(self.training)],
            **self.settings.model_dump(mode="json", exclude={"recipe"}),
            **{f"recipe.{name}": value for name, value in self.recipe.to_dict().items()},
        }
        if exists:
            try:
                before = read_json(path)
            except ValueError as error:
                raise TrainingError(f"{path}: {error}") from None
            for name, value in fixed.items():
                if before.get(name) != value:
                    raise TrainingError(
                        f"{self.folder}: {name}: found {before.get(name)} in this run, expected {value}, as now given"
                    )
        elif self.accelerator.is_main_process:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({**fixed, "machine": machine()}, indent=2) + "\n", encoding="utf-8")
