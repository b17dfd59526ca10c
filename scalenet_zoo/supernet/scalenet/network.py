"""ScaleNet's supernet (ECCV 2022, section 3.2: super-supernet): one set of weights for all base models and stages.

    stages.S.I.K   a wide MBConv for each stage, layer and kernel      shell: the same without its own weights
          |                                                              ^
          +-----------open_windows: the first or last channels-----------+---> an MBConvNet that runs one network

Each position has one wide layer per kernel size, as wide as the largest multiplier requires. A network runs in a shell,
an ordinary `MBConvNet` whose weights are windows of the wide layers' weights. So the code of the stand-alone network
computes the active network, and only its windows receive gradients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from timm.models._efficientnet_builder import efficientnet_init_weights
from torch import Tensor, nn

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.memory import FLOAT_BYTES, check_memory
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.networks.layers import ConvNormAct, MBConv
from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.supernet.scalenet.elastic import LAYER_DIMS, Side, find_places, layer_sizes, open_windows
from scalenet_zoo.zoo.interface import pretrained_cfg

if TYPE_CHECKING:
    from typing import Self

    from scalenet_zoo.arch.spec import ArchSpec, Layer, MBConvNetwork
    from scalenet_zoo.spaces.scalenet import Space
    from scalenet_zoo.supernet.gradients import Window
    from scalenet_zoo.supernet.scalenet.elastic import Place


class ScaleNetSupernet(nn.Module):
    """All networks of a space in one set of weights.

    Args:
        space: the space of base models and scaling strategies.
        classes: the number of classes.
        in_channels: channels of the images.

    Attributes:
        windows: the parts of the parameters that the active network uses.

    Raises:
        BackendError: the supernet does not fit into memory.
    """

    def __init__(self, space: Space, classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.space, self.classes, self.in_channels = space, classes, in_channels
        largest = space.largest_spec(classes, in_channels)
        network = largest.network
        assert network.type == "mbconv"
        count = _parameters(space, network)
        check_memory(FLOAT_BYTES * count, f"{space.name}: a supernet of {format_count(count)} parameters")
        conv = partial(ConvNormAct, activation=network.activation, padding=network.padding, norm_eps=network.norm_eps)
        self.stem = conv(in_channels, network.stem.channels, network.stem.kernel, network.stem.stride)
        with torch.device("meta"):
            self._shell = (MBConvNet(largest),)  # in a tuple, so that it is not registered as a submodule
        self.stages = nn.ModuleList()
        self._layers: list[list[dict[int, _ElasticLayer]]] = []
        before = network.stem.channels
        for stage, options in zip(network.stages, space.stages, strict=True):
            positions = []
            for widest in stage:
                positions.append({kernel: _ElasticLayer(before, widest, kernel, network) for kernel in options.kernels})
                before = widest.channels
            self._layers.append(positions)
            choices = ({str(kernel): layer.wide for kernel, layer in position.items()} for position in positions)
            self.stages.append(nn.ModuleList(map(nn.ModuleDict, choices)))
        self.head = conv(before, network.head.channels, 1)
        self.classifier = nn.Linear(network.head.channels, classes)
        efficientnet_init_weights(self)
        shell = self.active
        self._ends = (
            find_places(self.stem, shell.stem, {"conv.weight": ("stem",), "norm": ("stem",)}),
            find_places(self.head, shell.head, {"conv.weight": ("head", "before"), "norm": ("head",)}),
            find_places(self.classifier, shell.classifier, {"weight": ("classes", "head"), "bias": ("classes",)}),
        )
        self.windows: list[Window] = []
        self._runs: tuple[MBConvNetwork, Side] | None = None

    @property
    def active(self) -> MBConvNet:
        """The network that runs; its weights are windows of the supernet's weights."""
        return self._shell[0]

    def forward(self, x: Tensor) -> Tensor:
        """Run the active network: (n, in_channels, h, w) -> logits (n, classes)."""
        y: Tensor = self.active(x)
        return y

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the supernet and of the active network."""
        self.active.train(mode)
        return super().train(mode)

    def activate(self, network: MBConvNetwork, side: Side = "left") -> None:
        """Make a network the active one.

        Args:
            network: a network of the space, scaled in any way that the space's multipliers allow.
            side: the end of the wide layers' channels that it takes.

        Raises:
            InputError: the network is not in the space.
        """
        self._check(network)
        stem, head, classifier = self._ends
        sizes = {"stem": network.stem.channels, "head": network.head.channels, "classes": self.classes}
        windows = open_windows(stem, sizes, side)
        before = network.stem.channels
        stages = []
        for stage, positions in zip(network.stages, self._layers, strict=True):
            layers = []
            for layer, choices in zip(stage, positions, strict=False):
                elastic = choices[layer.kernel]
                windows += open_windows(elastic.places, layer_sizes(before, layer), side)
                layers.append(elastic.shaped(before, layer))
                before = layer.channels
            stages.append(nn.Sequential(*layers))
        sizes["before"] = before
        windows += open_windows(head, sizes, side) + open_windows(classifier, sizes, side)
        self.active.stages = nn.Sequential(*stages)
        self.active.train(self.training)
        self.windows, self._runs = windows, (network, side)

    def extract(self, spec: ArchSpec, side: Side = "left") -> MBConvNet:
        """Make a stand-alone network with copies of the weights and statistics that `spec` has here.

        Its outputs equal those of the supernet with `spec` active. The active network does not change.

        Raises:
            InputError: the network is not in the space, or is for other images or classes.
        """
        network = spec.network
        if network.type != "mbconv" or (spec.classes, spec.input.channels) != (self.classes, self.in_channels):
            raise InputError(
                f"{spec.name}: found {spec.classes} classes and {spec.input.channels} channels,"
                f" expected {self.classes} and {self.in_channels}, as in the supernet"
            )
        runs = self._runs
        self.activate(network, side)
        with torch.device("meta"):
            alone = MBConvNet(spec, initialise=False)
        copies = {name: tensor.detach().clone() for name, tensor in self.active.state_dict().items()}
        alone.load_state_dict(copies, assign=True)
        alone.pretrained_cfg = alone.default_cfg = pretrained_cfg(spec)  # type: ignore[assignment]
        if runs:
            self.activate(*runs)
        return alone.train(self.training)

    def _check(self, network: MBConvNetwork) -> None:
        """Refuse a network that is not in the space."""
        if len(network.stages) != len(self._layers):
            raise InputError(f"network: found {len(network.stages)} stages, expected {len(self._layers)}")
        wide = self.stem.conv.out_channels
        if network.stem.channels > wide:
            raise InputError(f"stem.channels: found {network.stem.channels}, expected at most {wide}")
        if network.head.channels > (most := self.classifier.in_features):
            raise InputError(f"head.channels: found {network.head.channels}, expected at most {most}")
        for s, (stage, positions) in enumerate(zip(network.stages, self._layers, strict=True)):
            if len(stage) > len(positions):
                raise InputError(f"stages.{s}: found {len(stage)} layers, expected at most {len(positions)}")
            for i, (layer, choices) in enumerate(zip(stage, positions, strict=False)):
                if layer.kernel not in choices:
                    kernels = ", ".join(map(str, choices))
                    raise InputError(f"stages.{s}.{i}.kernel: found {layer.kernel}, expected one of {kernels}")
                choices[layer.kernel].check(f"stages.{s}.{i}", layer)


def _parameters(space: Space, network: MBConvNetwork) -> int:
    """Count the weights of a supernet's convolutions between stem and head; the few other weights are left out.

    Args:
        space: the space, with the kernels that a layer may have.
        network: the largest network of the space.
    """
    total, before = 0, network.stem.channels
    for layers, options in zip(network.stages, space.stages, strict=True):
        for layer in layers:
            ends = before + 2 * layer.squeeze + layer.channels
            total += layer.hidden * sum(ends + kernel**2 for kernel in options.kernels)
            before = layer.channels
    return total


class _ElasticLayer:
    """A wide MBConv, and a shell: an MBConv without its own weights, which gets windows of the wide layer's weights."""

    def __init__(self, before: int, widest: Layer, kernel: int, network: MBConvNetwork) -> None:
        self.widest = widest.model_copy(update={"kernel": kernel})
        self.wide = MBConv(before, self.widest, network)
        with torch.device("meta"):
            self.shell = MBConv(before, self.widest, network)
        self.places: list[Place] = find_places(self.wide, self.shell, LAYER_DIMS)

    def check(self, where: str, layer: Layer) -> None:
        """Refuse a layer that is not a part of the wide layer."""
        for name in ("hidden", "squeeze", "channels"):
            found, most = getattr(layer, name), getattr(self.widest, name)
            if found > most:
                raise InputError(f"{where}.{name}: found {found}, expected at most {most}")
        if layer.stride != self.widest.stride:
            raise InputError(f"{where}.stride: found {layer.stride}, expected {self.widest.stride}")

    def shaped(self, before: int, layer: Layer) -> MBConv:
        """Set the shell to the shape of a narrow layer whose windows are open, and return it."""
        self.shell.depthwise.conv.groups = layer.hidden
        self.shell.has_shortcut = layer.stride == 1 and layer.channels == before
        return self.shell
