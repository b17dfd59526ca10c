"""Streams: data sets for classification that timm reads in an order of their own, such as webdataset's."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from timm.data import IterableImageDataset, create_dataset

from scalenet_zoo.arch.labels import Labels, class_labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.documents import first_complaint
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_json
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.data.examples import check_class, find_split, known_classes
from scalenet_zoo.data.image_files import as_rgb, without_ghostscript
from scalenet_zoo.data.image_names import image_suffixes
from scalenet_zoo.data.libraries import one_line, require_package


@dataclass(frozen=True)
class Stream:
    """Images in an order of their own: timm's iterable data sets, which divide themselves among processes.

    Attributes:
        task, labels, source, split: as in `Examples`.
        name: timm's name of the data set.
        root: its folder; None: it has none.
        images: the number of images in its description; None: the description does not say.
    """

    source: str
    split: str
    labels: Labels
    name: str
    root: str | None
    images: int | None = None
    task: Task = "classification"

    @property
    def complaint(self) -> str:
        """The message for a stream without any usable image."""
        expected = "some, as 1.png with the number of its class in 1.cls" if self.name.startswith("wds/") else "some"
        return f"{self.source}: found no images with classes in the split {self.split}, expected {expected}"

    def dataset(self, classes: int, training: bool = False, batch_size: int = 1, seed: int = 0) -> "StreamSet":
        """Return timm's data set for one loader.

        Args:
            classes: the number of classes of the network.
            training: whether the loader is for training.
            batch_size: images per batch.
            seed: the seed of the order in training.
        """
        classes = known_classes(self.labels, classes)
        return StreamSet(self.reader(training, batch_size, seed), self.source, classes, training)

    def reader(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:  # noqa: ANN401
        """Return timm's reader of the data set; arguments as for `dataset`."""
        kwargs: dict[str, Any] = {} if self.name.startswith("tfds/") else {"input_img_mode": ""}  # images unchanged
        if self.name.startswith("wds/"):
            kwargs["input_key"] = ";".join(sorted(suffix[1:] for suffix in image_suffixes()))
        return create_dataset(
            self.name, self.root, self.split, is_training=training, batch_size=batch_size, seed=seed, **kwargs
        ).reader


class StreamSet(IterableImageDataset):  # type: ignore[misc] # timm's has no types
    """The images of a stream with their classes, and the reasons why broken images cannot be used.

    Args:
        reader: timm's reader.
        source: the name of the stream in messages.
        classes: the number of classes.
        training: whether broken images are reported with the next usable image; otherwise each is a row of its own.
    """

    def __init__(self, reader: Any, source: str, classes: int, training: bool) -> None:  # noqa: ANN401
        super().__init__(None, reader=reader)
        self._source, self._classes, self._training = source, classes, training

    def __iter__(self) -> Iterator[Any]:
        """Yield rows like those of `loaders.TrainingSet` or `loaders.EvaluationSet`.

        Raises:
            LoadingError: a target is not the number of a class.
        """
        with without_ghostscript():  # libraries open images of all formats
            yield from self._rows()

    def _rows(self) -> Iterator[Any]:
        broken: list[str] = []
        for place, (image, target) in enumerate(self.reader):
            name = f"{self._source}: image {place} of its process"
            check_class(target, self._classes, name)
            try:
                image = as_rgb(image, name)
            except InputError as error:
                if self._training:
                    broken.append(str(error))
                else:
                    yield str(error)
                continue
            yield self.transform(image), target, broken
            broken = []


def open_stream(source: str, kind: str, rest: str, split: str) -> Stream:
    """Open an iterable data set with timm: `wds` (webdataset), `hfids` (Hugging Face) or `tfds` (TensorFlow).

    Args:
        source: the data set, as the user named it.
        kind: `wds`, `hfids` or `tfds`.
        rest: its path or name.
        split: the split to open.

    Raises:
        InputError: it cannot be opened, or files are missing.
    """
    require_package(kind, source)
    name, root = ("wds/", rest) if kind == "wds" else (f"{kind}/{rest}", None)
    on_disk = kind == "wds" and "://" not in rest
    if on_disk:
        split = _described_split(source, Path(rest), split)
    stream = Stream(source, split, Labels(), name, root)
    try:
        reader = stream.reader()
    except (OSError, ValueError, RuntimeError, AssertionError, LookupError, TypeError, AttributeError) as error:
        if "Dataset length is unknown" in str(error):
            raise InputError(
                f"{source}: found no number of images for the split {split} in its description, expected num_examples"
                " (dataset_info in its README.md); hfds: does not need it"
            ) from None
        raise InputError(f"{source}: cannot be opened: {one_line(error)}") from None
    names = list(reader.class_to_idx)
    if kind == "wds":
        names = _described_classes(source, reader.info)
    for file in reader.split_info.filenames if on_disk else ():
        if not Path(rest, file).is_file():  # webdataset would skip it silently
            raise InputError(f"{Path(rest, file)}: found no such file, expected a part of {source}")
    return replace(stream, labels=class_labels(source, names), images=getattr(reader, "num_samples", None) or None)


class _Shards(BaseModel):
    """A split in a webdataset's description; other fields are ignored."""

    name: StrictStr
    num_samples: Annotated[StrictInt, Field(ge=1)]
    filenames: Annotated[list[StrictStr], Field(min_length=1)]
    shard_lengths: list[StrictInt]
    alt_label: StrictStr = ""


def _described_split(source: str, folder: Path, split: str) -> str:
    """Return the name of a split in a webdataset's description, after checking it; a pattern of files stays as it is.

    Raises:
        InputError: there is no such folder, description or split, or the description is not valid for timm's reader.
    """
    if not folder.is_dir():
        raise InputError(f"{source}: found no folder {folder}, expected one with tar files and _info.json")
    is_pattern = "tar" in split or ".." in split  # the same rule as in timm
    path = next((path for path in (folder / "_info.json", folder / "info.json") if path.exists()), None)
    if path is None:
        if is_pattern:
            return split
        raise InputError(f"{source}: found no _info.json, expected one that describes the splits")
    try:
        described = read_json(path)
        splits = described.get("splits", {}) if isinstance(described, dict) else None
        if not isinstance(splits, dict):
            raise ValueError(
                f"splits: found {quoted(described if splits is None else splits)}, expected splits by name"
            )
        if is_pattern:
            return split
        split = find_split(split, splits, source)
        if not isinstance(splits[split], dict):
            raise ValueError(f"splits.{split}: found {quoted(splits[split])}, expected fields with values")
        _Shards.model_validate(splits[split])
    except ValidationError as error:
        raise InputError(f"{path}: splits.{split}: {first_complaint(error)}") from None
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    return split


def _described_classes(source: str, info: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return the names of the classes in a webdataset's `_info.json`: a list, numbers by name, or names by number.

    Raises:
        InputError: the field has none of these forms.
    """
    said: Any = next((info[field] for field in ("class_names", "classes", "class_to_idx") if info.get(field)), [])
    if isinstance(said, dict):
        pairs = said.items() if all(isinstance(value, int) for value in said.values()) else map(reversed, said.items())
        try:
            numbered = {int(number): name for name, number in pairs}
        except (TypeError, ValueError):
            numbered = {}
        said = [numbered.get(number) for number in range(len(said))]
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise InputError(f"{source}: classes: found {quoted(said)} in _info.json, expected one name per number")
    return said
