"""Names of data sets, `KIND:PATH` or `KIND:NAME`: parse and check them before torch is imported."""

import os
from collections.abc import Mapping
from pathlib import Path

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import is_folder, user_path

FORMS: Mapping[Task, tuple[str, ...]] = {
    "classification": (
        "digits", "imagefolder:PATH", "torch:NAME:PATH", "wds:PATH", "hfds:NAME", "hfids:NAME", "tfds:NAME"
    ),
    "segmentation": ("masks:PATH", "cityscapes:PATH"),
    "pose": ("coco:PATH",),
}  # fmt: skip
"""The forms of sources for each task; a folder without a kind stands for the first form with a path."""

_ON_DISK = ("imagefolder", "torch", "masks", "cityscapes", "coco")
"""Kinds whose path must exist; the path of `wds` may be an address or a pattern for several files."""


def parse_source(source: str, task: Task | None = None) -> tuple[str, str]:
    """Split a source into its kind and its path or name, in which `~` becomes the home folder.

    Args:
        source: a source as for `open_data`.
        task: the task that the data are for; None: any.

    Raises:
        InputError: the source has none of the known forms.
    """
    forms = FORMS[task] if task else [form for each in FORMS.values() for form in each]
    kinds = [form.partition(":")[0] for form in forms]
    kind, _, rest = source.partition(":")
    known = kind in kinds and (kind != "digits") == bool(rest) and (kind != "torch" or ":" in rest[:-1])
    if not known and is_folder(user_path(source)):
        kind, rest = next(kind for kind, form in zip(kinds, forms, strict=True) if form.endswith(":PATH")), source
    elif not known:
        raise InputError(
            f"{source}: found no such data{f' for {task}' if task else ''}, expected a folder or {' or '.join(forms)}"
        )
    name, colon, path = rest.partition(":") if kind == "torch" else ("", "", rest)
    return kind, f"{name}{colon}{user_path(path)}" if path.startswith("~") else rest


def check_source(source: str, task: Task | None = None) -> None:
    """Check that a source has a known form and that its path exists.

    Args:
        source: a source as for `open_data`.
        task: the task that the data are for; None: any.

    Raises:
        InputError: the source has none of the known forms, or its path does not exist.
    """
    kind, rest = parse_source(source, task)
    path = Path(rest.partition(":")[2] if kind == "torch" else rest)
    if kind in _ON_DISK and not os.path.exists(path):  # noqa: PTH110 - Path raises for names that are too long
        raise InputError(f"{source}: found nothing at {path}, expected a folder with data")
