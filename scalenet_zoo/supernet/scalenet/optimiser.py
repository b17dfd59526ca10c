"""SGD on the windows in use; the rest of the wide weights gets no gradient, no weight decay and no momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.sgd import sgd

if TYPE_CHECKING:
    from scalenet_zoo.supernet.gradients import Gradients


class WindowSGD(torch.optim.SGD):
    """SGD with Nesterov momentum on windows of a supernet's parameters; biases and norms have no weight decay.

    Momentum is stored at full size, so that a weight keeps its momentum until it is in use again.
    """

    def __init__(self, supernet: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        parameters = list(supernet.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)

    @torch.no_grad()
    def update(self, gradients: Gradients) -> None:
        """Take a step along the gradients."""
        for group in self.param_groups:
            windows, slopes, momenta = [], [], []
            for parameter in group["params"]:
                if parameter not in gradients.parts:
                    continue
                index, gradient = gradients.parts[parameter]
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                windows.append(parameter.detach()[index])
                slopes.append(gradient)
                momenta.append(state["momentum_buffer"][index])
            sgd(
                windows,
                slopes,
                momenta,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=group["nesterov"],
                maximize=False,
            )
