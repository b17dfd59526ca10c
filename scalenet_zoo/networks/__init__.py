"""Networks built from specs: one file a network type."""

from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.networks.multipath import MultipathNet

__all__ = ["MBConvNet", "MultipathNet"]
