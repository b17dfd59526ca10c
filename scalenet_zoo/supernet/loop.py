"""Training of a supernet: the loop of `training/loop.py`, with what ScaleNet's and ScaleNAS's supernets share.

    batch --> the step's networks, one after another --losses--> windows' gradients --> optimiser --> shared weights
                   ^
                sampler (seed, step)

In a step, all processes train the same architectures on their shares of the images, or each process trains its own.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save

from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.core.files import file_sha256, replacing
from scalenet_zoo.networks.sync_batch_norm import share_statistics
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.summary import SUMMARY, SUPERNET_WEIGHTS, SupernetSummary
from scalenet_zoo.training.accelerator import seed_step
from scalenet_zoo.training.checkpoint import Checkpoint, Progress, newest, read_state, save_state
from scalenet_zoo.training.loop import LoopOptions, TrainingLoop
from scalenet_zoo.training.optimisation import make_scheduler
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.sources import open_interface
from scalenet_zoo.zoo.weights_files import read_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
    from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
    from scalenet_zoo.supernet.settings import LoopSettings
    from scalenet_zoo.training.recipe import Recipe


def load_supernet(supernet: ScaleNetSupernet | ScaleNASSupernet, run: Path) -> SupernetSummary:
    """Load the weights of a trained supernet from its folder.

    Args:
        supernet: gets the weights, in place.
        run: the folder of the supernet, RUN/supernet.

    Raises:
        SpecError: the summary cannot be read.
        WeightsError: the weights are damaged, or the supernet is of another space.
    """
    summary = SupernetSummary.load(run / SUMMARY)
    if summary.space_hash != supernet.space.hash:
        raise WeightsError(f"{run}: found a supernet of another space, expected {supernet.space.name}")
    if not (run / SUPERNET_WEIGHTS).is_file() or file_sha256(run / SUPERNET_WEIGHTS) != summary.weights_sha256:
        raise WeightsError(f"{run / SUPERNET_WEIGHTS}: is damaged or missing, expected the file that {SUMMARY} names")
    weights, _ = read_weights(run / SUPERNET_WEIGHTS)
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:  # other classes or channels
        reason = " ".join(str(error).split())
        raise WeightsError(f"{run / SUPERNET_WEIGHTS}: does not fit {supernet.space.name}: {reason}") from None
    return summary


def interface_of(settings: LoopSettings, spec: ArchSpec) -> Interface:
    """Say how to prepare images for a supernet's networks: as for the network that it inherits from, if there is one.

    Args:
        settings: the supernet's settings.
        spec: the spec of any of its networks.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: the network that it inherits from cannot be opened.
    """
    return Interface.of(spec) if settings.inherit is None else open_interface(settings.inherit)


class SupernetLoop(TrainingLoop[SupernetSummary]):
    """One training run. Subclasses choose the networks of a step, their losses and the optimiser.

    Args:
        supernet: the supernet to train.
        settings: how to train it.
        recipe: the complete, checked recipe.
        largest: the spec of the supernet's largest network.
        training: images to learn from.
        run: the folder of the run: checkpoints and log.jsonl, in the end supernet.safetensors and summary.json.
        options: where to train, and how often to save and to log.

    Raises:
        InputError: recipe, data and supernet do not fit together.
    """

    record = "settings.json"
    kind = "supernet: "
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
        options: LoopOptions,
    ) -> None:
        self.model = self.supernet = supernet
        self.settings, self.images, self.image_macs = settings, 0, 0
        super().__init__(largest, interface_of(settings, largest), recipe, training, run, options)
        supernet.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = self.new_optimizer()
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps_per_epoch)

    # --- what subclasses define ----------------------------------------------------------------------

    @abstractmethod
    def new_optimizer(self) -> torch.optim.Optimizer:
        """Make an optimiser of the supernet's weights."""

    @abstractmethod
    def update(self, gradients: Gradients) -> None:
        """Take an optimiser step along the gradients; weights without a gradient stay as they are."""

    @abstractmethod
    def draw_networks(self, rng: np.random.Generator) -> list[ArchSpec]:
        """Draw the networks of a step in one process."""

    @abstractmethod
    def activate(self, spec: ArchSpec) -> None:
        """Make a network the active one of this step."""

    @abstractmethod
    def losses(self, images: Tensor, target: Any, networks: Sequence[ArchSpec]) -> Iterator[Tensor]:  # noqa: ANN401 - each task has its own
        """Enter and run one network after the other; yield each loss, whose backward pass runs before the next network.

        Args:
            images: the batch's images (n, channels, h, w), as the loader gives them.
            target: the batch's targets.
            networks: the networks of this process.
        """

    # --- what all supernets share --------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Describe the run: settings, recipe, space and data; they must be the same when it resumes."""
        return {
            **super().facts(),
            "space": self.supernet.space.model_dump(mode="json", exclude={"name"}),
            **self.settings.model_dump(mode="json", exclude={"recipe"}),
            **{f"recipe.{name}": value for name, value in self.recipe.to_dict().items()},
        }

    def load(self) -> Checkpoint | None:  # noqa: D102
        space = self.supernet.space
        checkpoint = newest(self.folder, lambda path: read_state(path, space.hash, f"space {space.name}"))
        if checkpoint is not None:
            self.supernet.load_state_dict(checkpoint.states["supernet"])
            self.images, self.image_macs = checkpoint.states["counts"]
        return checkpoint

    def save(self, progress: Progress) -> None:  # noqa: D102
        states = {
            "supernet": dict(self.supernet.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "counts": [self.images, self.image_macs],
        }
        save_state(self.folder, self.supernet.space.hash, states, progress, self.options.keep)

    def finish(self) -> SupernetSummary:
        """Write the supernet's weights and summary, in the main process; return the summary."""
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
        """Draw the networks of a step for each process: a function of the seed and the step only."""
        if self.settings.processes == "same":
            return [self._draw(step, 0)] * self.processes
        return [self._draw(step, rank) for rank in range(self.processes)]

    def enter(self, spec: ArchSpec) -> None:
        """Activate a network; if all processes run it, its batch norms see the images of all processes."""
        self.activate(spec)
        if self.processes > 1 and self.settings.processes == "same":
            share_statistics(self.supernet.active)

    def _draw(self, step: int, rank: int) -> list[ArchSpec]:
        return self.draw_networks(np.random.default_rng([self.recipe.seed, step, rank]))

    def take_step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[str]]:  # noqa: D102
        batch, networks = next(batches), self.draw(self.step)
        self.macs = networks[self.rank][0].cost.macs
        return self._train_step(batch, networks), batch["broken"]

    def _train_step(self, batch: Mapping[str, Any], networks: Sequence[Sequence[ArchSpec]]) -> Tensor:
        """Take one optimiser step; return the loss of the first network in this process."""
        images, target, mine = batch["image"], batch["target"], networks[self.rank]
        seed_step(self.recipe.seed, self.step, self.rank)
        gradients, losses = Gradients(), []
        if self.settings.processes == "different":  # comes first, so that all processes order the windows alike
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
