"""The gain of a smaller precision: the exported file and the same network in fp32, timed in turn.

A smaller precision is not always faster: a back end may have no kernels for it, or may lose more time in conversions
than they save.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from scalenet_zoo.core.timing import MeasuredLatency, Ratio, Timing, measure, timed
from scalenet_zoo.export.tensorrt.network import EngineNetwork
from scalenet_zoo.export.verify import Exported, batch_sizes

TIMING = Timing(warmup=0.2, seconds=1.0, runs=20, visits=5)
"""Settings that add a few seconds to an export."""


@dataclass(frozen=True)
class Gain:
    """Latencies of a file and of the same network in fp32, on one back end.

    Attributes:
        backend: the back end that ran both.
        precision: the precision of the file.
        batch: images per inference: the smallest batch that the file takes.
        threads: the number of CPU threads of both.
        fp32: the latency of the network in fp32, in milliseconds.
        latency: the latency of the file, in milliseconds.
        ratio: the file's latency as a share of fp32's, over visits in turn; below 1, the file is faster.
    """

    backend: str
    precision: str
    batch: int
    threads: int
    fp32: MeasuredLatency
    latency: MeasuredLatency
    ratio: Ratio

    @property
    def slower(self) -> bool:
        """Whether the file is slower than fp32."""
        return self.ratio.median > 1


@dataclass(frozen=True)
class _Lap:
    """An exported file with a batch of images, ready for timing."""

    run: Callable[[], object]
    stream: torch.cuda.Stream | None = None

    def lap(self) -> float:
        return timed(self.run, self.stream)


def measure_gain(fp32: Exported, file: Exported, backend: str, timing: Timing | None = None) -> Gain:
    """Time a file in turn with the same network in fp32, both open on one back end.

    Args:
        fp32: the network in fp32, otherwise exported with the same options.
        file: the file in another precision.
        backend: the back end that both are open on.
        timing: how long and how often to time; None: `TIMING`.
    """
    beside, ours = measure([_lap(fp32), _lap(file)], timing or TIMING)
    options = file.metadata.options
    return Gain(
        backend,
        options.precision,
        batch_sizes(options)[0],
        torch.get_num_threads(),
        beside,
        ours,
        Ratio.of(ours, beside),
    )


def _lap(network: Exported) -> _Lap:
    images = _noise(network)
    if not isinstance(network, EngineNetwork):
        return _Lap(lambda: network(images))
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        return _Lap(network.bind(torch.from_numpy(images)), stream)


def _noise(network: Exported) -> np.ndarray:
    """Make a batch of noise in the form that the file takes."""
    metadata = network.metadata
    rng, shape = np.random.default_rng(0), (batch_sizes(metadata.options)[0], *metadata.image_shape)
    if metadata.options.preprocess:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)
