"""What takes the most time in many tests and always gives the same, done once: traces by torch, drawings of curves."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from scalenet_zoo.core.files import replacing

IRRELEVANT = {"_parameters", "_buffers", "_modules", "training", "inplace", "pretrained_cfg", "default_cfg"}
"""Attributes of modules: those that are looked at otherwise, and those that a graph does not depend on."""


@contextmanager
def _instead_of(function: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Put another function in its place in each module of the package that has it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("scalenet_zoo.") and vars(module).get(function.__name__) is function:
                patch.setattr(module, function.__name__, other)
        yield


@contextmanager
def traced_once(folder: Path) -> Iterator[None]:
    """Let `trace_graph` give what it gave before for the same arguments, in this process or another one.

    Args:
        folder: of the graphs, shared by processes.
    """
    from scalenet_zoo.export.graph import trace_graph

    def once(module: nn.Module, images: torch.Tensor, output_name: str = "output", batch: Any = None) -> Any:
        if any("<locals>" in type(part).__qualname__ for part in module.modules()):  # a class of a test, of any code
            return trace_graph(module, images, output_name, batch)
        path = folder / _key(module, images, output_name, batch)
        if not path.exists():
            graph = trace_graph(module, images, output_name, batch)
            with replacing(path) as temporary:
                onnx.save(graph, temporary)
        return onnx.load(path)

    with _instead_of(trace_graph, once):
        yield


def _key(module: nn.Module, images: torch.Tensor, output_name: str, batch: Any) -> str:
    """Of all that a graph depends on: classes, settings and weights of the module, and how it is called."""
    digest = hashlib.sha256(repr((images.shape, images.dtype, output_name)).encode())
    digest.update(repr(batch and (batch.min, batch.max)).encode())
    for name, part in module.named_modules():
        values = {key: value for key, value in vars(part).items() if key not in IRRELEVANT}
        spec = values.pop("spec", None)  # whose name and origin make no difference
        digest.update(repr((name, type(part), spec and spec.hash, sorted(values.items()))).encode())
    for name, tensor in module.state_dict(keep_vars=True).items():
        digest.update(repr((name, tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def drawn_once() -> Iterator[None]:
    """Let `plot_curves` draw one training of each kind; of the others it writes an empty picture."""
    from scalenet_zoo.training.log import plot_curves, read_log

    drawn: set[str] = set()

    def once(run: Path, metric: str) -> Path:
        if metric not in drawn:
            drawn.add(metric)
            return plot_curves(run, metric)
        read_log(run)
        with replacing(run / "curves.png") as temporary:
            temporary.touch()
        return run / "curves.png"

    with _instead_of(plot_curves, once):
        yield
