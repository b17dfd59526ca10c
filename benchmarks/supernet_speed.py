"""A training step of the super-supernet against a step of the same network alone, and against copies of the weights.

python -m benchmarks.supernet_speed [--device cpu|cuda]: about 5 minutes; ratios ours / peer, below 1 is faster or
smaller. A step of the supernet makes a spec, activates it, computes gradients on random images and updates the weights,
alternating between the sides of the channels; the network alone only computes gradients and updates. On a CPU, one
thread computes on small images.

The third contender imitates three properties of the code released with ScaleNet (ECCV 2022), with our own modules:
every slice of a weight is copied to be contiguous, and its gradient has the size of the whole weight; requires_grad is
set again over the whole network in each step; both sides have channels of their own, (1 + 1.64) times those of the base
model. This is not a measurement of that code. Gradients are None where nothing was active, as in today's PyTorch.

Memory is the peak of a step of the largest network once all weights have momentum: weights, momentum, gradients and
activations. It is measured in a new process each time; on a CPU, memory that the process has after its imports is
subtracted.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo.arch.rounding import Integers
from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.scalenet.elastic import Side
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.optimiser import WindowSGD

CLASSES, BASE_MACS, MEMORY_REPEATS = 1000, 306e6, 3
LR, MOMENTUM, WEIGHT_DECAY = 0.001, 0.9, 4e-5
SIZES = {"cpu": (8, 2), "cuda": (64, 1)}
"""Images per step, and the divisor of the strategies' resolutions."""
CASES = {
    "small": (Scaling(0, 1.0, 1.0, 224), 40),
    "middle": (Scaling(1, 1.16, 1.16, 240), 24),
    "large": (Scaling(3, 1.64, 1.64, 320), 12),
}
"""Scaling strategies, and the number of pairs to time."""

Step = Callable[[Integers, Scaling, Side], None]
"""A training step of a scaled base model (stages, layers)."""


class Images:
    """A batch for each resolution, and the loss of a network on it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.batch, self.divided_by = SIZES[device]
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.targets = torch.arange(self.batch, device=device)
        self.made: dict[int, Tensor] = {}

    def learn(self, forward: Callable[[Tensor], Tensor], resolution: int) -> None:
        """Compute the gradients of a network's weights."""
        size = resolution // self.divided_by
        if size not in self.made:
            images = torch.randn(self.batch, 3, size, size, device=self.device)
            self.made[size] = images.to(memory_format=torch.channels_last)
        self.loss(forward(self.made[size]), self.targets).backward()

    def wait(self) -> None:
        """Wait until the device has finished all work."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def place(network: nn.Module, images: Images) -> None:
    """Prepare a network for training on these images."""
    network.to(images.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def sgd(network: nn.Module) -> torch.optim.SGD:
    """Make a plain SGD optimiser; biases and norms have no weight decay."""
    decaying = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True)


def activate(supernet: ScaleNetSupernet, space: Space, kernels: Integers, scaling: Scaling, side: Side) -> None:
    network = space.spec(kernels, scaling, CLASSES).network
    assert network.type == "mbconv"
    supernet.activate(network, side)


def ours(space: Space, images: Images) -> tuple[ScaleNetSupernet, Step]:
    """Make the supernet and its training step, as in the package."""
    supernet = ScaleNetSupernet(space, CLASSES)
    place(supernet, images)
    optimizer = WindowSGD(supernet, LR, MOMENTUM, WEIGHT_DECAY)

    def step(kernels: Integers, scaling: Scaling, side: Side) -> None:
        activate(supernet, space, kernels, scaling, side)
        images.learn(supernet, scaling.resolution)
        gradients = Gradients()
        gradients.add(supernet.windows)
        optimizer.update(gradients)
        images.wait()

    return supernet, step


def imitation(space: Space, images: Images) -> tuple[ScaleNetSupernet, Step]:
    """Make a supernet with the three properties in the module's docstring, and its training step."""
    *fewer, last = space.scaling
    wider = last.model_copy(update={"width": (*last.width, 1 + space.widest)})
    supernet = ScaleNetSupernet(space.model_copy(update={"scaling": (*fewer, wider)}), CLASSES)
    place(supernet, images)
    optimizer = sgd(supernet)

    def step(kernels: Integers, scaling: Scaling, side: Side) -> None:
        optimizer.zero_grad()
        activate(supernet, space, kernels, scaling, side)
        for parameter in supernet.parameters():
            parameter.requires_grad_(False)
        copies = {}
        for (name, _), window in zip(supernet.active.named_parameters(), supernet.windows, strict=True):
            copies[name] = window.full.requires_grad_()[window.index].contiguous()
        images.learn(lambda x: torch.func.functional_call(supernet.active, copies, x), scaling.resolution)
        optimizer.step()
        images.wait()

    return supernet, step


