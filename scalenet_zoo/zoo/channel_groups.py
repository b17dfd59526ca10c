"""Groups of channels that must agree in all layers, and the importance of each channel.

    spec --channel_groups--> modules, each with the groups of its tensors' channels --importance--> scores

A group is a residual stream, the hidden channels of a layer, its squeezed channels, and so on. All tensors of a group
have its channels in the same order. The channels can be sorted, or some of them removed, if all of these tensors
change together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scalenet_zoo.arch.spec import Activation, ArchSpec, MBConvNetwork, MultipathNetwork
from scalenet_zoo.arch.trace import BOTTLENECK_CHANNELS, BOTTLENECKS, STEM_CHANNELS, UPSCALED_BLOCKS
from scalenet_zoo.networks.layers import ACTIVATIONS

ChannelGroup = tuple[str | int, ...]
"""The name of a group of channels that must agree."""
IMAGE, CLASSES, TWICE = ("image",), ("classes",), ("classes", "twice")
"""Groups at the ends of a network; TWICE: one heatmap and one tag per joint, as in `layers.BottomUpHead`."""
BRANCH_GROUPS: tuple[ChannelGroup, ...] = tuple(("branch", j) for j in range(4))
"""The groups of a multipath network's branches."""
TRANSPOSED = frozenset({"classifier.upscale.conv"})
"""Modules whose weight has its inputs in dimension 0 and its outputs in dimension 1."""


@dataclass(frozen=True)
class Slot:
    """The channel groups of one module with weights.

    Attributes:
        out: the group of its outputs.
        inputs: the groups of its inputs, concatenated in this order; empty for a batch norm or a depthwise convolution.
        closes: whether it is the last module before a shortcut or a sum: if its outputs are zero, the sum is that of
            the other terms.
        activation: for a batch norm, the activation that follows; None: nothing follows, or a sum.
    """

    out: ChannelGroup
    inputs: tuple[ChannelGroup, ...] = ()
    closes: bool = False
    activation: Activation | None = None


@dataclass(frozen=True)
class ChannelGroups:
    """All channel groups of a network.

    Attributes:
        slots: its modules with weights, by name.
        sizes: the number of channels in each group.
    """

    slots: dict[str, Slot] = field(default_factory=dict)
    sizes: dict[ChannelGroup, int] = field(default_factory=dict)

    def add(self, name: str, out: ChannelGroup, inputs: tuple[ChannelGroup, ...], channels: int) -> None:
        """Add a convolution or linear layer with the groups of its outputs and inputs, and its number of outputs."""
        self.sizes[out] = channels
        self.slots[name] = Slot(out, inputs)

    def add_conv(
        self,
        name: str,
        out: ChannelGroup,
        inputs: tuple[ChannelGroup, ...],
        channels: int,
        activation: Activation | None = "relu",
        closes: bool = False,
    ) -> None:
        """Add a convolution with its batch norm, and an activation if there is one."""
        self.add(f"{name}.conv", out, inputs, channels)
        self.slots[f"{name}.norm"] = Slot(out, closes=closes, activation=activation)


def channel_groups(spec: ArchSpec) -> ChannelGroups:
    """Return the channel groups of a network, with its modules in the order of execution."""
    network = spec.network
    groups = ChannelGroups(sizes={IMAGE: spec.input.channels, CLASSES: spec.classes})
    if network.type == "mbconv":
        _add_mbconv(groups, network)
    else:
        _add_multipath(groups, network)
    if not spec.classes:
        for name in [name for name in groups.slots if name.startswith("classifier")]:
            del groups.slots[name]
    return groups


def _add_mbconv(groups: ChannelGroups, network: MBConvNetwork) -> None:
    stream: ChannelGroup = ("stem",)
    channels, activation = network.stem.channels, network.activation
    groups.add_conv("stem", stream, (IMAGE,), channels, activation)
    for s, stage in enumerate(network.stages):
        for i, layer in enumerate(stage):
            name = f"stages.{s}.{i}"
            hidden = stream
            if layer.expands(channels):
                hidden = ("hidden", s, i)
                groups.add_conv(f"{name}.expand", hidden, (stream,), layer.hidden, activation)
            groups.add_conv(f"{name}.depthwise", hidden, (), layer.hidden, activation)
            if layer.squeeze:
                groups.add(f"{name}.squeeze.reduce", ("squeeze", s, i), (hidden,), layer.squeeze)
                groups.add(f"{name}.squeeze.expand", hidden, (("squeeze", s, i),), layer.hidden)
            shortcut = layer.stride == 1 and layer.channels == channels
            out = stream if shortcut else ("stream", s, i)
            groups.add_conv(f"{name}.project", out, (hidden,), layer.channels, None, closes=shortcut)
            stream, channels = out, layer.channels
    groups.add_conv("head", ("head",), (stream,), network.head.channels, activation)
    groups.add("classifier", CLASSES, (("head",),), groups.sizes[CLASSES])


