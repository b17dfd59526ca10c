"""Elastic layers: narrow layers whose weights are slices of wide layers' weights.

A narrow layer's weights are a window of the wide layer's: the first or the last channels along each dimension, so that
every channel is trained as often from the left as from the right (bilateral coupling, as in BCNet, CVPR 2021). A window
is a view: nothing is copied, the gradient has the window's size, and what an optimiser writes into the window is
written into the wide layer.
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
"""The end of the channels at which a window begins."""

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
"""What the leading dimensions of an MBConv layer's tensors count; all tensors of a norm count the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A tensor of a wide module, and the place of its windows: the module of the same name in a shell.

    Attributes:
        wide: the module that holds the tensor.
        shell: the module that is to hold a window of it.
        name: the tensor's name in both modules.
        is_parameter: whether the tensor is a parameter; else it is a buffer.
        dims: what the tensor's leading dimensions count.
    """

    wide: nn.Module
    shell: nn.Module
    name: str
    is_parameter: bool
    dims: tuple[str, ...]


def span(full: int, size: int, side: Side) -> slice:
    """Select the first or the last `size` of `full` channels."""
    return slice(0, size) if side == "left" else slice(full - size, full)


def find_places(wide: nn.Module, shell: nn.Module, dims: Mapping[str, tuple[str, ...]]) -> list[Place]:
    """List the tensors of a module and their places in its shell.

    Args:
        wide: the module with the tensors.
        shell: a module of the same structure, to hold windows of them.
        dims: what the leading dimensions of a tensor count, by the tensor's name or its module's name.
    """
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
        places: the places that `find_places` found.
        sizes: the number of channels that each kind of dimension has now.
        side: the end of the channels at which the windows begin.

    Returns:
        The windows of parameters.
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
    """The size of each kind of dimension of an MBConv layer's tensors; see `LAYER_DIMS`."""
    return {"before": before, "hidden": layer.hidden, "squeeze": layer.squeeze, "channels": layer.channels}
