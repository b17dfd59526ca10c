"""Latency per MAC of HRNet-W32 for pose at 256 x 192: ours against timm's features at the same input.

python -m benchmarks.per_mac_dense: about 4 minutes; 1 thread, 1 image, both timed in turn. timm's network computes the
features of all branches after its classifier's bottlenecks, so it executes more MACs. They are counted, and
`per_mac_ratio` (ours / timm's, below 1 is faster) is the ratio of time per MAC.
"""

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleave import record
from benchmarks.per_mac import Subject, compare
from scalenet_zoo import create_model, load_spec

SHAPE = (3, 256, 192)


class Features(nn.Module):
    """timm's HRNet-W32. It returns the means of all features as one tensor, so that an export keeps all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("hrnet_w32", features_only=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([feature.mean() for feature in self.network(images)])


def executed_macs(network: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, *SHAPE))
    return int(counter.get_total_flops()) // 2


def main() -> None:
    torch.manual_seed(0)
    theirs, spec = Features(), load_spec("hrnet_w32_pose")
    subjects: dict[str, Subject] = {
        "hrnet_w32 of timm, features": (theirs, SHAPE, executed_macs(theirs)),
        "hrnet_w32_pose": (create_model(spec), SHAPE, spec.cost.macs),
    }
    measured = {backend: compare(subjects, backend) for backend in ("torch", "ort-cpu")}
    record("per_mac_dense", {"threads": 1, "batch": 1, **measured})


if __name__ == "__main__":
    main()
