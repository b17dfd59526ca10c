"""The modules that networks are made of. Images are (batch, channels, height, width)."""

import operator
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, SupportsIndex

import torch
from timm.layers import DropPath, create_conv2d, register_notrace_function
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.spec import NORM_EPS, Activation, Gate, Layer, MBConvNetwork, Padding
from scalenet_zoo.arch.trace import UPSCALED_BLOCKS
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.quoting import quoted

ACTIVATIONS: dict[Activation, type[nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "swish": nn.SiLU,
    "hard_swish": nn.Hardswish,
}
GATES: dict[Gate, type[nn.Sigmoid | nn.Hardsigmoid]] = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}

if TYPE_CHECKING:
    Size = torch.Size
else:
    Size = list[int]  # the type that TorchScript knows


def activation_layer(name: Activation) -> nn.Module:
    """Make an activation that overwrites its input."""
    return ACTIVATIONS[name](inplace=True)


class ConvNormAct(nn.Module):
    """A padded convolution, batch norm and, unless `activation` is None, an activation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        bias: bool = False,
        padding: Padding = "symmetric",
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        pad = "same" if padding == "same" else kernel // 2
        self.conv = create_conv2d(in_channels, channels, kernel, stride=stride, padding=pad, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(channels, eps=norm_eps)
        self.act = activation_layer(activation) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate that is computed from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeeze: int, activation: Activation, gate: Gate) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = activation_layer(activation)
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * gate


class MBConv(nn.Module):
    """An inverted-residual layer (MobileNetV2 with squeeze-and-excite).

    `network` gives activation, gate, padding and the epsilon of batch norm.

    x -> [expand 1x1] -> depthwise k x k -> [squeeze] -> project 1x1 -> (+ x if the shape is the same)
    """

    def __init__(self, in_channels: int, layer: Layer, network: MBConvNetwork, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        hidden, activation = layer.hidden, network.activation
        conv = partial(ConvNormAct, padding=network.padding, norm_eps=network.norm_eps)
        self.expand = (
            conv(in_channels, hidden, 1, activation=activation) if layer.expands(in_channels) else nn.Identity()
        )
        self.depthwise = conv(hidden, hidden, layer.kernel, layer.stride, groups=hidden, activation=activation)
        self.squeeze = (
            SqueezeExcite(hidden, layer.squeeze, activation, network.gate) if layer.squeeze else nn.Identity()
        )
        self.project = conv(hidden, layer.channels, 1)
        self.has_shortcut = layer.stride == 1 and layer.channels == in_channels
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate and self.has_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, layer.channels, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return self.drop_path(y) + x if self.has_shortcut else y


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet)."""

    def __init__(self, channels: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, activation="relu")
        self.conv2 = ConvNormAct(channels, channels, 3)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return F.relu(self.drop_path(self.conv2(self.conv1(x))) + x, inplace=True)


class UpConvNormAct(nn.Module):
    """A 4x4 transposed convolution of stride 2, batch norm and ReLU, which doubles height and width."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, channels, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = activation_layer("relu")

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, 2 h, 2 w)."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Bottleneck(nn.Module):
    """A 1x1 convolution to a quarter of the channels, a 3x3 and a 1x1 back up, with a shortcut (ResNet)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, channels // 4, 1, activation="relu")
        self.conv2 = ConvNormAct(channels // 4, channels // 4, 3, activation="relu")
        self.conv3 = ConvNormAct(channels // 4, channels, 1)
        self.shortcut = ConvNormAct(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h, w)."""
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x), inplace=True)


class FusionPath(nn.Module):
    """A path from one branch of a multipath network to another (HRNet, TPAMI 2020; ScaleNAS, AutoML-Conf 2022).

    A path upward, to a higher resolution, is a 1x1 convolution, batch norm and nearest upsampling. A path downward is a
    chain of 3x3 stride-2 convolutions with batch norm, and ReLU between them; the last one changes the channels.
    """

    def __init__(self, origin: int, to: int, channels: list[int]) -> None:
        super().__init__()
        self.origin, self.target, self.upward = origin, to, origin > to
        if self.upward:
            self.convs = nn.Sequential(ConvNormAct(channels[origin], channels[to], 1))
        else:
            between = [
                ConvNormAct(channels[origin], channels[origin], 3, 2, activation="relu") for _ in range(to - origin - 1)
            ]
            self.convs = nn.Sequential(*between, ConvNormAct(channels[origin], channels[to], 3, 2))

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """(n, channels[origin], h, w) -> (n, channels[to], *size)."""
        y: Tensor = self.convs(x)
        return upsample(y, size, "nearest") if self.upward else y


class BottomUpHead(nn.Module):
    """A head for the joints of all people in a picture, with tags that tell the people apart (HigherHRNet, CVPR 2020).

    x -> [coarse 1x1: heatmaps, tags] -> joined with x -> [upscale] -> [blocks] -> [fine 1x1: heatmaps]
    """

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(channels, 2 * joints, 1)
        self.upscale = UpConvNormAct(channels + 2 * joints, channels)
        self.blocks = nn.Sequential(*(BasicBlock(channels) for _ in range(UPSCALED_BLOCKS)))
        self.fine = nn.Conv2d(channels, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 3 joints, 2 h, 2 w).

        The channels are the fine heatmaps, the coarse heatmaps and the tags, each with one channel per joint. The last
        two repeat every value four times, so that one tensor holds all three and nothing is lost.
        """
        coarse = self.coarse(x)
        fine = self.fine(self.blocks(self.upscale(torch.cat([x, coarse], dim=1))))
        return torch.cat([fine, upsample(coarse, fine.shape[-2:], "nearest")], dim=1)


def upsample(x: Tensor, size: Size, mode: str) -> Tensor:
    """Upsample (n, c, h, w) to (n, c, *size), by a whole factor if possible: exported graphs then hold a constant.

    Args:
        x: the feature maps.
        size: height and width.
        mode: "nearest" or "bilinear".
    """
    factor = size[0] // x.shape[-2]
    corners = None if mode == "nearest" else False
    if x.shape[-2] * factor == size[0] and x.shape[-1] * factor == size[1]:
        return F.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=corners)
    return F.interpolate(x, size=size, mode=mode, align_corners=corners)


register_notrace_function(upsample)  # timm's tools trace networks with torch.fx, which cannot read sizes


def take_indices(count: int, indices: SupportsIndex | Iterable[SupportsIndex] | None) -> list[int]:
    """Resolve the indices of the wanted features, in the requested order, to numbers from 0.

    Args:
        count: the number of features that the network has.
        indices: indices of features, where -1 is the last; a single number n: the last n features; None: all.

    Raises:
        SpecError: an index is out of range, or no feature is wanted.
    """
    try:
        wanted = _numbers(count, range(count) if indices is None else indices)
    except TypeError:
        wanted = []
    if not wanted or any(not -count <= index < count for index in wanted):
        expected = f"numbers from {-count} to {count - 1}, or one number from 1 to {count} for the last features"
        raise SpecError(f"out_indices: found {quoted(indices)}, expected {expected}")
    return [index % count for index in wanted]


def _numbers(count: int, indices: SupportsIndex | Iterable[SupportsIndex]) -> list[int]:
    if not isinstance(indices, Iterable):
        last = operator.index(indices)
        return list(range(count - last, count)) if last <= count else []
    return [operator.index(index) for index in indices]
