"""Scores: the accuracy that a supernet's weights give a network, batch-norm statistics estimated anew.

    candidate --extract--> both coupled paths --batch norm of training images--> validation images --> accuracy
                                                                                                          |
    scores.jsonl, one line a network: what was scored once costs nothing any more <-----------------------+

The paths take channels from the left and from the right end of the supernet's; the sum of their logits is judged
(ScaleNet, ECCV 2022, section 3.2, after BCNet, CVPR 2021). Networks are extracted, so the supernet stays as it is.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Protocol, TypeVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec, Strict, Task, spec_errors
from scalenet_zoo.core.bounds import QUOTED_CHARACTERS
from scalenet_zoo.core.distributed import on_all_ranks, on_main_rank, rank_and_world
from scalenet_zoo.core.errors import OutputError, SpecError, TrainingError
from scalenet_zoo.core.files import read_json_lines, replacing
from scalenet_zoo.core.quoting import elide
from scalenet_zoo.data.examples import Examples, Part
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.inference.predict import check_finite
from scalenet_zoo.search.images import CachedImages, cached_images, check_data
from scalenet_zoo.search.scalenet.state import first_difference
from scalenet_zoo.search.settings import ScoringSettings, SharedSettings
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.supernet.batch_norm import fold_batch_norm, reestimate_batch_norm
from scalenet_zoo.zoo.preparation import pretrained_cfg

if TYPE_CHECKING:
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.spaces.scalenet import Space
    from scalenet_zoo.spaces.space_file import SpaceFile
    from scalenet_zoo.supernet.elastic import Side

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Supernet(Protocol):
    """What networks are extracted from: `supernet.scalenet.ScaleNetSupernet`."""

    @property
    def space(self) -> "Space": ...  # noqa: D102
    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def in_channels(self) -> int: ...  # noqa: D102

    def extract(self, spec: ArchSpec, side: "Side" = "left") -> nn.Module:
        """A stand-alone network with copies of the weights that `spec` has there."""
        ...


class CoupledPaths(nn.Module):
    """Networks whose logits are added."""

    def __init__(self, paths: Sequence[nn.Module]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> logits (n, classes)."""
        total: Tensor = self.paths[0](x)
        for path in self.paths[1:]:
            total = total + path(x)
        return total


