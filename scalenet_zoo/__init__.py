"""scalenet-zoo: searched network families, from a budget to a PyTorch network and an ONNX file.

Importing the package is cheap: torch is imported when something that needs it is first used. Once
both this package and timm are imported, in either order, `timm.create_model` knows the zoo's names.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from scalenet_zoo._import_hook import when_imported

if TYPE_CHECKING:
    from scalenet_zoo.spec import ArchSpec as ArchSpec
    from scalenet_zoo.zoo import build as build
    from scalenet_zoo.zoo import create_model as create_model
    from scalenet_zoo.zoo import list_models as list_models
    from scalenet_zoo.zoo import load_spec as load_spec

__version__ = "0.1.0"

_HOMES = {
    "ArchSpec": "scalenet_zoo.spec",
    "build": "scalenet_zoo.zoo",
    "create_model": "scalenet_zoo.zoo",
    "list_models": "scalenet_zoo.zoo",
    "load_spec": "scalenet_zoo.zoo",
}
__all__ = ["ArchSpec", "build", "create_model", "list_models", "load_spec"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def _register_with_timm() -> None:
    from scalenet_zoo import _timm

    _timm.register()


when_imported("timm", _register_with_timm)