def alone(network: MBConvNet, images: Images) -> Callable[[Scaling], None]:
    """Make the training step of a stand-alone network."""
    place(network, images)
    optimizer = sgd(network)

    def step(scaling: Scaling) -> None:
        optimizer.zero_grad()
        images.learn(network, scaling.resolution)
        optimizer.step()
        images.wait()

    return step


def base_model(space: Space) -> Integers:
    """Choose the base model whose MACs are closest to the paper's, out of a thousand."""
    bases = space.sample(np.random.default_rng(0), 1000)
    macs = space.population(bases, [space.unscaled], CLASSES).cost.macs[:, 0]
    base: Integers = bases[np.abs(macs - BASE_MACS).argmin()]
    return base


def times(space: Space, device: str) -> dict[str, object]:
    images, kernels = Images(device), base_model(space)
    supernet, our_step = ours(space, images)
    _, their_step = imitation(space, images)
    measured: dict[str, object] = {}
    for name, (scaling, pairs) in CASES.items():
        spec = space.spec(kernels, scaling, CLASSES)
        network_step = alone(supernet.extract(spec), images)

        def both_sides(step: Step, scaling: Scaling = scaling) -> Callable[[], None]:
            sides: Iterable[Side] = cycle(("left", "right"))
            each = iter(sides)
            return lambda: step(kernels, scaling, next(each))

        def peer(step: Callable[[Scaling], None] = network_step, scaling: Scaling = scaling) -> None:
            step(scaling)

        measured[name] = {
            "macs_at_full_resolution": spec.cost.macs,
            "resolution": scaling.resolution // images.divided_by,
            "against_the_network_alone": ratio(*interleave(both_sides(our_step), peer, pairs)),
            "against_the_imitation": ratio(*interleave(both_sides(our_step), both_sides(their_step), pairs)),
        }
    return measured


def used() -> int:
    """The peak memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts KiB


def peak(which: str, device: str) -> int:
    """Measure the memory that training takes, in bytes; to be called in a new process."""
    torch.set_num_threads(1)
    before, space, images = used(), Space.load("scalenet"), Images(device)
    full = space.largest_scaling
    first = replace(full, resolution=64)  # small images are enough to give weights momentum
    if which == "largest_alone":
        step = alone(MBConvNet(space.largest_spec(CLASSES)), images)
        step(first)
        step(full)
    else:
        _, super_step = (ours if which == "ours" else imitation)(space, images)
        for kernel in (3, 5, 7):
            super_step(np.where(space.largest > 0, kernel, 0), first, "right")
        super_step(space.largest, full, "left")
    return torch.cuda.max_memory_allocated() if device == "cuda" else used() - before


def memory(device: str) -> dict[str, object]:
    found: dict[str, list[int]] = {"ours": [], "imitation": [], "largest_alone": []}
    spawn = multiprocessing.get_context("spawn")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # for new processes: memory that they free is returned at once
    for _ in range(MEMORY_REPEATS):
        for which, peaks in found.items():
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                peaks.append(process.submit(peak, which, device).result())
    medians = {which: statistics.median(peaks) for which, peaks in found.items()}
    return {
        "resolution": Space.load("scalenet").largest_scaling.resolution // SIZES[device][1],
        "peak_mb": {which: [round(one / 1e6) for one in peaks] for which, peaks in found.items()},
        "ours_against_the_imitation": medians["ours"] / medians["imitation"],
        "ours_against_the_largest_alone": medians["ours"] / medians["largest_alone"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=tuple(SIZES), default=default, help=f"device to measure on; here {default}")
    device = parser.parse_args().device
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a shared machine, one thread gives steadier times
    measured: dict[str, object] = {"device": device, "threads": torch.get_num_threads(), "batch": SIZES[device][0]}
    measured["memory"] = memory(device)  # comes first, since a new process starts with its parent's peak
    measured["times"] = times(Space.load("scalenet"), device)
    record("supernet_speed", measured)


if __name__ == "__main__":
    main()
