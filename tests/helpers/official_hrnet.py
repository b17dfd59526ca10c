"""HRNet with its official trainers' names of modules: replicas, to have state dicts of theirs and what they compute.

The names are those of deep-high-resolution-net.pytorch (pose), HRNet-Semantic-Segmentation and
HigherHRNet-Human-Pose-Estimation.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Enlarge = Literal["nearest", "bilinear"]
MODULES = (1, 2, 2)
"""Of the stages with two, three and four branches; HRNet has 1, 4 and 3."""


class Residual(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels."""

    def __init__(self, before: int, channels: int, bottleneck: bool = False) -> None:
        super().__init__()
        after = 4 * channels if bottleneck else channels
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        self.count = len(kernels)
        sizes = [before, *[channels] * (self.count - 1), after]
        for i, kernel in enumerate(kernels):
            self.add_module(f"conv{i + 1}", nn.Conv2d(sizes[i], sizes[i + 1], kernel, 1, kernel // 2, bias=False))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
        self.downsample = norm_conv(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = y.relu() if i < self.count else y
        return (y + (self.downsample(x) if self.downsample else x)).relu()


def norm_conv(before: int, after: int, kernel: int, stride: int = 1, relu: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Exchange(nn.Module):
    """Branches of four blocks, then all into all, or into the first `outputs`."""

    def __init__(self, channels: list[int], outputs: int, enlarge: Enlarge) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.branches = nn.ModuleList(nn.Sequential(*(Residual(c, c) for _ in range(4))) for c in channels)
        self.fuse_layers = nn.ModuleList()
        for to in range(outputs):
            row = []
            for origin, before in enumerate(channels):
                if origin > to:
                    row.append(norm_conv(before, channels[to], 1))
                elif origin == to:
                    row.append(nn.Sequential())
                else:
                    last = to - origin - 1
                    row.append(
                        nn.Sequential(
                            *(norm_conv(before, before, 3, 2, relu=True) for _ in range(last)),
                            norm_conv(before, channels[to], 3, 2),
                        )
                    )
            self.fuse_layers.append(nn.ModuleList(row))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        ys = []
        for to, row in enumerate(self.fuse_layers):
            y = torch.zeros_like(xs[to])
            for origin, path in enumerate(row.children()):
                z = path(xs[origin])
                if origin > to:
                    corners = None if self.enlarge == "nearest" else True
                    z = F.interpolate(z, size=y.shape[-2:], mode=self.enlarge, align_corners=corners)
                y = y + z
            ys.append(y.relu())
        return ys


class OfficialHRNet(nn.Module):
    """The trunk; `segmentation`, `pose` and `bottom_up` make networks of it."""

    last_layer: Any
    final_layer: Any
    final_layers: Any
    deconv_layers: Any

    def __init__(self, width: int, outputs: int = 4, enlarge: Enlarge = "nearest") -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(*(Residual(256 if i else 64, 64, bottleneck=True) for i in range(4)))
        before = 256
        for stage, modules in zip((2, 3, 4), MODULES, strict=True):
            kept = (
                [norm_conv(256, widths[0], 3, relu=True)] if stage == 2 else [nn.Sequential() for _ in range(stage - 1)]
            )
            new = nn.Sequential(norm_conv(before, widths[stage - 1], 3, 2, relu=True))
            self.add_module(f"transition{stage - 1}", nn.ModuleList([*kept, new]))
            fed = [outputs if stage == 4 and i == modules - 1 else stage for i in range(modules)]
            self.add_module(f"stage{stage}", nn.Sequential(*(Exchange(widths[:stage], to, enlarge) for to in fed)))
            before = widths[stage - 1]
        self.compute: Callable[[list[Tensor]], Tensor] = lambda branches: branches[0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        xs = [self.layer1(x)]
        for stage in (2, 3, 4):
            *kept, new = self.get_submodule(f"transition{stage - 1}").children()
            xs = [*(step(x) for step, x in zip(kept, xs, strict=True)), new(xs[-1])]
            xs = self.get_submodule(f"stage{stage}")(xs)
        return self.compute(xs)


def segmentation(width: int, classes: int, enlarge: Enlarge = "nearest") -> OfficialHRNet:
    model = OfficialHRNet(width, enlarge=enlarge)
    joined = 15 * width
    model.last_layer = nn.Sequential(
        nn.Conv2d(joined, joined, 1), nn.BatchNorm2d(joined), nn.ReLU(), nn.Conv2d(joined, classes, 1)
    )

    def compute(xs: list[Tensor]) -> Tensor:
        size = xs[0].shape[-2:]
        enlarged = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in xs[1:])
        y: Tensor = model.last_layer(torch.cat([xs[0], *enlarged], 1))
        return y

    model.compute = compute
    return model


def pose(width: int, joints: int) -> OfficialHRNet:
    model = OfficialHRNet(width, outputs=1)
    model.final_layer = nn.Conv2d(width, joints, 1)
    model.compute = lambda xs: model.final_layer(xs[0])
    return model


def bottom_up(width: int, joints: int) -> OfficialHRNet:
    """Its outputs as one tensor: the fine heatmaps, then the coarse ones and the tags, enlarged."""
    model = OfficialHRNet(width, outputs=1)
    model.final_layers = nn.ModuleList([nn.Conv2d(width, 2 * joints, 1), nn.Conv2d(width, joints, 1)])
    up = nn.ConvTranspose2d(width + 2 * joints, width, 4, 2, 1, 0, bias=False)
    blocks = (nn.Sequential(Residual(width, width)) for _ in range(4))
    model.deconv_layers = nn.ModuleList([nn.Sequential(nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU()), *blocks)])

    def compute(xs: list[Tensor]) -> Tensor:
        coarse = model.final_layers[0](xs[0])
        fine = model.final_layers[1](model.deconv_layers[0](torch.cat([xs[0], coarse], 1)))
        return torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1)

    model.compute = compute
    return model
