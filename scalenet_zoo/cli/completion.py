"""What a shell completes after Tab: names of models, families, back ends, precisions, recipes and configurations.

A shell waits for each answer, so nothing here imports torch or reads the spec of an entry.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

COMMA = ","
"""Separates the values of a flag that takes several."""


def complete_model(incomplete: str) -> list[str]:
    """Complete names of the zoo's entries and, after a point, NAME.TAG of their published weights."""
    from scalenet_zoo.zoo.catalog import list_models

    if "." not in incomplete:
        return _matching(list_models(), incomplete)
    from scalenet_zoo.zoo.published import published_entries

    tagged = (f"{entry.name}.{tag}" for entry in published_entries().values() for tag in entry.tags)
    return _matching(tagged, incomplete)


def complete_family(incomplete: str) -> list[str]:
    """Complete names of families, for all tasks."""
    from scalenet_zoo.zoo.catalog import FAMILIES

    return _matching(dict.fromkeys(name for names in FAMILIES.values() for name in names), incomplete)


def complete_backend(incomplete: str) -> list[str]:
    """Complete names of back ends, whether or not they can run here."""
    from scalenet_zoo.core.backends import BACKENDS

    return _matching(BACKENDS, incomplete)


def complete_backends(incomplete: str) -> list[str]:
    """Complete the last of several back ends, separated by commas."""
    return _several(complete_backend, incomplete)


def complete_precision(incomplete: str) -> list[str]:
    """Complete precisions of weights and activations."""
    from scalenet_zoo.latency.precisions import PRECISIONS

    return _matching(PRECISIONS, incomplete)


def complete_precisions(incomplete: str) -> list[str]:
    """Complete the last of several precisions, separated by commas."""
    return _several(complete_precision, incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Complete names of the recipes that come with the package."""
    return _matching(_packaged("training", "recipes"), incomplete)


def complete_configuration(incomplete: str) -> list[str]:
    """Complete names of the search configurations that come with the package."""
    return _matching(_packaged("search", "configs"), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _several(complete: Callable[[str], list[str]], incomplete: str) -> list[str]:
    """Complete the last of several values; those before it stay, and none is offered twice."""
    before, comma, last = incomplete.rpartition(COMMA)
    given = before.split(COMMA)
    return [before + comma + name for name in complete(last) if name not in given]


def _packaged(package: str, folder: str) -> list[str]:
    """List the names of the YAML files in a folder of a package, without importing the modules that read them."""
    from importlib.resources import files

    from scalenet_zoo.core.packaged import packaged_names

    return packaged_names(Path(str(files(f"scalenet_zoo.{package}"))) / folder)
