"""The entries and families of the zoo, which come with the package, by name. Nothing here needs torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import BudgetError, ModelNotFoundError, SpecError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.zoo.published import is_tagged, published_entries

FAMILIES: Mapping[Task, tuple[str, ...]] = {
    "classification": ("scalenet", "efficientnet", "efficientnet_lite"),
    "segmentation": ("scalenas", "hrnet"),
    "pose": ("scalenas", "hrnet", "higherscalenas", "higherhrnet"),
}
"""Families for each task, the default first; the names of entries for dense tasks begin with the family's name."""


@dataclass(frozen=True)
class Entries:
    """Entries of the zoo for a dense task, among which a budget chooses; see `find_networks`.

    Attributes:
        name: the name of this set of entries, for messages and files.
        specs: the specs of the entries, those with the fewest MACs first.
    """

    name: str
    specs: tuple[ArchSpec, ...]


@cache
def _paths() -> dict[str, Path]:
    root = Path(str(files("scalenet_zoo.searched_archs")))
    return {path.name.removesuffix(".json"): path for path in sorted(root.glob("*/*.json"))}


@cache
def _entry(name: str) -> ArchSpec:
    return ArchSpec.load(_paths()[name])


def is_entry(name: str) -> bool:
    """Return whether an entry has this name; NAME.TAG is a name if the entry has published weights with this tag."""
    return (name in _paths() and not name.endswith(".family")) or is_tagged(name)


def find_entry(name: str) -> ArchSpec | None:
    """Return the entry with a name, which may be NAME.TAG; None: there is no such entry. Its file is read only once."""
    if is_tagged(name):
        return _entry(name.partition(".")[0]).replace(name=name)
    return _entry(name) if is_entry(name) else None


def list_models(pattern: str = "*", task: Task | None = None, pretrained: bool = False) -> list[str]:
    """Return the sorted names of the zoo's entries.

    Args:
        pattern: a shell pattern, such as `scalenet_*`.
        task: only entries for this task.
        pretrained: only entries with published weights; `published.published_entries()` lists their tags.
    """
    names = (name for name in _paths() if is_entry(name) and fnmatch(name, pattern))
    published = published_entries() if pretrained else _paths()
    return sorted(name for name in names if name in published and (task is None or _entry(name).task == task))


def load_family(name: str) -> Family:
    """Load a family: a base model and its scaling strategies.

    Args:
        name: the name of a family in the zoo, such as `scalenet`, or a family's JSON file.

    Raises:
        ModelNotFoundError: there is no such family.
        SpecError: the file is not a valid family.
    """
    path = _paths().get(f"{name}.family")
    if path is None and name.endswith(".json"):
        path = user_path(name)
    if path is None:
        expected = " or ".join((*FAMILIES["classification"], "a JSON file"))
        raise ModelNotFoundError(f"{name}: found no such family, expected {expected}")
    return Family.load(path)


def find_networks(
    task: Task,
    family: str | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
) -> Family | Entries:
    """Return the networks that a budget chooses from: a family for classification, otherwise the entries for a task.

    Args:
        task: the task of the networks.
        family: one of `FAMILIES[task]`, or for classification a family's JSON file; None: for classification the first
            family; for segmentation and pose all entries, but for pose only those that find one person in a crop.
        num_classes: number of classes or joints of the entries; None: their own.
        in_chans: channels of the image.
        img_size: height and width of the image in pixels; None: the entries' own.

    Raises:
        ModelNotFoundError: there is no such task, or it has no such family.
        BudgetError: a size is given for classification.
        SpecError: a size is not valid.
    """
    if task not in FAMILIES:
        raise ModelNotFoundError(f"{task}: found no such task, expected one of {', '.join(FAMILIES)}")
    is_file = task == "classification" and family is not None and family.endswith(".json")
    if family is not None and family not in FAMILIES[task] and not is_file:
        raise ModelNotFoundError(f"{family}: found no such family for {task}, expected {' or '.join(FAMILIES[task])}")
    if task == "classification":
        if img_size is not None:
            raise BudgetError(f"img_size: found {img_size}, expected none: the budget sets a classifier's image size")
        return load_family(family or FAMILIES[task][0])
    height, width = height_and_width(img_size)
    chosen = (
        spec.replace(classes=num_classes, channels=in_chans, height=height, width=width)
        for spec in map(_entry, list_models(task=task))
        if (spec.name.startswith(family) if family else not spec.bottom_up)
    )
    name = "-".join(filter(None, (family, task, f"{height}x{width}" if height else None)))
    return Entries(name, tuple(sorted(chosen, key=lambda spec: spec.cost.macs)))


def latency_name(networks: Family | Entries) -> str:
    """Return the name for stored latency models: the networks' name, with a hash if a family is not in the zoo."""
    if isinstance(networks, Entries):
        return networks.name
    if networks.name in FAMILIES["classification"] and networks == load_family(networks.name):
        return networks.name
    return f"{networks.name[:80]}-{hashlib.sha256(networks.model_dump_json().encode()).hexdigest()[:12]}"


def height_and_width(img_size: int | Sequence[int] | None) -> tuple[int | None, int | None]:
    """Return the height and the width of an image in pixels, from one number or two; None: not given.

    Raises:
        SpecError: there are neither one nor two numbers.
    """
    if img_size is None or isinstance(img_size, int | str) or not hasattr(img_size, "__len__"):
        return img_size, img_size  # type: ignore[return-value] # a number, or what the spec refuses
    size = tuple(img_size)
    if len(size) != 2:
        raise SpecError(f"img_size: found {quoted(img_size)}, expected a number of pixels, or height and width")
    return size[0], size[1]
