"""scalenet-zoo: searched network families, from a budget to a PyTorch network and an ONNX file.

Importing the package is cheap: torch is imported when something that needs it is first used. Once
both this package and timm are imported, in either order, `timm.create_model` knows the zoo's names.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from scalenet_zoo.core.import_hook import when_imported
from scalenet_zoo.core.version import __version__ as __version__

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec as ArchSpec
    from scalenet_zoo.budgets import build as build
    from scalenet_zoo.zoo.catalog import list_models as list_models
    from scalenet_zoo.zoo.create import create_model as create_model
    from scalenet_zoo.zoo.sources import load_spec as load_spec

_HOMES = {
    "ArchSpec": "scalenet_zoo.arch.spec",
    "build": "scalenet_zoo.budgets",
    "create_model": "scalenet_zoo.zoo.create",
    "list_models": "scalenet_zoo.zoo.catalog",
    "load_spec": "scalenet_zoo.zoo.sources",
}
__all__ = ["ArchSpec", "build", "create_model", "list_models", "load_spec"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def _register_with_timm() -> None:
    from scalenet_zoo.zoo import timm_registry

    timm_registry.register()


when_imported("timm", _register_with_timm)
