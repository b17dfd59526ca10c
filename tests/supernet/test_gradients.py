"""The sum of the gradients of networks whose windows lie within one another."""

import torch
from torch import nn

from scalenet_zoo.supernet.gradients import Gradients, Window


def window(full: nn.Parameter, size: int, value: float | None = None) -> Window:
    """The first channels of a parameter; with a gradient, if there is a value for it."""
    view = full.detach()[:size].requires_grad_()
    if value is not None:
        view.grad = torch.full((size,), value)
    return Window(full, (slice(0, size),), view)


def test_gradients_of_smaller_windows_are_added_within_the_largest() -> None:
    full = nn.Parameter(torch.zeros(6))
    for sizes in ((2, 4), (4, 2)):
        gradients = Gradients()
        gradients.add(window(full, size, float(size)) for size in sizes)
        index, total = gradients.parts[full]
        assert index == (slice(0, 4),)
        assert total.tolist() == [6, 6, 4, 4]


def test_windows_of_other_processes_are_covered() -> None:
    """Every process has a place for what any of them has a gradient for, and what it knows stays."""
    full, unseen = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(3))
    gradients = Gradients()
    gradients.add([window(full, 2, 1.0)])
    gradients.cover([window(full, 5), window(unseen, 3), window(full, 1)])
    assert gradients.parts[full][0] == (slice(0, 5),)
    assert gradients.parts[full][1].tolist() == [1, 1, 0, 0, 0]
    assert gradients.parts[unseen][1].tolist() == [0, 0, 0]
