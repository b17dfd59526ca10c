"""Training of supernets on images that are on the device, and scoring of networks with a supernet's weights.

The package provides networks, windows, optimiser, samplers, losses, schedule and scoring. Two things differ from
`supernet/scalenet/train.py`: images come from `Epochs`, and a step activates networks without making specs of them.

`SharedKernels` is a supernet whose small kernels are the middle of the large ones. `SupernetTraining(average=...)`
keeps a running mean of the weights.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.evidence.alone import AUTOCAST, Fence
from benchmarks.evidence.images import Epochs, Normalise, Sets, resized
from benchmarks.evidence.plan import CLASSES, Plan
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import replacing
from scalenet_zoo.networks.layers import MBConv
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.search.scalenet.config import ScaleNetScoring
from scalenet_zoo.search.scalenet.judging import score_network
from scalenet_zoo.supernet.gradients import Gradients, Window
from scalenet_zoo.supernet.scalenet.elastic import LAYER_DIMS, Side, find_places
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.optimiser import WindowSGD
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import make_scheduler
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import MBConvNetwork
    from scalenet_zoo.spaces.scalenet import Space


class SharedKernels(ScaleNetSupernet):
    """A supernet that has one set of weights per layer: a small kernel is the middle of the largest one.

    This is once-for-all's elastic kernel (ICLR 2020, section 3.3) without its transformation matrices. Only samplers
    that draw one network per step may train it.
    """

    def __init__(self, space: "Space", classes: int, in_channels: int = 3) -> None:
        super().__init__(space, classes, in_channels)
        self._largest: list[tuple[nn.Module, int]] = []
        kept = nn.ModuleList()
        for positions in self._layers:
            wide = nn.ModuleList()
            for choices in positions:
                shared = choices[max(choices)].wide
                for choice in choices.values():
                    choice.wide, choice.places = shared, find_places(shared, choice.shell, LAYER_DIMS)
                self._largest.append((shared.depthwise.conv, max(choices)))
                wide.append(shared)
            kept.append(wide)
        self.stages = kept

    def activate(self, network: "MBConvNetwork", side: "Side" = "left") -> None:
        """See `ScaleNetSupernet.activate`."""
        super().activate(network, side)
        sizes = {conv.weight: kernel for conv, kernel in self._largest}
        at = {window.full: place for place, window in enumerate(self.windows) if window.full in sizes}
        kernels = [layer.kernel for stage in network.stages for layer in stage]
        shells = [module for module in self.active.stages.modules() if isinstance(module, MBConv)]
        for (full, place), kernel, shell in zip(at.items(), kernels, shells, strict=True):
            off = (sizes[full] - kernel) // 2
            middle = slice(off, off + kernel)
            index = (*self.windows[place].index, slice(0, 1), middle, middle)
            view = full.detach()[index].requires_grad_()
            shell.depthwise.conv._parameters["weight"] = view
            self.windows[place] = Window(full, index, view)


class SupernetTraining:
    """The training of one supernet with one seed.

    Args:
        plan: the plan, for the space.
        settings: the settings of the supernet; its recipe has the seed.
        sets: the images, on the device that trains.
        shared: whether the kernels of a layer share weights.
        average: the decay of the running mean of the weights, 0 to 1; None keeps no mean.

    Attributes:
        done: number of steps so far.
        seconds: their duration.
    """

    def __init__(
        self, plan: Plan, settings: ScaleNetSettings, sets: Sets, shared: bool = False, average: float | None = None
    ) -> None:
        self.recipe = recipe = settings.make_recipe()
        torch.manual_seed(recipe.seed)  # for the initial weights
        self.settings, self.space, self.sets = settings, plan.opened, sets
        self.device = sets.train.images.device
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.supernet = (SharedKernels if shared else ScaleNetSupernet)(self.space, CLASSES)
        self.supernet.to(self.device, memory_format=self.layout).train()  # type: ignore[call-overload]
        self.interface = Interface.of(self.space.largest_spec(CLASSES))
        self.normalise = Normalise(self.interface, self.device)
        self.epochs = Epochs(sets.train, recipe.batch_size, recipe.seed, self.normalise.mean)
        self.sampler = settings.make_sampler(self.space)
        self.optimizer = WindowSGD(self.supernet, recipe.lr, recipe.momentum, recipe.weight_decay)
        self.scheduler = make_scheduler(self.optimizer, recipe, self.epochs.steps)
        self.loss = task_loss("classification", recipe)
        self.done, self.seconds = 0, 0.0
        self.average, self.fence = average, Fence(self.device)
        self.weights = list(self.supernet.parameters())
        self.mean = [weight.detach().clone() for weight in self.weights] if average is not None else []

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return self.epochs.steps * self.recipe.epochs

    def run(self, steps: int | None = None, until: float = float("inf")) -> int:
        """Train for some steps, or to the end; stop early once `time.monotonic()` passes `until`.

        Returns:
            Number of steps taken.
        """
        began = time.monotonic()
        first, last = self.done, self.steps if steps is None else min(self.steps, self.done + steps)
        for steps_now in self.epochs.chunks(first, last):
            for images, targets in steps_now:
                if time.monotonic() < until:  # checked before each step, because one may take seconds
                    self._step(images, targets)
            if time.monotonic() >= until:
                break
            self.fence.next()
        self.fence.wait()
        self.seconds += time.monotonic() - began
        return self.done - first

    def save(self, path: Path, averaged: bool = False) -> None:
        """Write the weights, or their running mean, to a file."""
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self.supernet.state_dict().items()}
        if averaged:
            names = (name for name, _ in self.supernet.named_parameters())
            tensors |= {name: mean.contiguous().cpu() for name, mean in zip(names, self.mean, strict=True)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary)

    def load(self, path: Path) -> None:
        """Load the weights from a file that `save` wrote."""
        self.supernet.load_state_dict(load_file(path))

    def save_state(self, path: Path) -> None:
        """Write what a resumed training needs: weights, statistics, momenta, the running mean, steps and seconds."""
        tensors = {f"network.{name}": tensor for name, tensor in self.supernet.state_dict().items()}
        for place, weight in enumerate(self.weights):
            if "momentum_buffer" in self.optimizer.state[weight]:
                tensors[f"momentum.{place}"] = self.optimizer.state[weight]["momentum_buffer"]
        tensors |= {f"mean.{place}": mean for place, mean in enumerate(self.mean)}
        told = {"done": str(self.done), "steps": str(self.steps), "seconds": str(self.seconds)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file({name: each.detach().contiguous().cpu() for name, each in tensors.items()}, temporary, told)

    def load_state(self, path: Path) -> None:
        """Resume from a file that `save_state` wrote.

        Raises:
            InputError: if the file belongs to a training of another length.
        """
        with safe_open(path, "pt") as file:
            told = file.metadata()
        if int(told["steps"]) != self.steps:
            raise InputError(f"{path}: found a training of {told['steps']} steps, expected {self.steps}")
        tensors = load_file(path, str(self.device))
        own = {name.removeprefix("network."): each for name, each in tensors.items() if name.startswith("network.")}
        self.supernet.load_state_dict(own)
        for place, weight in enumerate(self.weights):
            if f"momentum.{place}" in tensors:
                self.optimizer.state[weight]["momentum_buffer"] = torch.empty_like(weight).copy_(
                    tensors[f"momentum.{place}"]
                )
        for place, mean in enumerate(self.mean):
            mean.copy_(tensors[f"mean.{place}"])
        self.done, self.seconds = int(told["done"]), float(told["seconds"])
        self.scheduler.step_update(self.done)

    def score(self, plan: Plan, keys: Sequence[str], scoring: ScaleNetScoring, until: float) -> list[float]:
        """Score networks with this supernet's weights: their accuracies on the search half, 0 to 1.

        Args:
            plan: the plan, for the specs.
            keys: the keys of the networks.
            scoring: how networks are scored.
            until: the time (`time.monotonic`) after which no further network is scored.

        Returns:
            One score per network; fewer if the time ran out.
        """
        chosen = torch.linspace(0, len(self.sets.train) - 1, min(scoring.bn_images, len(self.sets.train)))
        training = self.sets.train.images[chosen.long().to(self.device)]
        search, ready, scores = self.sets.search, {}, []
        for key in keys:
            if time.monotonic() > until:
                break
            spec = plan.spec(key)
            pixels = spec.input.height
            if pixels not in ready:
                statistics, judged = (resized(images, pixels) for images in (training, search.images))
                ready[pixels] = (
                    CachedImages(statistics, torch.zeros(len(statistics), dtype=torch.int64, device=self.device), ()),
                    CachedImages(judged, search.targets, ()),
                )
            scores.append(score_network(self.supernet, spec, *ready[pixels], scoring, self.interface))
        return scores

    def _step(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        networks = self.sampler.sample(np.random.default_rng([self.recipe.seed, self.done, 0]))
        side: Side = "right" if self.settings.coupled and self.done % 2 else "left"
        dtype, ready = AUTOCAST.get(self.recipe.amp), self.normalise(images)
        gradients, taught = Gradients(), None
        for candidate in networks:
            self.supernet.activate(self.space.network(candidate.kernels, candidate.scaling), side)
            shown = resized(ready, candidate.scaling.resolution).contiguous(memory_format=self.layout)
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                output = self.supernet(shown)
                loss = self.loss(output, targets) if taught is None else F.cross_entropy(output, taught)
            (loss / len(networks)).backward()  # type: ignore[no-untyped-call]
            gradients.add(self.supernet.windows)
            taught = output.detach().float().softmax(dim=1) if taught is None else taught
        self.optimizer.update(gradients)
        self.done += 1
        if self.average is not None:
            with torch.no_grad():  # early on, the mean forgets faster
                share = max(1 - self.average, 1 / (1 + self.done / 10))
                torch._foreach_lerp_(self.mean, list[torch.Tensor](self.weights), share)
        self.scheduler.step_update(self.done)
