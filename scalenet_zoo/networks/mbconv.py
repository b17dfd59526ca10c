"""The mbconv network: ScaleNet's classifiers, and EfficientNet's.

image -> stem -> stages[0] -> ... -> stages[n - 1] -> head -> mean over pixels -> dropout -> classifier
3x3 /2        MBConv layers                   1x1
"""

from functools import partial
from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models._efficientnet_builder import efficientnet_init_weights
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.networks.layers import ConvNormAct, MBConv, take_indices


class MBConvNet(nn.Module):
    """A classifier built from a spec; it has timm's model interface, and `torch.jit.script` takes it.

    Args:
        spec: a spec whose network is of type mbconv.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth at the last layer, growing linearly from 0 at the first.
        global_pool: "avg" or, for a network without classes, "", with which features stay (n, num_features, h, w).
        initialise: whether to draw initial weights; false if others replace them at once.

    Attributes:
        feature_info: the last stage at each resolution, in timm's format.

    Raises:
        TypeError: the spec's network is of another type.
        ValueError: `global_pool` does not fit the network.
    """

    def __init__(
        self,
        spec: ArchSpec,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        initialise: bool = True,
    ) -> None:
        super().__init__()
        network = spec.network
        if network.type != "mbconv":
            raise TypeError(f"{spec.name}: found a network of type {network.type!r}, expected 'mbconv'")
        self.spec = spec
        self.num_classes = spec.classes
        self.in_chans = spec.input.channels
        self.num_features = self.head_hidden_size = network.head.channels
        self.grad_checkpointing = False

        conv = partial(ConvNormAct, activation=network.activation, padding=network.padding, norm_eps=network.norm_eps)
        stem = network.stem
        self.stem = conv(self.in_chans, stem.channels, stem.kernel, stem.stride)
        info: list[dict[str, Any]] = [
            {"num_chs": stem.channels, "reduction": stem.stride, "module": "stem", "stage": 0}
        ]
        self.stages = nn.Sequential()
        channels, reduction = stem.channels, stem.stride
        total = sum(map(len, network.stages))
        built = 0
        for s, stage in enumerate(network.stages):
            layers = nn.Sequential()
            for layer in stage:
                layers.append(MBConv(channels, layer, network, drop_path_rate * built / total))
                channels = layer.channels
                built += 1
            self.stages.append(layers)
            strides = [layer.stride for layer in stage]
            if strides.count(1) == len(strides):  # the resolution stays, so this stage replaces the one before
                info.pop()
            reduction *= 2 ** strides.count(2)
            info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{s}", "stage": s + 1})
        self.feature_info = info
        self.head: nn.Module = conv(channels, network.head.channels, 1)
        self.global_pool = self._checked_pool(global_pool)
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = self._new_classifier()
        if initialise:
            efficientnet_init_weights(self)

    def _checked_pool(self, global_pool: str) -> str:
        if global_pool != "avg" and (global_pool or self.num_classes):
            raise ValueError(f"global_pool: found {global_pool!r}, expected 'avg', or '' for a network without classes")
        return global_pool

    def _new_classifier(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> logits (n, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, in_chans, h, w) -> the head's features before pooling, (n, num_features, h / 32, w / 32) at stride 32."""
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore
            x = checkpoint_seq(self.stages, x, flatten=True)
        else:
            x = self.stages(x)
        y: Tensor = self.head(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(n, num_features, h, w) -> logits (n, num_classes), or the pooled features (n, num_features) before them."""
        y: Tensor = self.dropout(x.mean((2, 3)) if self.global_pool == "avg" else x)
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
            stop_early: skip the stages past the last wanted feature.
            output_fmt: must be NCHW.
            intermediates_only: return only the list of features, else (the head's features, the list).

        Raises:
            ValueError: `output_fmt` is not NCHW.
            SpecError: an index is out of range.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW'")
        wanted = [self.feature_info[i]["stage"] for i in take_indices(len(self.feature_info), indices)]
        stages = self.stages[: max(wanted)] if stop_early else self.stages
        x = self.stem(x)
        outputs = {0: x}  # of the stem and the stages
        for s, stage in enumerate(stages, start=1):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if s in wanted:
                outputs[s] = x
        features = [outputs[s] for s in wanted]
        return features if intermediates_only else (self.head(x), features)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the wanted features do not need; return their indices, from 0.

        Raises:
            SpecError: an index is out of range.
        """
        take = take_indices(len(self.feature_info), indices)
        last = max(take)
        self.stages = self.stages[: self.feature_info[last]["stage"]]
        if prune_head:
            self.head = nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one for `num_classes` classes; 0 removes it.

        Raises:
            ValueError: `global_pool` does not fit the network.
            SpecError: the number of classes is out of range.
        """
        self.spec = self.spec.replace(classes=num_classes)
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = self._checked_pool(global_pool)
        parameter = next(self.parameters())
        self.classifier = self._new_classifier().to(parameter.device, parameter.dtype)
        efficientnet_init_weights(self.classifier)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Give the patterns of parameter groups in order of depth, for layer-wise learning rates."""
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)", None),
                (r"^head", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: recompute each layer in the backward pass."""
        self.grad_checkpointing = enable
