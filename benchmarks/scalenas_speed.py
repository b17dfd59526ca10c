"""A training step of the multipath supernet against that of the same network alone.

python -m benchmarks.scalenas_speed [--device cpu|cuda]: about a minute; ratios ours / peer, below 1 is faster. A step
of the supernet activates a network, computes gradients on random images and masks, and updates the weights with the
recipe's optimiser; the network alone needs no activation. On a CPU, one thread computes on small images.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo.arch.spec import Input, MultipathNetwork
from scalenet_zoo.spaces.scalenas import Group, MultipathSpace
from scalenet_zoo.supernet.gradients import Gradients, step_along
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.training.optimisation import make_optimizer
from scalenet_zoo.training.recipe import load_recipe

CLASSES = 19
SIZES = {"cpu": (18, 2, 128), "cuda": (32, 8, 512)}
"""Width of the network, images per step, and side of the images in pixels."""


CASES = {
    "small": (Group((2, 3), 0.2), 24),
    "middle": (Group((3, 4), 0.5), 16),
    "large": (Group((4, 5), 0.8), 10),
}
"""The group that a network is drawn from, and the number of pairs to time."""


def times(device: str) -> dict[str, object]:
    width, batch, size = SIZES[device]
    space = MultipathSpace(name="speed", width=width, head="segmentation", input=Input(height=size, width=size))
    supernet = ScaleNASSupernet(space, CLASSES)
    supernet.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    recipe = load_recipe("cityscapes")
    optimizer = make_optimizer(supernet, recipe)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(CLASSES, (batch, size // 4, size // 4), device=device)
    loss = nn.CrossEntropyLoss()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def ours(network: MultipathNetwork) -> Callable[[], None]:
        def step() -> None:
            supernet.activate(network)
            loss(supernet(images), targets).backward()
            gradients = Gradients()
            gradients.add(supernet.windows)
            step_along(optimizer, gradients)
            wait()

        return step

    def peer(network: nn.Module) -> Callable[[], None]:
        optimizer = make_optimizer(network, recipe)

        def step() -> None:
            optimizer.zero_grad()
            loss(network(images), targets).backward()
            optimizer.step()
            wait()

        return step

    measured: dict[str, object] = {}
    for name, (group, pairs) in CASES.items():
        spec = space.spec(space.sample_group(np.random.default_rng(0), group, 1)[0], CLASSES)
        network, alone = spec.network, supernet.extract(spec)
        assert network.type == "multipath"
        activations = []
        for _ in range(20):
            start = time.perf_counter()
            supernet.activate(network)
            activations.append(time.perf_counter() - start)
        measured[name] = {
            "macs": spec.cost.macs,
            "activate_ms": 1000 * statistics.median(activations),
            "against_the_network_alone": ratio(*interleave(ours(network), peer(alone), pairs)),
        }
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=tuple(SIZES), default=default, help=f"device to measure on; here {default}")
    device = parser.parse_args().device
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a shared machine, one thread gives steadier times
    width, batch, size = SIZES[device]
    settings = {"device": device, "threads": torch.get_num_threads(), "width": width, "batch": batch, "pixels": size}
    record("scalenas_speed", {**settings, "times": times(device)})


if __name__ == "__main__":
    main()
