"""Evaluation mode: batch norms use their running statistics, and dropout does nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put a network into evaluation mode, and at the end each of its modules back into its own mode.

    Some modules of a network in training may be in evaluation mode, such as frozen batch norms.

    Args:
        model: a network; anything else, such as an exported file, has no modes and stays as it is.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
