"""A network or its file, open on a back end, with the memory from which it reads images."""

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
"""Back ends that do not use a GPU."""
_TYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class OpenNetwork:
    """A network or file that is ready to be timed and judged.

    Attributes:
        runner: the runner for one batch.
        images: the memory from which the runner reads its batch; other images can be copied into it.
    """

    runner: Runner
    images: Tensor

    def lap(self) -> float:
        """Run one inference, and return its milliseconds."""
        return self.runner.lap()


def on_gpu(backend: str) -> bool:
    """Tell whether a back end runs on a GPU here."""
    return torch.cuda.is_available() and backend not in ON_CPU


@contextmanager
def open_network(model: nn.Module | Path, case: Case, threads: int | None = None) -> Iterator[OpenNetwork]:
    """Open a network or an exported file for the batch of a case.

    Args:
        model: the network or the file.
        case: the back end, the precision and the batch.
        threads: CPU threads that an operator may use; None: as many as torch uses now.

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
