"""scalenet-zoo: searched network families, from a budget to a PyTorch network, an ONNX file and an engine.

Importing the package is cheap: it imports torch only when something that needs torch is first used. Once both this
package and timm are imported, in either order, `timm.create_model` knows the zoo's names.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from scalenet_zoo.core.import_hook import when_imported
from scalenet_zoo.core.version import __version__ as __version__

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec as ArchSpec
    from scalenet_zoo.budgets import build as build
    from scalenet_zoo.export.formats import export_model as export_model
    from scalenet_zoo.latency.benchmark import benchmark as benchmark
    from scalenet_zoo.latency.comparison.compare import compare as compare
    from scalenet_zoo.models.evaluation import evaluate as evaluate
    from scalenet_zoo.models.prediction import predict as predict
    from scalenet_zoo.search.run_search import run_search as run_search
    from scalenet_zoo.training.fit import fit as fit
    from scalenet_zoo.zoo.catalog import list_models as list_models
    from scalenet_zoo.zoo.catalog import load_family as load_family
    from scalenet_zoo.zoo.create import create_model as create_model
    from scalenet_zoo.zoo.inherit import inherit as inherit
    from scalenet_zoo.zoo.publish import pull as pull
    from scalenet_zoo.zoo.publish import push as push
    from scalenet_zoo.zoo.sources import load_spec as load_spec

_HOMES = {
    "ArchSpec": "arch.spec",
    "benchmark": "latency.benchmark",
    "build": "budgets",
    "compare": "latency.comparison.compare",
    "create_model": "zoo.create",
    "evaluate": "models.evaluation",
    "export_model": "export.formats",
    "fit": "training.fit",
    "inherit": "zoo.inherit",
    "list_models": "zoo.catalog",
    "load_family": "zoo.catalog",
    "load_spec": "zoo.sources",
    "predict": "models.prediction",
    "pull": "zoo.publish",
    "push": "zoo.publish",
    "run_search": "search.run_search",
}
__all__ = [
    "ArchSpec",
    "__version__",
    "benchmark",
    "build",
    "compare",
    "create_model",
    "evaluate",
    "export_model",
    "fit",
    "inherit",
    "list_models",
    "load_family",
    "load_spec",
    "predict",
    "pull",
    "push",
    "run_search",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_with_timm() -> None:
    from scalenet_zoo.zoo import timm_registry

    timm_registry.register()


when_imported("timm", _register_with_timm)
