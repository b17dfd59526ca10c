"""The multipath network: ScaleNAS's networks for segmentation and pose, and HRNet.

    image -> stem -> stage1 -> transition2 -> stage2 -> transition3 -> stage3 -> transition4 -> stage4
             3x3 /2  4 bottlenecks            2 branches               3 branches               4 branches
             3x3 /2  256 channels             of width w, 2w           w, 2w, 4w                w, ..., 8w

    segmentation:  four branches upsampled, joined -> head 1x1 -> dropout -> classifier 1x1: logits at stride 4
    pose:          the highest-resolution branch               -> dropout -> classifier 1x1: heatmaps at stride 4
    bottom_up:     the highest-resolution branch               -> dropout -> classifier: `layers.BottomUpHead`, stride 2

The network holds only the modules that its masks execute.

`torch.jit.script` compiles `forward` and what it calls. So they contain no generators and no unpacking, and their
`type: ignore` comments have no code in brackets, which TorchScript would take for a type.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.models import checkpoint
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.spec import ArchSpec, Module
from scalenet_zoo.arch.trace import BOTTLENECK_CHANNELS, BOTTLENECKS, STEM_CHANNELS
from scalenet_zoo.networks.layers import (
    BasicBlock,
    Bottleneck,
    BottomUpHead,
    ConvNormAct,
    FusionPath,
    take_indices,
    upsample,
)


class MultipathModule(nn.Module):
    """Residual blocks on parallel branches that feed one another after every step (ScaleNAS, AutoML-Conf 2022).

    In step t, every branch deeper than t applies its block t. Then, for every branch j,
    y_j = ReLU(x_j + sum of the paths f_kj(x_k) over the k that the mask switches on).

    Args:
        module: the mask.
        block: returns the block at (branch, step).
        path: returns the path at (step, origin, to).
    """

    def __init__(
        self, module: Module, block: Callable[[int, int], nn.Module], path: Callable[[int, int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(block(branch, step) for step in range(depth)) for branch, depth in enumerate(module.depth)
        )
        self.paths = nn.ModuleList(
            nn.ModuleDict(
                {
                    f"{origin}_to_{to}": path(step, origin, to)
                    for to, steps in enumerate(module.fusion)
                    for origin, fed in enumerate(steps[step])
                    if fed and origin != to
                }
            )
            for step in range(max(module.depth))
        )
        self.grad_checkpointing = False

    @classmethod
    def create(cls, module: Module, channels: list[int], drop_path_rate: float = 0.0) -> "MultipathModule":
        """Make a module of new blocks and paths; `channels` has the channels of each branch."""
        return cls(
            module,
            lambda branch, step: BasicBlock(channels[branch], drop_path_rate),
            lambda step, origin, to: FusionPath(origin, to, channels),
        )

    def part(self, module: Module) -> "MultipathModule":
        """Make the module of a mask within this module's mask, with as many branches; it shares this one's weights."""
        part = MultipathModule(
            module,
            lambda branch, step: self.blocks[branch][step],  # type: ignore[index]
            lambda step, origin, to: self.paths[step][f"{origin}_to_{to}"],  # type: ignore[index]
        )
        part.grad_checkpointing = self.grad_checkpointing
        return part

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """Tensors (n, channels[j], h_j, w_j), one per branch -> the same shapes."""
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore
            ys: list[Tensor] = checkpoint(self._forward, xs)
            return ys
        return self._forward(xs)

    def _forward(self, xs: list[Tensor]) -> list[Tensor]:
        for step, paths in enumerate(self.paths):
            xs = list(xs)
            for branch, blocks in enumerate(self.blocks):
                for i, block in enumerate(blocks):  # type: ignore
                    if i == step:  # TorchScript cannot index here, since a branch may have fewer blocks than others
                        xs[branch] = block(xs[branch])
            ys, fed = list(xs), [False for _ in xs]
            for path in paths.values():  # type: ignore
                ys[path.target] = ys[path.target] + path(xs[path.origin], xs[path.target].shape[-2:])
                fed[path.target] = True
            for to, is_fed in enumerate(fed):
                if is_fed:
                    ys[to] = F.relu(ys[to], inplace=True)
            xs = ys
        return xs


class MultipathNet(nn.Module):
    """A segmentation or pose network built from a spec; it has timm's model interface, and `torch.jit.script` takes it.

    Args:
        spec: a spec whose network is of type multipath.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth in the last module, growing linearly from 0 in the first.
        global_pool: "", timm's name for no pooling.
        initialise: whether to draw initial weights; false if others replace them at once.

    Attributes:
        feature_info: the stem's first convolution (stride 2) and the four branches, in timm's format.

    Raises:
        TypeError: the spec's network is of another type.
        ValueError: `global_pool` is not "".
    """

    def __init__(
        self,
        spec: ArchSpec,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "",
        initialise: bool = True,
    ) -> None:
        super().__init__()
        if global_pool:
            raise ValueError(f"global_pool: found {global_pool!r}, expected '': outputs of this network are dense")
        network = spec.network
        if network.type != "multipath":
            raise TypeError(f"{spec.name}: found a network of type {network.type!r}, expected 'multipath'")
        self.spec = spec
        self.num_classes = spec.classes
        self.in_chans = spec.input.channels

        self.stem = nn.Sequential(
            ConvNormAct(self.in_chans, STEM_CHANNELS, 3, 2, activation="relu"),
            ConvNormAct(STEM_CHANNELS, STEM_CHANNELS, 3, 2, activation="relu"),
        )
        self.stage1 = nn.Sequential(
            *(Bottleneck(BOTTLENECK_CHANNELS if i else STEM_CHANNELS, BOTTLENECK_CHANNELS) for i in range(BOTTLENECKS))
        )
        width = [network.width * 2**branch for branch in range(4)]
        self.transition2 = nn.ModuleList(
            [
                ConvNormAct(BOTTLENECK_CHANNELS, width[0], 3, activation="relu"),
                ConvNormAct(BOTTLENECK_CHANNELS, width[1], 3, 2, activation="relu"),
            ]
        )
        self.transition3 = ConvNormAct(width[1], width[2], 3, 2, activation="relu")
        self.transition4 = ConvNormAct(width[2], width[3], 3, 2, activation="relu")
        self.stage2, self.stage3, self.stage4 = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        stages = {2: self.stage2, 3: self.stage3, 4: self.stage4}
        for i, module in enumerate(network.modules):
            rate = drop_path_rate * i / (len(network.modules) - 1)
            stages[len(module.depth)].append(MultipathModule.create(module, width, rate))

        self.feature_info = [{"num_chs": STEM_CHANNELS, "reduction": 2, "module": "stem.0"}]
        self.feature_info += [
            {"num_chs": width[branch], "reduction": 4 * 2**branch, "module": f"stage4.{branch}"} for branch in range(4)
        ]
        joined = sum(width)
        self.head = (
            ConvNormAct(joined, joined, 1, activation="relu", bias=True)
            if network.head == "segmentation"
            else nn.Identity()
        )
        self.joins_branches = network.head == "segmentation"
        self.num_features = self.head_hidden_size = joined if self.joins_branches else width[0]
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = self._new_classifier()
        if initialise:
            init_hrnet(self)

    def _new_classifier(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        if self.spec.bottom_up:
            return BottomUpHead(self.num_features, self.num_classes)
        return nn.Conv2d(self.num_features, self.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> logits or heatmaps (n, num_classes, h / 4, w / 4).

        The head `bottom_up` gives heatmaps and tags (n, 3 num_classes, h / 2, w / 2); see `layers.BottomUpHead`.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """(n, in_chans, h, w) -> the four branches, at strides 4, 8, 16 and 32."""
        return self._branches(self.stem(x))

    def _branches(self, x: Tensor) -> list[Tensor]:
        x = self.stage1(x)
        xs: list[Tensor] = [transition(x) for transition in self.transition2]
        for module in self.stage2:
            xs = module(xs)
        xs.append(self.transition3(xs[-1]))
        for module in self.stage3:
            xs = module(xs)
        xs.append(self.transition4(xs[-1]))
        for module in self.stage4:
            xs = module(xs)
        return xs

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Tensor:
        """The four branches -> the output of `forward`, or the features (n, num_features, h / 4, w / 4) before it."""
        branch = x[0]
        if self.joins_branches:
            branches = [branch]
            branches.extend([upsample(z, branch.shape[-2:], "bilinear") for z in x[1:]])
            branch = torch.cat(branches, dim=1)
        y: Tensor = self.dropout(self.head(branch))
        if not pre_logits:
            y = self.classifier(y)
        return y

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:  # noqa: ANN401 - timm's signature: a list, or a pair
        """Compute the features that `feature_info` lists, in the format of timm's networks.

        Args:
            x: images (n, in_chans, h, w).
            indices: the wanted entries of `feature_info`, in order; an int n: the last n; None: all.
            norm: has no effect, since features are normalised already.
            stop_early: has no effect, since every branch needs the whole network.
            output_fmt: must be NCHW.
            intermediates_only: return only the list of features, else (the four branches, the list).

        Raises:
            ValueError: `output_fmt` is not NCHW.
            SpecError: an index is out of range.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW'")
        take = take_indices(len(self.feature_info), indices)
        first = self.stem[0](x)
        branches = self._branches(self.stem[1](first))
        outputs = [first, *branches]
        features = [outputs[i] for i in take]
        return features if intermediates_only else (branches, features)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the head, which no feature needs; return the indices of the wanted features, from 0.

        Raises:
            SpecError: an index is out of range.
        """
        take = take_indices(len(self.feature_info), indices)
        if prune_head:
            self.head = nn.Identity()
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        """The last 1x1 convolution; for the head `bottom_up`, all that follows the branches."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one for `num_classes` classes or joints; 0 removes it.

        Raises:
            ValueError: `global_pool` is not "".
            SpecError: the number of classes is out of range.
        """
        if global_pool:
            raise ValueError(f"global_pool: found {global_pool!r}, expected '': outputs of this network are dense")
        self.spec = self.spec.replace(classes=num_classes)
        self.num_classes = num_classes
        parameter = next(self.parameters())
        self.classifier = self._new_classifier().to(parameter.device, parameter.dtype)
        init_hrnet(self.classifier)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Give the patterns of parameter groups in order of depth, for layer-wise learning rates."""
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stage(\d+)" if coarse else r"^stage(\d+)\.(\d+)", None),
                (r"^transition(\d+)", None),  # (3,) sorts before the modules of stage 3, (3, 0) and on
                (r"^head", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: recompute each multipath module in the backward pass."""
        for module in (*self.stage2, *self.stage3, *self.stage4):
            module.grad_checkpointing = enable


def init_hrnet(network: nn.Module) -> None:
    """Initialise as HRNet's trainers for dense tasks and ScaleNAS do: normal weights of deviation 0.001, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
