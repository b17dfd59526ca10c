"""ScaleNAS's supernet (AutoML-Conf 2022): one set of weights for every depth and every fusion.

    largest   a MultipathNet with every block and every path: its weights are the supernet's
       |
       +------activate: the blocks and paths of a mask------> active, a MultipathNet of the same modules

Each block, and each path of each step, has its own weights, which are used as a whole or not at all. So the code of the
stand-alone network computes the active network, and only its weights receive gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.memory import FLOAT_BYTES, check_memory
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.networks.multipath import MultipathNet
from scalenet_zoo.supernet.gradients import Window
from scalenet_zoo.zoo.interface import pretrained_cfg

if TYPE_CHECKING:
    from typing import Self

    from scalenet_zoo.arch.spec import ArchSpec, Module, MultipathNetwork
    from scalenet_zoo.spaces.scalenas import MultipathSpace

STAGES = {2: "stage2", 3: "stage3", 4: "stage4"}
"""The stage of the modules with 2, 3 or 4 branches."""


class ScaleNASSupernet(nn.Module):
    """All networks of a space in one set of weights; at first the largest one is active.

    Args:
        space: the space of topologies.
        classes: the number of classes or joints.

    Attributes:
        largest: the network with every block and every path; it holds all weights.

    Raises:
        BackendError: the supernet does not fit into memory.
    """

    def __init__(self, space: MultipathSpace, classes: int) -> None:
        super().__init__()
        self.space, self.classes = space, classes
        spec = space.spec(space.largest, classes, "largest")
        check_memory(
            FLOAT_BYTES * spec.cost.params, f"{space.name}: a supernet of {format_count(spec.cost.params)} parameters"
        )
        self.largest = MultipathNet(spec)
        with torch.device("meta"):
            shell = MultipathNet(spec, initialise=False)
        for name, module in self.largest.named_children():
            setattr(shell, name, module)
        self._shell = (shell,)  # in a tuple, so that it is not registered as a submodule

    @property
    def active(self) -> MultipathNet:
        """The network that runs; its modules belong to the largest network."""
        return self._shell[0]

    @property
    def windows(self) -> list[Window]:
        """The parameters that the active network uses, each of them whole."""
        return [Window(p, tuple(slice(0, size) for size in p.shape), p) for p in self.active.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Run the active network: (n, channels, h, w) -> logits or heatmaps (n, classes, h / 4, w / 4)."""
        y: Tensor = self.active(x)
        return y

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the supernet and of the active network."""
        self.active.train(mode)
        return super().train(mode)

    def activate(self, network: MultipathNetwork) -> None:
        """Make a network the active one.

        Args:
            network: a network of the space; with fewer modules, it takes the first ones of each stage.

        Raises:
            InputError: the network is not in the space.
        """
        self._check(network)
        for branches, masks in _by_stage(network).items():
            stage = STAGES[branches]
            parts = (whole.part(mask) for whole, mask in zip(getattr(self.largest, stage), masks, strict=False))
            setattr(self.active, stage, nn.ModuleList(parts))

    def extract(self, spec: ArchSpec) -> MultipathNet:
        """Make a stand-alone network with copies of the weights and statistics that `spec` has here.

        Its outputs equal those of the supernet with `spec` active. The active network does not change.

        Raises:
            InputError: the network is not in the space, or is for other images or classes.
        """
        self.check(spec)
        with torch.device("meta"):
            alone = MultipathNet(spec, initialise=False)
        tensors = self.largest.state_dict()  # a block or path has the same name in every network
        alone.load_state_dict({name: tensors[name].clone() for name in alone.state_dict()}, assign=True)
        alone.pretrained_cfg = alone.default_cfg = pretrained_cfg(spec)  # type: ignore[assignment]
        return alone.train(self.training)

    def inherit(self, network: MultipathNet) -> None:
        """Copy the weights and statistics of a network, such as a pretrained HRNet; the supernet's others stay.

        Raises:
            InputError: the network is not in the space, or is for other images or classes.
        """
        self.check(spec_of(network))
        self.largest.load_state_dict(self.largest.state_dict() | network.state_dict())

    def check(self, spec: ArchSpec) -> None:
        """Refuse a network that is not in the space, or is for other images or classes.

        Raises:
            InputError: the network is refused.
        """
        classes, channels = self.classes, self.space.input.channels
        if spec.network.type != "multipath" or (spec.classes, spec.input.channels) != (classes, channels):
            raise InputError(
                f"{spec.name}: found {spec.classes} classes and {spec.input.channels} channels,"
                f" expected {classes} and {channels}, as in the supernet"
            )
        self._check(spec.network)

    def _check(self, network: MultipathNetwork) -> None:
        """Refuse a network that is not in the space."""
        for name in ("width", "head"):
            found, expected = getattr(network, name), getattr(self.space, name)
            if found != expected:
                raise InputError(f"{name}: found {found}, expected {expected}, as in the supernet")
        for (branches, masks), most in zip(_by_stage(network).items(), self.space.modules, strict=True):
            if len(masks) > most:
                raise InputError(f"modules: found {len(masks)} with {branches} branches, expected at most {most}")
        deepest = self.space.depths[-1]
        for m, module in enumerate(network.modules):
            if max(module.depth) > deepest:
                raise InputError(f"modules.{m}.depth: found {list(module.depth)}, expected at most {deepest}")


def _by_stage(network: MultipathNetwork) -> dict[int, list[Module]]:
    """Group a network's modules by their number of branches: 2, 3 or 4."""
    return {branches: [m for m in network.modules if len(m.depth) == branches] for branches in STAGES}
