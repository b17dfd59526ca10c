"""Images of the data set that a network was trained on, for the check of its exports."""

from collections.abc import Sequence
from pathlib import Path

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import ZooError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import read_json
from scalenet_zoo.data.digits import SOURCE as DIGITS
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.training.log import RUN_FILE

_MOST = 16
"""Images per check."""


def data_images(model: object, spec: ArchSpec, folder: Path) -> Sequence[Path]:
    """Write some validation images of a trained network to a folder, as files for the check of an export.

    The folder of a training run names its data; of other networks only those that were trained on `digits`, which is
    part of scikit-learn, can be found.

    Args:
        model: what the user named: the folder of a run, its `best`, or anything else.
        spec: the spec of the network.
        folder: an existing folder for the files.

    Returns:
        The files, up to `_MOST`; empty: the data are unknown, or are no longer where they were.
    """
    found = _recorded(model) or _stated(spec)
    if found is None:
        return []
    source, split = found
    try:
        examples = open_data(source, spec.task, split, limit=None)
        if isinstance(examples, Stream) or not len(examples):
            return []
        paths = []
        for number in range(min(_MOST, len(examples))):
            index = number * len(examples) // min(_MOST, len(examples))
            path = folder / f"{split}_{index}.png"
            examples.read(index)[0].save(path)
            paths.append(path)
    except ZooError:
        return []
    return paths


def _recorded(model: object) -> tuple[str, str] | None:
    """Read source and split of the validation images from the folder of a run; None: it is no such folder."""
    if not isinstance(model, str | Path):
        return None
    folder = user_path(model)
    path = next((each / RUN_FILE for each in (folder, folder.parent) if (each / RUN_FILE).is_file()), None)
    if path is None or not folder.is_dir():
        return None
    try:
        facts = read_json(path)
    except ValueError:
        return None
    stated = facts.get("validation") if isinstance(facts, dict) else None
    match stated:
        case [str(source), str(split), *_]:
            return source, split
    return None


def _stated(spec: ArchSpec) -> tuple[str, str] | None:
    training = spec.provenance.details.get("training")
    is_digits = isinstance(training, dict) and training.get("data") == DIGITS
    return (DIGITS, "val") if is_digits else None