def _add_multipath(groups: ChannelGroups, network: MultipathNetwork) -> None:
    width = [network.width * 2**j for j in range(4)]
    wide, quarter = BOTTLENECK_CHANNELS, BOTTLENECK_CHANNELS // 4
    groups.add_conv("stem.0", ("stem", 0), (IMAGE,), STEM_CHANNELS)
    groups.add_conv("stem.1", ("stem", 1), (("stem", 0),), STEM_CHANNELS)
    for i in range(BOTTLENECKS):
        name, before = f"stage1.{i}", ("stage1",) if i else ("stem", 1)
        groups.add_conv(f"{name}.conv1", ("stage1", i, 1), (before,), quarter)
        groups.add_conv(f"{name}.conv2", ("stage1", i, 2), (("stage1", i, 1),), quarter)
        groups.add_conv(f"{name}.conv3", ("stage1",), (("stage1", i, 2),), wide, None, closes=i > 0)
        if not i:
            groups.add_conv(f"{name}.shortcut", ("stage1",), (before,), wide, None)
    for j in range(2):
        groups.add_conv(f"transition2.{j}", BRANCH_GROUPS[j], (("stage1",),), width[j])
    groups.add_conv("transition3", BRANCH_GROUPS[2], (BRANCH_GROUPS[1],), width[2])
    groups.add_conv("transition4", BRANCH_GROUPS[3], (BRANCH_GROUPS[2],), width[3])
    numbers = {2: 0, 3: 0, 4: 0}
    for module in network.modules:
        stage = len(module.depth)
        name = f"stage{stage}.{numbers[stage]}"
        numbers[stage] += 1
        for j, depth in enumerate(module.depth):
            for t in range(depth):
                inner: ChannelGroup = (name, "block", j, t)
                groups.add_conv(f"{name}.blocks.{j}.{t}.conv1", inner, (BRANCH_GROUPS[j],), width[j])
                groups.add_conv(f"{name}.blocks.{j}.{t}.conv2", BRANCH_GROUPS[j], (inner,), width[j], None, closes=True)
        for to, steps in enumerate(module.fusion):
            for t, row in enumerate(steps):
                for origin, fed in enumerate(row):
                    if fed and origin != to:
                        _add_path(groups, f"{name}.paths.{t}.{origin}_to_{to}.convs", origin, to, width)
    classes = groups.sizes[CLASSES]
    if network.head == "segmentation":
        groups.add_conv("head", ("head",), BRANCH_GROUPS, sum(width))
        groups.add("classifier", CLASSES, (("head",),), classes)
    elif network.head == "pose":
        groups.add("classifier", CLASSES, (BRANCH_GROUPS[0],), classes)
    else:
        groups.add("classifier.coarse", TWICE, (BRANCH_GROUPS[0],), 2 * classes)
        groups.add_conv("classifier.upscale", ("upscaled",), (BRANCH_GROUPS[0], TWICE), width[0])
        for i in range(UPSCALED_BLOCKS):
            name = f"classifier.blocks.{i}"
            groups.add_conv(f"{name}.conv1", ("upscaled", i), (("upscaled",),), width[0])
            groups.add_conv(f"{name}.conv2", ("upscaled",), (("upscaled", i),), width[0], None, closes=True)
        groups.add("classifier.fine", CLASSES, (("upscaled",),), classes)


def _add_path(groups: ChannelGroups, name: str, origin: int, to: int, width: Sequence[int]) -> None:
    """Add the convolutions of a path between branches; all but the last write channel groups of their own."""
    convs = max(1, to - origin)
    before = BRANCH_GROUPS[origin]
    for i in range(convs - 1):
        groups.add_conv(f"{name}.{i}", (name, i), (before,), width[origin])
        before = (name, i)
    groups.add_conv(f"{name}.{convs - 1}", BRANCH_GROUPS[to], (before,), width[to], None, closes=True)


def importance(groups: ChannelGroups, group: ChannelGroup, state: Mapping[str, Tensor]) -> Tensor:
    """Score each channel of a group: how much it varies, times the size of the weights that read it.

    Args:
        groups: the groups of the network.
        group: one of them.
        state: the network's tensors by name, on the CPU.

    Returns:
        float32 (channels,), at least 0: the standard deviation of the channel after batch norms and the activations
        that follow them, or, without batch norms, the norm of the weights that write it; times the norm of the weights
        that read it. A channel that does not vary has no importance, because the next batch norm removes a constant.
    """
    size = groups.sizes[group]
    varied, written, read = torch.zeros(size), torch.zeros(size), torch.zeros(size)
    for name, slot in groups.slots.items():
        weight = state.get(f"{name}.weight")
        if weight is None or (slot.out != group and group not in slot.inputs):
            continue
        weight = weight.float()
        if weight.ndim == 1:
            varied += _variance(weight, state[f"{name}.bias"].float(), slot.activation)
            continue
        if name in TRANSPOSED:
            weight = weight.transpose(0, 1)
        if slot.out == group and slot.inputs:
            written += weight.square().flatten(1).sum(1)
        start = 0
        for inputs in slot.inputs:
            if inputs == group:
                read += weight[:, start : start + size].transpose(0, 1).square().flatten(1).sum(1)
            start += groups.sizes[inputs]
    return ((varied if varied.any() else written) * read).sqrt()


def _variance(weight: Tensor, bias: Tensor, activation: Activation | None) -> Tensor:
    """Return each channel's variance after a batch norm with normal inputs and an activation."""
    if activation is None:
        return weight.square()
    points = torch.linspace(-4, 4, 81)
    shares = torch.softmax(-points.square() / 2, 0)
    values = ACTIVATIONS[activation]()(weight[:, None] * points + bias[:, None])
    mean = (values * shares).sum(1, keepdim=True)
    variance: Tensor = ((values - mean).square() * shares).sum(1)
    return variance
