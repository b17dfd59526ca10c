"""What another precision brings: the exported file beside the same network in fp32, timed in turn.

A smaller precision is not always faster: a back end may lack kernels for it, or lose in conversions what they gain.
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
"""Some seconds of an export."""


@dataclass(frozen=True)
class Gain:
    """Latencies of a file and of the same network in fp32, on one back end.

    Attributes:
        backend: that ran both.
        precision: of the file.
        batch: images at once: the smallest batch that the file takes.
        threads: CPU threads of both.
        fp32: milliseconds of the network in fp32.
        latency: milliseconds of the file.
        ratio: of the file's to fp32's, over visits in turn; below 1 the file is faster.
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
    """An exported file with a batch of images, ready to be timed."""

    run: Callable[[], object]
    stream: torch.cuda.Stream | None = None

    def lap(self) -> float:
        return timed(self.run, self.stream)


def measure_gain(fp32: Exported, file: Exported, backend: str, timing: Timing | None = None) -> Gain:
    """Time a file beside the same network in fp32, both open on a back end.

    Args:
        fp32: the network in fp32, exported with the same options otherwise.
        file: in another precision.
        backend: that both are open on.
        timing: how long, how often; None: `TIMING`.
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
    """A batch of noise, as the file takes it."""
    metadata = network.metadata
    rng, shape = np.random.default_rng(0), (batch_sizes(metadata.options)[0], *metadata.image_shape)
    if metadata.options.preprocess:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)
