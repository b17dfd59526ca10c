"""Windows, the parts of a supernet's weights in use, and the sum of gradients over a step's networks."""

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
    """The part of a parameter that the active network uses.

    Attributes:
        full: the whole parameter.
        index: the slices of the part.
        view: the part, a leaf tensor that collects gradients.
    """

    full: nn.Parameter
    index: Slices
    view: Tensor


@dataclass
class Gradients:
    """The sum of gradients over the networks of a step.

    All networks of a step take their windows from the same side, so of two windows of a weight the larger contains the
    smaller. Thus each weight has one window, the largest, and weights outside of it do not change.

    Attributes:
        parts: by parameter, the largest window and its gradient.
    """

    parts: dict[nn.Parameter, tuple[Slices, Tensor]] = field(default_factory=dict)

    def add(self, windows: Iterable[Window]) -> None:
        """Add the gradients that a backward pass left in the windows' views, and clear them there."""
        for window in windows:
            gradient, window.view.grad = window.view.grad, None
            if gradient is not None:
                self._add(window.full, window.index, gradient)

    def cover(self, windows: Iterable[Window]) -> None:
        """Add zero gradients for the windows of networks that run in other processes."""
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
        """Scale the gradients down so that their joint norm is at most `norm`."""
        gradients = [gradient for _, gradient in self.parts.values()]
        total = torch.nn.utils.get_total_norm(gradients)
        for gradient in gradients:
            gradient *= (norm / (total + 1e-6)).clamp(max=1.0)

    def average(self) -> None:
        """Take the mean over all processes, in one exchange; they must hold the same windows in the same order."""
        gradients = [gradient for _, gradient in self.parts.values()]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def step_along(optimizer: torch.optim.Optimizer, gradients: Gradients) -> None:
    """Take a step of any optimiser along gradients of whole parameters; parameters without a gradient do not change."""
    for parameter, (_, gradient) in gradients.parts.items():
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
