"""Batch norm outside of training: statistics estimated again for new weights, or folded into convolutions."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scalenet_zoo.networks.layers import ConvNormAct
from scalenet_zoo.networks.modes import evaluation_mode


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch norm (`nn.BatchNorm2d`) of a network to those of given batches.

    The batches pass once. Each batch norm normalises with a batch's own statistics; everything else works as in
    evaluation. A mean becomes the mean of the batches' means, and a variance the mean of their (unbiased) variances.
    This is torch's cumulative average: exact for one batch, with the same weight for every batch, so batches should be
    of similar size. In the end, even after an error, modules have their former modes and batch norms their former
    momenta. Weights do not change.

    Args:
        network: a network with batch norms; a network without any stays as it is.
        batches: batches of its inputs, each (n, channels, height, width), on its device.
    """
    norms = [
        module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluation_mode(network), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for batch in batches:
                network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def fold_batch_norm(network: nn.Module) -> None:
    """Fold a network's batch norms into its convolutions, in place: the same function, in less time.

    Args:
        network: a network in evaluation mode.
    """
    for module in network.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
