"""Latency per MAC in ONNX Runtime: ScaleNet against timm's EfficientNet-B0, and the layers that explain it.

python -m benchmarks.per_mac: about 2 minutes; 1 thread, 1 image, all timed in turn. `ns_per_kmac` is in nanoseconds per
thousand MACs. Ratios are to the first row of each table: medians over visits, with their range.
"""

from contextlib import ExitStack

import timm
import torch
from torch import nn

from benchmarks.interleave import record
from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.arch.spec import Layer
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.core.timing import Ratio, Timing, measure
from scalenet_zoo.latency.runners import open_runner
from scalenet_zoo.networks.layers import MBConv
from scalenet_zoo.zoo.catalog import load_family

TIMING = Timing(warmup=0.5, seconds=2.0, runs=50, visits=20)


Subject = tuple[nn.Module, tuple[int, int, int], int]
"""A module, the shape of its input, and its MACs."""


def compare(subjects: dict[str, Subject], backend: str = "ort-cpu") -> dict[str, dict[str, float]]:
    """Time modules in turn."""
    with ExitStack() as stack:
        runners = [
            stack.enter_context(open_runner(module, torch.randn(1, *shape), backend, threads=1))
            for module, shape, _ in subjects.values()
        ]
        latencies = measure(runners, TIMING)
    first_macs = next(iter(subjects.values()))[2]
    rows = {}
    for (name, (_, _, macs)), latency in zip(subjects.items(), latencies, strict=True):
        ratio = Ratio.of(latency, latencies[0])
        scale = first_macs / macs
        rows[name] = {
            "macs": macs,
            "median_ms": latency.median,
            "ns_per_kmac": 1e9 * latency.median / macs,
            "per_mac_ratio": ratio.median * scale,
            "per_mac_ratio_low": ratio.low * scale,
            "per_mac_ratio_high": ratio.high * scale,
        }
    return rows


def networks() -> dict[str, Subject]:
    family = load_family("scalenet")
    published = {name: load_spec(name) for name in ("scalenet_s0", "scalenet_s1")}
    aligned = apply_strategy(family, family.strategies[1], divisor=8)
    specs = {**published, "scalenet_s1, channels in multiples of 8": aligned}
    baseline = load_spec("efficientnet_b0")
    return {
        "efficientnet_b0 of timm": (timm.create_model("efficientnet_b0"), (3, 224, 224), baseline.cost.macs),
        **{
            name: (create_model(spec), (3, spec.input.height, spec.input.width), spec.cost.macs)
            for name, spec in specs.items()
        },
    }


def layers() -> dict[str, Subject]:
    """The most common layer of S0, with other kernel sizes and other numbers of channels."""
    subjects: dict[str, Subject] = {}
    network = load_spec("scalenet_s0").network
    assert network.type == "mbconv"
    for channels, kernel in ((40, 3), (40, 5), (40, 7), (48, 5), (42, 5), (41, 5)):
        layer = Layer(kernel=kernel, stride=1, hidden=6 * channels, squeeze=channels // 4, channels=channels)
        shape = (channels, 28, 28)
        module = MBConv(channels, layer, network)
        subjects[f"mbconv {kernel}x{kernel}, {channels} channels, 28x28"] = (
            module,
            shape,
            trace_layers([layer], shape).macs,
        )
    return subjects


def main() -> None:
    torch.manual_seed(0)
    record("per_mac", {"threads": 1, "batch": 1, "networks": compare(networks()), "layers": compare(layers())})


if __name__ == "__main__":
    main()