class Calibrated:
    """A network with batch-norm statistics of training images, ready for images as bytes.

    Args:
        network: on its device; its statistics are estimated anew.
        spec: of the network.
        training: images for the statistics.
        settings: size of batches, type.
        fold: whether batch norms become part of the convolutions, which is faster.

    Attributes:
        device: that it computes on.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ArchSpec,
        training: CachedImages,
        settings: SharedSettings,
        fold: bool = True,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).eval()
        self.device = next(network.parameters()).device
        self.dtype = DTYPES.get(settings.amp)
        self.mean, self.std = (
            255 * torch.tensor(values, device=self.device)[:, None, None]
            for values in normalisation(spec, pretrained_cfg(spec))
        )
        parts = -(-len(training) // settings.batch_size)
        with self._computing():  # every so many images: data lie sorted by class, and a batch should have them all
            reestimate_batch_norm(network, (self._ready(training.images[part::parts]) for part in range(parts)))
            if fold:
                fold_batch_norm(network)

    def __call__(self, images: Tensor) -> Tensor:
        """What the network gives for images, uint8 (n, channels, height, width)."""
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


def score_network(
    supernet: Supernet, spec: ArchSpec, training: CachedImages, validation: CachedImages, settings: ScoringSettings
) -> float:
    """The accuracy, 0 to 1, of a network with a supernet's weights.

    Args:
        supernet: stays as it is.
        spec: of the network.
        training: images that its batch-norm statistics are estimated from.
        validation: images that it is judged by.
        settings: paths, size of batches, type; not how many images.

    Raises:
        WeightsError: outputs are not finite.
    """
    paths = CoupledPaths([supernet.extract(spec, side) for side in _sides(settings)])
    network = Calibrated(paths, spec, training, settings)
    correct = torch.zeros((), dtype=torch.int64, device=network.device)
    finite = torch.ones((), dtype=torch.bool, device=network.device)
    for images, targets in validation.batches(settings.batch_size):
        logits = network(images)
        finite &= logits.isfinite().all()
        correct += (logits.argmax(1) == targets.to(network.device, non_blocking=True)).sum()
    check_finite(spec, bool(finite))
    return int(correct) / len(validation)


def validation_images(validation: Examples, settings: SharedSettings) -> Examples:
    """Those that networks are judged by."""
    return validation if settings.val_images is None else Part(validation, settings.val_images)


class Score(Strict):
    """A network's score: a line of `scores.jsonl`.

    Attributes:
        network: the hash of its architecture, or its key in the space.
        resolution: pixels of its input's height.
        score: accuracy, or another figure of 0 to 1.
    """

    network: str
    resolution: int
    score: Annotated[float, Field(ge=0, le=1)]

    @property
    def key(self) -> tuple[str, int]:
        """Network and resolution."""
        return self.network, self.resolution


class Scored(Strict):
    """What scores depend on: the first line of `scores.jsonl`.

    Attributes:
        supernet: identity of its weights.
        space: its hash.
        training: source, split and number of the images.
        validation: the same.
        settings: how networks are scored.
    """

    format: Literal["scalenet-zoo/scores"] = "scalenet-zoo/scores"
    version: Literal[1] = 1
    supernet: str
    space: str
    training: tuple[str, str, int]
    validation: tuple[str, str, int]
    settings: dict[str, JsonValue]


class AnyShared(Protocol):
    """What all supernets have."""

    @property
    def space(self) -> "SpaceFile": ...  # noqa: D102


AnySupernet = TypeVar("AnySupernet", bound=AnyShared)
AnySettings = TypeVar("AnySettings", bound=SharedSettings)
Line = TypeVar("Line", bound=Strict)


class BaseScorer(ABC, Generic[AnySupernet, AnySettings]):
    """What scorers have in common: images kept on disk, scores kept on disk, work divided among processes.

    Processes of torch.distributed share the work: each calls `score` with the same networks, and gets all scores.

    Args:
        supernet: trained, on the device to compute on.
        training: images for batch-norm statistics.
        validation: images to judge by.
        settings: how.
        folder: that keeps scores (`scores.jsonl`) and images (`images`).
        identity: says which weights the supernet has: a hash of them, say.
        workers: processes that read images.
        broken_limit: images of a split that may be unreadable.
        on_progress: told of every network.

    Attributes:
        seconds: spent scoring, in this sitting.

    Raises:
        InputError: the data are unfit.
        TrainingError: the folder holds scores of other weights, data or settings.
        OutputError: the folder cannot be written.
    """

    @property
    def task(self) -> Task:
        """Of the networks."""
        return "classification"

    def __init__(
        self,
        supernet: AnySupernet,
        training: Examples,
        validation: Examples,
        settings: AnySettings,
        folder: Path,
        identity: str,
        workers: int = 0,
        broken_limit: int = 100,
        on_progress: "OnProgress" = lambda what, done, total: None,
    ) -> None:
        self.supernet, self.settings, self.folder = supernet, settings, folder
        training, validation = check_data(training, validation, task=self.task)
        self.training = Part(training, settings.bn_images)
        self.validation = validation_images(validation, settings)
        self.workers, self.broken_limit, self.on_progress = workers, broken_limit, on_progress
        self.path = folder / "scores.jsonl"
        about = Scored(
            supernet=identity,
            space=supernet.space.hash,
            training=(training.source, training.split, len(training)),
            validation=(validation.source, validation.split, len(validation)),
            settings=settings.model_dump(mode="json"),
        )
        self.scores = {score.key: score.score for score in on_main_rank(lambda: open_scores(self.path, about))}
        self.seconds = 0.0
        self._sets: dict[int, tuple[CachedImages, CachedImages]] = {}

    @abstractmethod
    def _judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        """The score of a network."""

    def _score_new(self, networks: Mapping[tuple[str, int], ArchSpec]) -> None:
        """Score networks by turns of one a process; sorted by cost, those of a turn take about as long."""
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
        return Score(network=name, resolution=resolution, score=self._judge(spec, *sets[rank]))

    def _prepared(self, spec: ArchSpec) -> tuple[CachedImages, CachedImages]:
        """Training and validation images of a network's resolution; the first process writes them."""
        if spec.input.height not in self._sets:
            on_main_rank(lambda: bool(self._read(spec)))
            self._sets[spec.input.height] = self._read(spec)
        return self._sets[spec.input.height]

    def _read(self, spec: ArchSpec) -> tuple[CachedImages, CachedImages]:
        training, validation = (
            cached_images(examples, spec, self.folder / "images", self.workers, self.broken_limit)
            for examples in (self.training, self.validation)
        )
        return training, validation


