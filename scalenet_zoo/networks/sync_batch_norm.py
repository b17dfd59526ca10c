"""Batch norm with statistics over the images of all processes."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics over the images of all processes, on any device; torch's own is only for GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape; n, h and w must be equal in all processes."""
        if not self.training:
            return super().forward(x)
        world = torch.distributed.get_world_size()
        mean = _sum(x.mean((0, 2, 3))) / world
        centred = x - mean[:, None, None]
        variance = _sum(centred.square().mean((0, 2, 3))) / world
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            count = x.numel() // x.shape[1] * world
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    """Sum over the processes; the gradient is summed as well."""
    total: Tensor = _Sum.apply(x)
    return total


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace a network's batch norms by synchronised ones, in place where possible; names and values stay."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    share_statistics(network)
    return network


def share_statistics(network: nn.Module) -> None:
    """Turn a network's batch norms into synchronised ones, on any device; the modules stay the same objects."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
