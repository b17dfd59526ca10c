"""Inheritance of ScaleNet's supernet: it begins with the weights of a trained network instead of from scratch.

    source --inherit: channels sorted by importance--> the largest network, with one kernel size everywhere
                                                              |  for each kernel size
    supernet's wide layers of that kernel size  <-------------+

Networks take the first channels of the wide layers. These are the source's channels, the most important ones first, so
that a narrow network keeps what matters most. Channels and layers that the source lacks add nothing at first. A wide
layer with a larger kernel holds the source's kernel in its centre; one with a smaller kernel holds the centre of the
source's. Once-for-all (ICLR 2020) and BigNAS (ECCV 2020) do the same.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from scalenet_zoo.zoo.catalog import is_entry
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.inheritance import inherit_network
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.arch.labels import Labels
    from scalenet_zoo.arch.spec import MBConvNetwork
    from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet

_log = logging.getLogger(__name__)


def inherit_supernet(supernet: ScaleNetSupernet, source: str, labels: Labels) -> None:
    """Let a supernet inherit the weights of a trained network.

    Args:
        supernet: the supernet, changed in place; weights for which the source has nothing stay as they are.
        source: the network, as `create_model` takes it; a zoo entry is opened with its published weights.
        labels: the labels of the supernet's classes; classes that the source also has keep its weights.

    Raises:
        ModelNotFoundError, SpecError: there is no such network.
        WeightsError: the network is of another type or for another task, or its weights cannot be fetched.
    """
    theirs = create_seeded(source, pretrained=is_entry(source))
    space = supernet.space
    largest = space.largest_spec(supernet.classes, supernet.in_channels)
    assert largest.network.type == "mbconv"
    taken = []
    for kernel in sorted({kernel for stage in space.stages for kernel in stage.kernels}):
        network = _with_kernel(supernet, largest.network, kernel)
        spec = largest.model_copy(update={"network": network}).replace()
        alone = supernet.extract(spec)
        interface = Interface.of(spec).model_copy(update={"labels": labels})
        alone.pretrained_cfg = interface.to_timm(spec)  # type: ignore[assignment]
        taken.append(inherit_network(alone, theirs, source, sort_channels=True))
        supernet.activate(network)
        own = supernet.active.state_dict()  # windows: writing into them writes into the supernet
        with torch.no_grad():
            for name, tensor in alone.state_dict().items():
                own[name].copy_(tensor)
    share = max(one.used for one in taken)
    _log.warning("supernet of %s: %.0f%% of the weights of %s are taken over", space.name, 100 * share, source)


def _with_kernel(supernet: ScaleNetSupernet, network: MBConvNetwork, kernel: int) -> MBConvNetwork:
    """Give all layers of a network one kernel size, or the nearest that a layer may have."""
    stages = tuple(
        tuple(
            layer.model_copy(update={"kernel": min(stage.kernels, key=lambda each: (abs(each - kernel), each))})
            for layer in layers
        )
        for stage, layers in zip(supernet.space.stages, network.stages, strict=True)
    )
    return network.model_copy(update={"stages": stages})
