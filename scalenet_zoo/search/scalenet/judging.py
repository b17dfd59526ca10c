"""The accuracy of a network with the super-supernet's weights.

The coupled paths take their channels from the left and from the right end of the supernet's channels, and the sum of
their logits is judged (ScaleNet, ECCV 2022, section 3.2, after BCNet, CVPR 2021). Networks are extracted, so the
supernet does not change.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.search.scalenet.config import ScaleNetScoring
from scalenet_zoo.search.scoring import Calibrated
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.supernet.scalenet.elastic import Side


CPU_BATCH = 128
"""The most images at once on a CPU; with more, its caches are too small, and a pass takes longer."""


class CoupledPaths(nn.Module):
    """Networks whose logits are added."""

    def __init__(self, paths: Sequence[nn.Module]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (n, classes) of images (n, channels, height, width)."""
        total: Tensor = self.paths[0](x)
        for path in self.paths[1:]:
            total = total + path(x)
        return total


def score_network(
    supernet: ScaleNetSupernet,
    spec: ArchSpec,
    training: CachedImages,
    validation: CachedImages,
    settings: ScaleNetScoring,
    interface: Interface | None = None,
) -> float:
    """Compute the accuracy, 0 to 1, of a network with a supernet's weights.

    Args:
        supernet: the supernet, which is not changed.
        spec: the network's spec.
        training: images that its batch-norm statistics are estimated from.
        validation: images that it is judged by.
        settings: paths, batch size and number type; the numbers of images in it are not used.
        interface: how images are normalised; None: as for any network of the spec.

    Raises:
        WeightsError: the network's outputs are not finite.
    """
    paths = CoupledPaths([supernet.extract(spec, side) for side in sides(settings)])
    return top1_accuracy(Calibrated(paths, spec, training, settings, interface=interface), spec, validation, settings)


def top1_accuracy(network: Calibrated, spec: ArchSpec, validation: CachedImages, settings: ScaleNetScoring) -> float:
    """Compute the share, 0 to 1, of images whose class a network predicts correctly.

    Raises:
        WeightsError: the network's outputs are not finite.
    """
    correct = torch.zeros((), dtype=torch.int64, device=network.device)
    finite = torch.ones((), dtype=torch.bool, device=network.device)
    size = min(settings.batch_size, CPU_BATCH) if network.device.type == "cpu" else settings.batch_size
    for images, targets in validation.batches(size):
        logits = network(images)
        finite &= logits.isfinite().all()
        correct += (logits.argmax(1) == targets.to(network.device, non_blocking=True)).sum()
    check_finite(spec, bool(finite))
    return int(correct) / len(validation)


def sides(settings: ScaleNetScoring) -> "tuple[Side, ...]":
    """The ends of the supernet's channels that paths are taken from."""
    return ("left", "right") if settings.paths == "both" else ("left",)
