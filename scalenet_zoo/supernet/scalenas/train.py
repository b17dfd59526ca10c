"""Training of ScaleNAS's supernet: the loop of `supernet/loop.py` over topologies (AutoML-Conf 2022, section 3).

images --+--> teacher, a trained network ------------------> prediction
         |                                                      | mean squared difference
         +--> active network of the supernet --> prediction --> + loss of the task --> gradients --> optimiser
                 ^
   (seed, step) --sampler--> topology

By default, the teacher is trained first: it is the largest network, and the supernet begins with its weights. With
`inherit`, the teacher begins with the weights of another network; so does a supernet that begins without a teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from scalenet_zoo.arch.spec import ArchSpec, Input
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.networks import MultipathNet
from scalenet_zoo.supernet.gradients import Gradients, step_along
from scalenet_zoo.supernet.loop import SupernetLoop
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenas.settings import ScaleNASSettings
from scalenet_zoo.supernet.scalenas.teacher import inherit_labelled, make_teacher
from scalenet_zoo.supernet.summary import SupernetSummary
from scalenet_zoo.training.checkpoint import Checkpoint
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.training.losses import teacher_loss
from scalenet_zoo.training.optimisation import make_optimizer
from scalenet_zoo.training.trainer import Options

TEACHER = "teacher"
"""The folder of the teacher's training, within the supernet's folder."""


def train_scalenas(
    supernet: ScaleNASSupernet,
    settings: ScaleNASSettings,
    training: Examples,
    validation: Examples,
    run: Path,
    options: LoopOptions = LoopOptions(),  # noqa: B008 - it is immutable
    on_step: OnProgress = lambda what, done, total: None,
) -> SupernetSummary:
    """Train a supernet, after its teacher, and write it to a folder; a stopped run resumes.

    Args:
        supernet: the supernet to train.
        settings: how to train it.
        training: images to learn from.
        validation: images to choose the teacher's best epoch by.
        run: the folder of the run: teacher (a run of `train`), checkpoints and log.jsonl, in the end
            supernet.safetensors and summary.json.
        options: where to train, and how often to save and to log.
        on_step: called at every step with what is being done, the number of steps done, and their total.

    Raises:
        InputError: settings, data, teacher and space do not fit together.
        ModelNotFoundError: there is no such teacher.
        TrainingError: the loss is not finite, the folder holds a run with other settings, or another process works in
            it.
        WeightsError: a checkpoint is damaged, or the teacher's weights cannot be fetched.
        OutputError: a file cannot be written.
    """
    recipe = settings.make_recipe(supernet.space.head)
    teacher = None
    if settings.needs_teacher:
        teacher = make_teacher(
            supernet,
            settings.teacher,
            settings.inherit,
            settings.teacher.make_recipe(recipe, supernet.space.head),
            training,
            validation,
            run / TEACHER,
            Options(**{each.name: getattr(options, each.name) for each in fields(LoopOptions)}),
            lambda what, done, total: on_step(f"teacher: {what}", done, total),
        )
    return ScaleNASTrainer(supernet, settings, training, run, options, teacher).run(on_step)


class ScaleNASTrainer(SupernetLoop):
    """One training run; its other arguments are those of `train_scalenas`.

    Args:
        teacher: a trained network of the space; None: the training uses no teacher.
    """

    supernet: ScaleNASSupernet
    settings: ScaleNASSettings

    def __init__(
        self,
        supernet: ScaleNASSupernet,
        settings: ScaleNASSettings,
        training: Examples,
        run: Path,
        options: LoopOptions,
        teacher: MultipathNet | None,
    ) -> None:
        space = supernet.space
        self.sampler = settings.make_sampler(space)
        if teacher is not None and settings.init == "teacher":
            supernet.inherit(teacher)
        recipe = settings.make_recipe(space.head)
        height, width = recipe.train_size or (space.input.height, space.input.width)
        image = Input(channels=space.input.channels, height=height, width=width)
        # The networks of a step are drawn for images of the training size.
        self.space = space.model_copy(update={"input": image})
        super().__init__(supernet, settings, recipe, supernet.largest.spec, training, run, options)
        self.teacher_sha256, self.teacher = None, None
        if teacher is not None:
            state = {name: tensor.cpu().contiguous() for name, tensor in teacher.state_dict().items()}
            self.teacher_sha256 = hashlib.sha256(save(state)).hexdigest()
            if recipe.distill_weight:
                self.teacher = teacher.to(self.device, memory_format=self.memory_format).eval()  # type: ignore[call-overload]
        self.learn = teacher_loss(space.head, recipe.distill_temperature)

    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; if there is none, and no teacher's weights, inherit weights as set."""
        checkpoint = super().load()
        source = self.settings.inherit
        if checkpoint is None and source is not None and self.settings.init == "scratch":
            inherit_labelled(self.supernet.largest, source, self.training.labels)
        return checkpoint

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Make one of timm's optimisers; it skips blocks and paths without a gradient, which are never used in part."""
        return make_optimizer(self.supernet, self.recipe)

    def update(self, gradients: Gradients) -> None:  # noqa: D102
        step_along(self.optimizer, gradients)

    def draw_networks(self, rng: np.random.Generator) -> list[ArchSpec]:
        """Draw the networks of a step in one process, for images of the training size."""
        drawn = self.sampler.sample(rng)
        return [self.space.spec(drawn[i], self.supernet.classes) for i in range(len(drawn))]

    def activate(self, spec: ArchSpec) -> None:  # noqa: D102
        assert spec.network.type == "multipath"
        self.supernet.activate(spec.network)

    def losses(self, images: Tensor, target: Any, networks: Sequence[ArchSpec]) -> Iterator[Tensor]:  # noqa: ANN401
        """Yield each network's loss: the task's loss, plus the weighted distance to the teacher's prediction."""
        images = images.contiguous(memory_format=self.memory_format)
        taught = None
        if self.teacher is not None:
            with torch.no_grad(), self.accelerator.autocast():
                taught = self.teacher(images)
        for spec in networks:
            self.enter(spec)
            with self.accelerator.autocast():
                output = self.supernet(images)
            loss = self.loss(output, target)
            if taught is not None:
                loss = loss + self.recipe.distill_weight * self.learn(output, taught)
            yield loss

    def facts(self) -> dict[str, Any]:
        """Describe the run: settings, recipe, space, data and teacher; they must be the same when it resumes."""
        return {**super().facts(), "teacher_sha256": self.teacher_sha256}
