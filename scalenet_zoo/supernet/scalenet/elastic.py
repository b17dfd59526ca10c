"""Slices of weights: how narrow layers live in wide ones.

A narrow layer's weights are a window of the wide layer's: the first channels or the last ones along each dimension,
so that every channel is trained as often from the left as from the right (bilateral coupling, as in BCNet, CVPR 2021).
A window is a view: nothing is copied, the gradient has the window's size, and what an optimiser writes into it, the
wide layer has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from scalenet_zoo.supernet.gradients import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalenet_zoo.arch.spec import Layer

Side = Literal["left", "right"]
"""Which end of the channels a window begins at."""

LAYER_DIMS: Mapping[str, tuple[str, ...]] = {
    "expand.conv.weight": ("hidden", "before"),
    "expand.norm": ("hidden",),
    "depthwise.conv.weight": ("hidden",),
    "depthwise.norm": ("hidden",),
    "squeeze.reduce.weight": ("squeeze", "hidden"),
    "squeeze.reduce.bias": ("squeeze",),
    "squeeze.expand.weight": ("hidden", "squeeze"),
    "squeeze.expand.bias": ("hidden",),
    "project.conv.weight": ("channels", "hidden"),
    "project.norm": ("channels",),
}
"""What the leading dimensions of an MBConv layer's tensors count; a norm's tensors all count the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A tensor of a wide module, and where its windows go: the module of the same name in a shell.

    Attributes:
        wide: the module that holds the tensor.
        shell: the module that shall hold a window of it.
        name: of the tensor in both.
        is_parameter: else it is a buffer.
        dims: what its leading dimensions count.
    """

    wide: nn.Module
    shell: nn.Module
    name: str
    is_parameter: bool
    dims: tuple[str, ...]


def span(full: int, size: int, side: Side) -> slice:
    """The first or the last `size` of `full` channels."""
    return slice(0, size) if side == "left" else slice(full - size, full)


def find_places(wide: nn.Module, shell: nn.Module, dims: Mapping[str, tuple[str, ...]]) -> list[Place]:
    """The tensors of a module and of its shell, with what `dims` says of each tensor or of its module."""
    places = []
    for path, module in wide.named_modules():
        for tensors, is_parameter in ((module._parameters, True), (module._buffers, False)):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                counted = dims.get(f"{path}.{name}".lstrip("."), dims.get(path, ()))
                places.append(
                    Place(module, shell.get_submodule(path), name, is_parameter, counted if tensor.ndim else ())
                )
    return places


def open_windows(places: list[Place], sizes: Mapping[str, int], side: Side) -> list[Window]:
    """Put windows of the wide modules' tensors into their shells.

    Args:
        places: of `find_places`.
        sizes: how many channels each kind of dimension has now.
        side: which end they are taken from.

    Returns:
        Those of parameters.
    """
    windows = []
    for place in places:
        tensor = getattr(place.wide, place.name)
        index = tuple(span(tensor.shape[d], sizes[kind], side) for d, kind in enumerate(place.dims))
        view = tensor.detach()[index]
        if place.is_parameter:
            view.requires_grad_()
            place.shell._parameters[place.name] = view
            windows.append(Window(tensor, index, view))
        else:
            place.shell._buffers[place.name] = view
    return windows


def layer_sizes(before: int, layer: Layer) -> dict[str, int]:
    """What the dimensions of an MBConv layer's tensors count; see `LAYER_DIMS`."""
    return {"before": before, "hidden": layer.hidden, "squeeze": layer.squeeze, "channels": layer.channels}
