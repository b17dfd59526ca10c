"""Scores of networks with a supernet's weights, after their batch-norm statistics are estimated again.

key --spec--> network --Method.judge: batch norm of training images--> validation images --> score
|
scores.jsonl, one line per network: a network is scored only once <-----------------------------+
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.bounds import QUOTED_CHARACTERS
from scalenet_zoo.core.distributed import on_all_ranks, on_main_rank, rank_and_world
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.errors import OutputError, SpecError, TrainingError
from scalenet_zoo.core.files import read_json_lines, replacing
from scalenet_zoo.core.quoting import elide
from scalenet_zoo.data.examples import Examples, Part
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.networks.batch_norm import fold_batch_norm, reestimate_batch_norm
from scalenet_zoo.search.images import CachedImages, cached_images, check_data
from scalenet_zoo.search.ledger import first_difference
from scalenet_zoo.search.method import Method
from scalenet_zoo.search.settings import ScoringSettings
from scalenet_zoo.zoo.interface import Interface

if TYPE_CHECKING:
    from scalenet_zoo.core.progress import OnProgress

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Calibrated:
    """A network with batch-norm statistics of training images; it takes images as bytes.

    Args:
        network: a network on its device; its batch-norm statistics are estimated again.
        spec: the network's spec.
        training: images for the statistics.
        settings: batch size and number type.
        fold: whether batch norms are folded into the convolutions, which is faster.
        interface: how images are normalised; None: as for any network of the spec.

    Attributes:
        device: the device it computes on.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ArchSpec,
        training: CachedImages,
        settings: ScoringSettings,
        fold: bool = True,
        interface: Interface | None = None,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).eval()
        self.device = next(network.parameters()).device
        self.dtype = AUTOCAST.get(settings.amp)
        self.mean, self.std = (
            255 * torch.tensor(values, device=self.device)[:, None, None]
            for values in normalisation(spec, interface or Interface.of(spec))
        )
        parts = -(-len(training) // settings.batch_size)
        with self._computing():  # strided batches: data are sorted by class, and each batch should have all classes
            reestimate_batch_norm(network, (self._ready(training.images[part::parts]) for part in range(parts)))
            if fold:
                fold_batch_norm(network)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the network's outputs for images, uint8 (n, channels, height, width)."""
        with self._computing():
            output: Tensor = self.network(self._ready(images))
        return output

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            yield

    def _ready(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
        return images.sub_(self.mean).div_(self.std)


def validation_images(validation: Examples, settings: ScoringSettings) -> Examples:
    """The validation images that networks are judged by: all of them, or `settings.val_images`."""
    return validation if settings.val_images is None else Part(validation, settings.val_images)


class Score(Strict):
    """A network's score: a line of `scores.jsonl`.

    Attributes:
        network: the hash of its architecture, or its key in the space.
        resolution: pixels of its input's height.
        score: accuracy, or another metric from 0 to 1.
    """

    network: str
    resolution: int
    score: Annotated[float, Field(ge=0, le=1)]

    @property
    def key(self) -> tuple[str, int]:
        """Network and resolution."""
        return self.network, self.resolution


class ScoredWith(Strict):
    """What scores depend on: the first line of `scores.jsonl`.

    Attributes:
        supernet: identity of the supernet's weights.
        space: hash of the space.
        training: source, split and number of the training images.
        validation: source, split and number of the validation images.
        settings: how networks are scored.
    """

    format: Literal["scalenet-zoo/scores"] = "scalenet-zoo/scores"
    version: Literal[1] = 1
    supernet: str
    space: str
    training: tuple[str, str, int]
    validation: tuple[str, str, int]
    settings: dict[str, JsonValue]


Line = TypeVar("Line", bound=Strict)


class Scorer:
    """Scores networks with a method's supernet, and keeps scores and prepared images on disk.

    Processes of torch.distributed share the work: each calls `score` with the same networks, and gets all scores.

    Args:
        method: the method that the networks belong to; its supernet is trained, and on the device to compute on.
        training: images for batch-norm statistics.
        validation: images to judge by.
        folder: the folder where scores (`scores.jsonl`) and images (`images`) are kept.
        identity: identifies the supernet's weights, such as a hash of them.
        workers: processes that read images.
        broken_limit: how many images of a split may be unreadable.
        on_progress: called for every network.

    Attributes:
        identity: as given.
        seconds: time spent scoring in this session.

    Raises:
        InputError: the data are unfit.
        TrainingError: the folder has scores of other weights, data or settings.
        SpecError: the file of scores is damaged.
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        method: Method[Any],
        training: Examples,
        validation: Examples,
        folder: Path,
        identity: str,
        workers: int = 0,
        broken_limit: int = 100,
        on_progress: "OnProgress" = lambda what, done, total: None,
    ) -> None:
        self.method, self.folder, self.identity = method, folder, identity
        settings = method.config.scoring
        training, validation = check_data(training, validation, task=method.config.task)
        self.training = Part(training, settings.bn_images)
        self.validation = validation_images(validation, settings)
        self.workers, self.broken_limit, self.on_progress = workers, broken_limit, on_progress
        self.path = folder / "scores.jsonl"
        about = ScoredWith(
            supernet=identity,
            space=method.space.hash,
            training=(training.source, training.split, len(training)),
            validation=(validation.source, validation.split, len(validation)),
            settings=settings.model_dump(mode="json"),
        )
        self.scores = {score.key: score.score for score in on_main_rank(lambda: open_scores(self.path, about))}
        self.seconds = 0.0
        self._names: dict[str, tuple[str, int]] = {}
        self._sets: dict[int, tuple[CachedImages, CachedImages]] = {}

    @property
    def images_each(self) -> int:
        """How many images pass forward to score one network."""
        return self.method.passes * (len(self.training) + len(self.validation))

    def score(self, keys: Sequence[str]) -> list[float]:
        """Score networks, 0 to 1 each.

        Raises:
            InputError: too many images are broken, or the data are unfit.
            WeightsError: a network's outputs are not finite.
            OutputError: scores or images cannot be written.
        """
        start = time.monotonic()
        new = {}
        for key in keys:
            if self._names.get(key) not in self.scores:
                name, spec = self.method.score_name(key), None
                if name is None:
                    spec = self.method.spec(key)
                    name = spec.hash, spec.input.height
                self._names[key] = name
                if name not in self.scores:
                    new[name] = spec or self.method.spec(key)
        if new:
            self._score_new(new)
        self.seconds += time.monotonic() - start
        return [self.scores[self._names[key]] for key in keys]

    def _score_new(self, networks: Mapping[tuple[str, int], ArchSpec]) -> None:
        """Score networks in turns, one network per process; sorted by cost, those of a turn take about equally long."""
        _, world = rank_and_world()
        order = sorted(networks.items(), key=lambda network: network[1].cost.macs)
        for first in range(0, len(order), world):
            self.on_progress("scoring", first, len(order))
            turn = order[first : first + world]
            sets = [self._prepared(spec) for _, spec in turn]
            scores = [score for score in on_all_ranks(partial(self._score_own, turn, sets)) if score is not None]
            on_main_rank(partial(append_scores, self.path, scores))
            self.scores |= {score.key: score.score for score in scores}
        self.on_progress("scoring", len(order), len(order))

    def _score_own(
        self, turn: Sequence[tuple[tuple[str, int], ArchSpec]], sets: Sequence[tuple[CachedImages, CachedImages]]
    ) -> Score | None:
        """Score this process's network of a turn, if it has one."""
        rank, _ = rank_and_world()
        if rank >= len(turn):
            return None
        (name, resolution), spec = turn[rank]
        return Score(network=name, resolution=resolution, score=self.method.judge(spec, *sets[rank]))

    def _prepared(self, spec: ArchSpec) -> tuple[CachedImages, CachedImages]:
        """Training and validation images at a network's resolution; the first process writes them."""
        if spec.input.height not in self._sets:
            on_main_rank(lambda: bool(self._read(spec)))
            self._sets[spec.input.height] = self._read(spec)
        return self._sets[spec.input.height]

    def _read(self, spec: ArchSpec) -> tuple[CachedImages, CachedImages]:
        training, validation = (
            cached_images(
                examples, spec, self.folder / "images", self.workers, self.broken_limit, self.method.interface(spec)
            )
            for examples in (self.training, self.validation)
        )
        return training, validation


def open_scores(path: Path, about: ScoredWith) -> list[Score]:
    """Read the scores of a file, or begin the file; a last line that was cut off by a kill is dropped.

    Args:
        path: the file.
        about: what the scores depend on.

    Raises:
        TrainingError: the scores in the file depend on other weights, data or settings.
        SpecError: a line is damaged.
        OutputError: the file cannot be written.
    """
    try:
        first, *rows = (read_json_lines(path) if path.exists() else []) or [about.model_dump(mode="json")]
    except ValueError as error:
        raise SpecError(f"{path}: {error}; delete the file to score all networks again") from None
    found = _line(path, 1, ScoredWith, first)
    if difference := first_difference(found.model_dump(mode="json"), about.model_dump(mode="json")):
        name, theirs, ours = difference
        raise TrainingError(
            f"{path}: {name}: found scores for {_told(theirs)}, expected {_told(ours)};"
            " delete the file to score all networks again"
        )
    scores = [_line(path, number, Score, row) for number, row in enumerate(rows, 2)]
    whole = "".join(f"{line.model_dump_json()}\n" for line in (found, *scores))
    if not path.exists() or path.read_bytes() != whole.encode():  # so that new scores begin on a new line
        with replacing(path) as temporary:
            temporary.write_text(whole, encoding="utf-8")
    return scores


def _told(value: object) -> str:
    return elide(json.dumps(value), QUOTED_CHARACTERS)


def _line(path: Path, number: int, kind: type[Line], row: dict[str, Any]) -> Line:
    with spec_errors(f"{path}: line {number}"):
        return kind.model_validate_json(json.dumps(row))


def append_scores(path: Path, scores: Sequence[Score]) -> None:
    """Add lines to a file of scores.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(score.model_dump_json() + "\n" for score in scores)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
