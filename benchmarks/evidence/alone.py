"""Fast stand-alone training of one small network: on a GPU, a training step is recorded once as a CUDA graph.

The package provides the loss, the optimiser's settings and the schedule. Two things differ from `training/trainer.py`:
images come from `Epochs`, and a step may be a CUDA graph. A process does all its work on a GPU on one stream
(`on_one_stream`), so that no tensor is read before it is written and no memory is reused too early.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from benchmarks.evidence.images import Epochs, Normalise, Sets, resized
from scalenet_zoo import ArchSpec
from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import make_optimizer, make_scheduler
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.zoo.interface import Interface

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP = 3
"""Number of steps before a step is recorded, in which libraries choose their kernels."""
JUDGED_AT_ONCE = 2000
"""Number of test images in a batch."""


@contextmanager
def on_one_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, work on a stream of our own inside the context: the default stream cannot record graphs."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        yield
        torch.cuda.synchronize(device)


class Fence:
    """Keeps the host from running far ahead of the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last: Any = None

    def next(self) -> None:
        """Wait for all work that was queued before the last call."""
        if self.device.type != "cuda":
            return
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        if self.last is not None:
            self.last.synchronize()
        self.last = event

    def wait(self) -> None:
        """Wait for all work on this stream."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()


@dataclass
class TrainingResult:
    """The result of a training.

    Attributes:
        top1: the accuracy on the test images, 0 to 1.
        seconds: the duration.
        recorded: whether steps were CUDA graphs.
        trouble: why they were not, or an empty string.
    """

    top1: float
    seconds: float
    recorded: bool
    trouble: str = ""


class Training:
    """The training of one network with one seed. On a GPU, create and use it inside `on_one_stream`.

    Args:
        spec: the network; images are resized to its input.
        recipe: the recipe; the optimiser is SGD.
        sets: the images, on the device that trains.
        record: whether a GPU records its steps as a CUDA graph.

    Attributes:
        done: number of steps so far.
        recorded: whether steps are recorded.
        trouble: why they are not, or an empty string.
    """

    def __init__(self, spec: ArchSpec, recipe: Recipe, sets: Sets, record: bool = True) -> None:
        torch.manual_seed(recipe.seed)  # for the initial weights
        self.spec, self.recipe, self.sets = spec, recipe, sets
        self.device = sets.train.images.device
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        network: nn.Module = MBConvNet(spec)
        self.network = network.to(self.device, memory_format=self.layout).train()  # type: ignore[call-overload]
        self.normalise = Normalise(Interface.of(spec), self.device)
        self.epochs = Epochs(sets.train, recipe.batch_size, recipe.seed, self.normalise.mean)
        self.optimizer = make_optimizer(self.network, recipe)
        self.scheduler = make_scheduler(self.optimizer, recipe, self.epochs.steps)
        self.loss = task_loss("classification", recipe)
        self.lr = torch.tensor(0.0, device=self.device)
        self.momenta = {parameter: torch.zeros_like(parameter) for parameter in self.network.parameters()}
        self.images = sets.train.images[: recipe.batch_size].clone()
        self.targets = sets.train.targets[: recipe.batch_size].clone()
        self.graph: Any = None
        self.recorded, self.trouble = False, ""
        self.done = 0
        self.fence = Fence(self.device)
        if self.device.type == "cuda" and record:
            self._record()

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return self.epochs.steps * self.recipe.epochs

    def run(self, steps: int | None = None, until: float = float("inf")) -> int:
        """Train for some steps, or to the end; stop early once `time.monotonic()` passes `until`.

        Returns:
            Number of steps taken.
        """
        first, last = self.done, self.steps if steps is None else min(self.steps, self.done + steps)
        for steps_now in self.epochs.chunks(first, last):
            if time.monotonic() >= until:
                break
            for images, targets in steps_now:
                self._step(images, targets)
            self.fence.next()
        self.fence.wait()
        return self.done - first

    @torch.inference_mode()
    def judge(self, images: CachedImages) -> float:
        """Compute the accuracy on images, 0 to 1."""
        self.network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for first in range(0, len(images), JUDGED_AT_ONCE):
            part, targets = (each[first : first + JUDGED_AT_ONCE] for each in (images.images, images.targets))
            with self._autocast():
                output = self.network(self._ready(part))
            correct += (output.argmax(1) == targets).sum()
        self.network.train()
        return int(correct) / len(images)

    def _ready(self, images: Tensor) -> Tensor:
        """Prepare uint8 images for the network: float32, its resolution, its memory layout."""
        return resized(self.normalise(images), self.spec.input.height).contiguous(memory_format=self.layout)

    def _autocast(self) -> torch.autocast:
        dtype = AUTOCAST.get(self.recipe.amp)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None, cache_enabled=False)

    def _step(self, images: Tensor, targets: Tensor) -> None:
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.lr.fill_(self.optimizer.param_groups[0]["lr"])
        if self.graph is None:
            self._work()
        else:
            self.graph.replay()
        self.done += 1
        self.scheduler.step_update(self.done)

    def _work(self) -> None:
        """Do one training step with the images, targets and learning rate that `_step` has set."""
        for parameter in self.momenta:
            parameter.grad = None
        with self._autocast():
            loss = self.loss(self.network(self._ready(self.images)), self.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                sgd(
                    group["params"],
                    [parameter.grad for parameter in group["params"]],
                    [self.momenta[parameter] for parameter in group["params"]],
                    fused=True,
                    weight_decay=group["weight_decay"],
                    momentum=self.recipe.momentum,
                    lr=self.lr,  # a tensor, so that a recorded step sees it change
                    dampening=0.0,
                    nesterov=True,
                    maximize=False,
                )

    def _record(self) -> None:
        """Record a step as a CUDA graph, and restore weights, statistics and momenta afterwards."""
        stream = torch.cuda.current_stream(self.device)
        if stream == torch.cuda.default_stream(self.device):
            self.trouble = "not recorded: on the default stream"
            return
        state = [*self.network.state_dict().values(), *self.momenta.values()]
        before = [tensor.clone() for tensor in state]
        for _ in range(WARM_UP):
            self._work()
        for parameter in self.momenta:  # recorded steps keep their gradients in the graph's memory
            parameter.grad = None
        torch.cuda.synchronize(self.device)
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self._work()
            self.graph, self.recorded = graph, True
        except RuntimeError as error:
            self.trouble = f"not recorded: {type(error).__name__}: {str(error).splitlines()[0]}"[:200]
        torch.cuda.synchronize(self.device)
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        torch.cuda.synchronize(self.device)


def train_alone(
    spec: ArchSpec, recipe: Recipe, sets: Sets, until: float = float("inf"), record: bool = True
) -> TrainingResult | None:
    """Train a network, and judge it once by the test images, after the last step; None if the time ran out before."""
    began = time.monotonic()
    training = Training(spec, recipe, sets, record)
    training.run(until=until)
    if training.done < training.steps:
        return None
    top1 = training.judge(sets.test)
    return TrainingResult(top1, time.monotonic() - began, training.recorded, training.trouble)
