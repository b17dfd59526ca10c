"""A space small enough for tests, and supernets whose weights tell channels apart."""

import numpy as np
import torch
from torch import nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet

TINY = Space.from_values(
    {
        "name": "tiny",
        "stem": {"channels": 6, "kernel": 3, "stride": 2},
        "stages": [
            {"channels": 6, "stride": 1, "expand": 1, "depths": [1], "kernels": [3, 5]},
            {"channels": 8, "stride": 2, "expand": 3, "depths": [1, 2], "kernels": [3, 5, 7]},
            {"channels": 12, "stride": 2, "expand": 4, "depths": [1, 2, 3], "kernels": [3, 5]},
        ],
        "head": {"channels": 24},
        "scaling": [
            {"stage": 0, "depth": [1.0], "width": [1.0], "resolution": [24]},
            {"stage": 1, "depth": [1.1, 1.4], "width": [1.1, 1.2, 1.3], "resolution": [24, 32]},
            {"stage": 2, "depth": [1.4, 1.7, 2.0], "width": [1.3, 1.5], "resolution": [32, 40]},
        ],
    },
    "tiny",
)


def draw(seed: int, space: Space = TINY, classes: int = 3) -> ArchSpec:
    """A network of the space, of any stage."""
    rng = np.random.default_rng(seed)
    scalings: list[Scaling] = [s for stage in space.scaling for s in space.scalings(stage.stage)]
    return space.spec(space.sample(rng, 1)[0], scalings[rng.integers(len(scalings))], classes)


def telling_supernet(seed: int = 0, space: Space = TINY, classes: int = 3) -> ScaleNetSupernet:
    """A supernet with random weights and statistics everywhere."""
    torch.manual_seed(seed)
    supernet = ScaleNetSupernet(space, classes)
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return supernet
