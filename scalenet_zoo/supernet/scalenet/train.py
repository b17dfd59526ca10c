"""Training of ScaleNet's supernet: the loop of `supernet/loop.py` over scaled base models (ECCV 2022, section 3.2).

images at the largest resolution --resized--> active network --loss--> windows' gradients --WindowSGD--> wide weights
                                                ^
             sampler (seed, step) --space--> architecture, side of the channels
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.loop import SupernetLoop
from scalenet_zoo.supernet.scalenet.inheritance import inherit_supernet
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.optimiser import WindowSGD
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.supernet.summary import SupernetSummary
from scalenet_zoo.training.checkpoint import Checkpoint
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.training.optimisation import check_batch_norm


def train_scalenet(
    supernet: ScaleNetSupernet,
    settings: ScaleNetSettings,
    training: Examples,
    run: Path,
    options: LoopOptions = LoopOptions(),  # noqa: B008 - it is immutable
    on_step: OnProgress = lambda what, done, total: None,
) -> SupernetSummary:
    """Train a supernet and write it to a folder; a stopped run resumes.

    Args:
        supernet: the supernet to train.
        settings: how to train it.
        training: images to learn from.
        run: the folder of the run: checkpoints and log.jsonl, in the end supernet.safetensors and summary.json.
        options: where to train, and how often to save and to log.
        on_step: called at every step with what is being done, the number of steps done, and their total.

    Raises:
        InputError: settings, data and space do not fit together.
        TrainingError: the loss is not finite, the folder holds a run with other settings, or another process works in
            it.
        WeightsError: a checkpoint is damaged.
        OutputError: a file cannot be written.
    """
    return ScaleNetTrainer(supernet, settings, training, run, options).run(on_step)


class ScaleNetTrainer(SupernetLoop):
    """One training run; its arguments are those of `train_scalenet`."""

    supernet: ScaleNetSupernet
    settings: ScaleNetSettings
    optimizer: WindowSGD

    def __init__(
        self,
        supernet: ScaleNetSupernet,
        settings: ScaleNetSettings,
        training: Examples,
        run: Path,
        options: LoopOptions,
    ) -> None:
        recipe, self.sampler = settings.make_recipe(), settings.make_sampler(supernet.space)
        largest = supernet.space.largest_spec(supernet.classes, supernet.in_channels)
        pixels = supernet.space.resolutions[0]
        check_batch_norm(largest.replace(height=pixels, width=pixels), recipe)
        super().__init__(supernet, settings, recipe, largest, training, run, options)

    def choose_layout(self) -> torch.memory_format:
        """Choose the memory format; on a GPU, channels always come first.

        In one trial in fp32, 12 processes on one H100 took 4 steps per second together with channels last, and 172 with
        channels first (benchmarks/results/evidence.json). Probably cuDNN prepares kernels for every new shape, and
        shapes change here.
        """
        return torch.contiguous_format if self.device.type == "cuda" else super().choose_layout()

    def new_optimizer(self) -> WindowSGD:
        """Make an optimiser of windows."""
        return WindowSGD(self.supernet, self.recipe.lr, self.recipe.momentum, self.recipe.weight_decay)

    def update(self, gradients: Gradients) -> None:  # noqa: D102
        self.optimizer.update(gradients)

    def draw_networks(self, rng: np.random.Generator) -> list[ArchSpec]:  # noqa: D102
        supernet, space = self.supernet, self.supernet.space
        networks = self.sampler.sample(rng)
        if self.settings.resolution == "random":
            at = int(rng.choice(space.resolutions))
            networks = [Candidate(c.kernels, replace(c.scaling, resolution=at)) for c in networks]
        return [space.spec(c.kernels, c.scaling, supernet.classes, in_channels=supernet.in_channels) for c in networks]

    def activate(self, spec: ArchSpec) -> None:
        """Activate a network on the side of the channels whose turn it is (bilateral coupling), or on the left."""
        assert spec.network.type == "mbconv"
        is_right = self.settings.coupled and self.step % 2
        self.supernet.activate(spec.network, "right" if is_right else "left")

    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; if there is none, inherit weights as set."""
        checkpoint = super().load()
        if checkpoint is None and self.settings.inherit is not None:
            inherit_supernet(self.supernet, self.settings.inherit, self.training.labels)
        return checkpoint

    def losses(self, images: Tensor, target: Any, networks: Sequence[ArchSpec]) -> Iterator[Tensor]:  # noqa: ANN401
        """Yield the task's loss for the first network; the other networks learn from its output."""
        if self.mixup is not None:
            images, target = self.mixup(images, target)
        taught: Tensor | None = None
        for spec in networks:
            self.enter(spec)
            with self.accelerator.autocast():
                output = self.supernet(self._resized(images, spec.input.height))
                loss = self.loss(output, target) if taught is None else F.cross_entropy(output, taught)
            yield loss
            taught = output.detach().float().softmax(dim=1) if taught is None else taught

    def _resized(self, images: Tensor, pixels: int) -> Tensor:
        if images.shape[-1] != pixels:
            images = F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)
        return images.contiguous(memory_format=self.memory_format)