class SupernetScorer(BaseScorer[Supernet, ScoringSettings]):
    """Scores candidates by a super-supernet; see `search.candidates.Scorer`, and `BaseScorer` for the arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of the base
        super().__init__(*arguments, **options)
        self._keys: dict[str, tuple[str, int]] = {}

    @property
    def images_each(self) -> int:
        """Images that pass forward to score one network."""
        return len(_sides(self.settings)) * (len(self.training) + len(self.validation))

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """Accuracy, 0 to 1, of each.

        Raises:
            InputError: too many images are broken.
            WeightsError: outputs are not finite.
            OutputError: scores or images cannot be written.
        """
        start = time.monotonic()
        new = {}
        for candidate in candidates:
            if self._keys.get(candidate.key) not in self.scores:
                spec = self._spec(candidate)
                self._keys[candidate.key] = key = spec.hash, spec.input.height
                if key not in self.scores:
                    new[key] = spec
        if new:
            self._score_new(new)
        self.seconds += time.monotonic() - start
        return [self.scores[self._keys[candidate.key]] for candidate in candidates]

    def _spec(self, candidate: Candidate) -> ArchSpec:
        supernet = self.supernet
        return supernet.space.spec(
            candidate.kernels, candidate.scaling, supernet.classes, in_channels=supernet.in_channels
        )

    def _judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        return score_network(self.supernet, spec, training, validation, self.settings)


def open_scores(path: Path, about: Scored) -> list[Score]:
    """The scores in a file, which is begun if there is none; a last line that was cut off by a kill is dropped.

    Args:
        path: the file.
        about: what the scores depend on.

    Raises:
        TrainingError: the file's scores depend on something else.
        SpecError: a line is damaged.
        OutputError: the file cannot be written.
    """
    try:
        first, *rows = (read_json_lines(path) if path.exists() else []) or [about.model_dump(mode="json")]
    except ValueError as error:
        raise SpecError(f"{path}: {error}; delete the file to score anew") from None
    found = _line(path, 1, Scored, first)
    if difference := first_difference(found.model_dump(mode="json"), about.model_dump(mode="json")):
        name, theirs, ours = difference
        raise TrainingError(
            f"{path}: {name}: found scores for {_told(theirs)}, expected {_told(ours)}; delete the file to score anew"
        )
    scores = [_line(path, number, Score, row) for number, row in enumerate(rows, 2)]
    whole = "".join(f"{line.model_dump_json()}\n" for line in (found, *scores))
    if not path.exists() or path.read_bytes() != whole.encode():  # what is added begins on a line of its own
        with replacing(path) as temporary:
            temporary.write_text(whole, encoding="utf-8")
    return scores


def _told(value: object) -> str:
    return elide(json.dumps(value), QUOTED_CHARACTERS)


def _line(path: Path, number: int, kind: type[Line], row: dict[str, Any]) -> Line:
    with spec_errors(f"{path}: line {number}"):
        return kind.model_validate_json(json.dumps(row))


def append_scores(path: Path, scores: Sequence[Score]) -> None:
    """Add lines to a file.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(score.model_dump_json() + "\n" for score in scores)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _sides(settings: ScoringSettings) -> "tuple[Side, ...]":
    return ("left", "right") if settings.paths == "both" else ("left",)
