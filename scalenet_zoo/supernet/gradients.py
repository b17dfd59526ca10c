"""The parts of a supernet's weights that are in use, and the sum of the gradients of a step's networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

Slices = tuple[slice, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of a parameter that is in use.

    Attributes:
        full: the parameter.
        index: of the part.
        view: the part, a leaf that gradients are collected in.
    """

    full: nn.Parameter
    index: Slices
    view: Tensor


@dataclass
class Gradients:
    """The sum of the gradients of a step's networks.

    Its networks all take their windows from the same side, so of two windows of a weight the larger holds the smaller:
    each weight has one window, the largest, and what lies outside is not touched.

    Attributes:
        parts: by parameter, the largest window, and its gradient.
    """

    parts: dict[nn.Parameter, tuple[Slices, Tensor]] = field(default_factory=dict)

    def add(self, windows: Iterable[Window]) -> None:
        """Take what the backward pass left in the windows' views, which last longer than a step."""
        for window in windows:
            gradient, window.view.grad = window.view.grad, None
            if gradient is not None:
                self._add(window.full, window.index, gradient)

    def cover(self, windows: Iterable[Window]) -> None:
        """Make room for the windows of networks that run in other processes."""
        for window in windows:
            if not self._holds(window.full, window.index):
                self._add(window.full, window.index, torch.zeros_like(window.view))

    def _holds(self, full: nn.Parameter, index: Slices) -> bool:
        if full not in self.parts:
            return False
        known, _ = self.parts[full]
        return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(known, index, strict=True))

    def _add(self, full: nn.Parameter, index: Slices, gradient: Tensor) -> None:
        if full not in self.parts:
            self.parts[full] = index, gradient
            return
        known, total = self.parts[full]
        if not self._holds(full, index):
            known, total, index, gradient = index, gradient, known, total
        inside = tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(known, index, strict=True))
        total[inside] += gradient
        self.parts[full] = known, total

    def clip(self, norm: float) -> None:
        """Shorten them to a norm that is at most this."""
        gradients = [gradient for _, gradient in self.parts.values()]
        total = torch.nn.utils.get_total_norm(gradients)
        for gradient in gradients:
            gradient *= (norm / (total + 1e-6)).clamp(max=1.0)

    def average(self) -> None:
        """Take the mean over all processes, which hold the same windows in the same order: one exchange for all."""
        gradients = [gradient for _, gradient in self.parts.values()]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def step_along(optimizer: torch.optim.Optimizer, gradients: Gradients) -> None:
    """Take a step of any optimiser along gradients of whole parameters; those that have none stay as they are."""
    for parameter, (_, gradient) in gradients.parts.items():
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
