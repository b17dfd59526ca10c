"""Networks built from specs: one file per network type."""

from typing import Any

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.networks.multipath import MultipathNet

__all__ = ["MBConvNet", "MultipathNet", "network_of"]


def network_of(spec: ArchSpec, **options: Any) -> MBConvNet | MultipathNet:  # noqa: ANN401 - the network's own
    """Build the network of a spec; `options` are the arguments of its class.

    Raises:
        ValueError: `global_pool` does not fit the network.
    """
    network: type[MBConvNet | MultipathNet] = MBConvNet if spec.network.type == "mbconv" else MultipathNet
    return network(spec, **options)
