"""Every export is checked before it is reported as done: the same outputs as the network, on real photographs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scalenet_zoo.errors import VerificationError
from scalenet_zoo.images import preprocessing, read_image, sample_photographs

if TYPE_CHECKING:
    from scalenet_zoo.export.onnx import OnnxNetwork
    from torch import nn

    from scalenet_zoo.spec import ArchSpec

TOLERANCE = 1e-4
"""Largest difference allowed in fp32, as a share of the network's largest output."""
BATCH_SIZES = (1, 3)
"""Checked batch sizes; neither is that of the export's example, so a batch frozen there is found out."""


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Attributes:
        photograph: the picture that the outputs below are for.
        expected: the network's output for it, without the batch axis.
        found: the exported file's.
        difference: the largest absolute difference over all batches.
        relative: the same as a share of the network's largest absolute output.
        torch_ms: the network's median latency for one image, as it stands.
        onnxruntime_ms: the exported file's.
        threads: that both ran on.
    """

    photograph: str
    expected: np.ndarray
    found: np.ndarray
    difference: float
    relative: float
    torch_ms: float
    onnxruntime_ms: float
    threads: int


def verify(model: nn.Module, exported: OnnxNetwork) -> Verification:
    """Run a network and its exported file on photographs, in batches of 1 and 3, and compare them.

    Raises:
        VerificationError: they differ by more than `TOLERANCE`, or the outputs are not finite.
    """
    spec = exported.spec
    batch = photographs(spec, exported.pretrained_cfg, max(BATCH_SIZES))
    expected, found = [], []
    for size in BATCH_SIZES:
        expected.append(run_torch(model, batch[:size]))
        found.append(exported(batch[:size]))
    scale = max(float(np.abs(output).max()) for output in expected)
    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(expected, found, strict=True))
    if not (scale > 0 and difference <= TOLERANCE * scale):  # NaN fails too
        raise VerificationError(
            f"{spec.name}: found outputs that differ by {difference:.3g} where the largest is {scale:.3g},"
            f" expected at most {TOLERANCE:g} of it"
        )
    return Verification(
        photograph=sample_photographs()[0].name,
        expected=expected[0][0],
        found=found[0][0],
        difference=difference,
        relative=difference / scale,
        torch_ms=median_ms(lambda: run_torch(model, batch[:1])),
        onnxruntime_ms=median_ms(lambda: exported(batch[:1])),
        threads=torch.get_num_threads(),
    )


def photographs(spec: ArchSpec, cfg: dict[str, object], count: int) -> np.ndarray:
    """Real photographs as a network's input, float32 (count, channels, height, width)."""
    paths = sample_photographs()
    pictures = [read_image(paths[i % len(paths)]).rotate(180 * (i // len(paths))) for i in range(count)]
    if spec.input.channels in (1, 3):
        return torch.stack([preprocessing(spec, cfg)(picture) for picture in pictures]).numpy()
    grey = spec.replace(channels=1)  # other sensors: the grey picture in every channel
    stacked = torch.stack([preprocessing(grey, cfg)(picture) for picture in pictures])
    return stacked.expand(-1, spec.input.channels, -1, -1).contiguous().numpy()


@torch.inference_mode()
def run_torch(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """A network's output, float32, for images of shape (n, channels, height, width)."""
    parameter = next(model.parameters())
    output: torch.Tensor = model(torch.from_numpy(images).to(parameter.device, parameter.dtype))
    return output.float().cpu().numpy()


def median_ms(function: Callable[[], object], seconds: float = 1.0) -> float:
    """The median time of a call in milliseconds: after one to warm up, at least 3 calls and so many seconds."""
    function()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
