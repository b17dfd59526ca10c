"""Batch norm of a network whose statistics are not its own: estimated anew, or folded."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scalenet_zoo.networks.layers import ConvNormAct


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch norm (`nn.BatchNorm2d`) of a network to those of given batches.

    Batches pass once; each batch norm normalises with a batch's own statistics, everything else works as in
    evaluation. A mean becomes the mean of the batches' means, a variance that of their (unbiased) variances: torch's
    cumulative average, exact for one batch, and every batch counts the same, so let them be of about one size. Every
    module's mode and the batch norms' momenta are as before in the end, whatever happens; weights are not touched.

    Args:
        network: one with batch norms; without any it is left alone.
        batches: of its inputs, each (n, channels, height, width), on its device.
    """
    norms = [
        module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    ]
    if not norms:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def fold_batch_norm(network: nn.Module) -> None:
    """Let a network's convolutions do the work of its batch norms, in place: the same function, in less time.

    Args:
        network: in evaluation mode.
    """
    for module in network.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
