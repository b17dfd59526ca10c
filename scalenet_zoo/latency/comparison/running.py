"""A network, or its file, open on a back end, with the memory that it reads images from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scalenet_zoo.latency.cases import Case
from scalenet_zoo.latency.runners import Runner, open_runner

ON_CPU = ("ort-cpu", "openvino")
"""Back ends that have no use for a GPU."""
_TYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class OpenNetwork:
    """What is timed and judged.

    Attributes:
        runner: of one batch.
        images: that the runner reads, where they lie: others can be copied into them.
    """

    runner: Runner
    images: Tensor

    def lap(self) -> float:
        """One inference; the milliseconds that it took."""
        return self.runner.lap()


def on_gpu(backend: str) -> bool:
    """Whether a back end runs on a GPU here."""
    return torch.cuda.is_available() and backend not in ON_CPU


@contextmanager
def open_network(model: nn.Module | Path, case: Case, threads: int | None = None) -> Iterator[OpenNetwork]:
    """Open a network, or an exported file, for batches of a case.

    Raises:
        BackendError: the back end cannot run it.
    """
    images = case.images()
    if isinstance(model, nn.Module):
        images = images.to(_TYPES[case.precision])
    if on_gpu(case.backend):
        images = images.cuda()
    with open_runner(model, images, case.backend, threads, case.precision) as runner:
        yield OpenNetwork(runner, images)
