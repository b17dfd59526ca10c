"""What a search method is to the engine: everything in which one differs from another.

    configuration, labels --> Method --spec, costs, judge--> Record, Scorer, LatencyMeter --search, write--> specs

Networks go by their keys, names in the method's space. Everything else (resuming, timing, saving, scoring with a cache,
measuring and refitting latency, provenance) is done by the engine, for all methods alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.config import SearchConfig
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.supernet.loop import interface_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn

    from scalenet_zoo.arch.labels import Labels
    from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.latency.model import LatencyModel
    from scalenet_zoo.search.images import CachedImages
    from scalenet_zoo.search.ledger import ScoredNetwork
    from scalenet_zoo.search.limits import SearchBounds
    from scalenet_zoo.search.record import Record
    from scalenet_zoo.search.scoring import Calibrated
    from scalenet_zoo.supernet.summary import SupernetSummary
    from scalenet_zoo.training.loop import LoopOptions
    from scalenet_zoo.zoo.interface import Interface

AnyConfig = TypeVar("AnyConfig", bound=SearchConfig)


@dataclass(frozen=True)
class Origin:
    """Where the networks of a search come from, for their specs.

    Attributes:
        provenance: of all of them.
        results: measured of one.
    """

    provenance: Provenance
    results: Callable[[ScoredNetwork], tuple[Result, ...]]


@dataclass(frozen=True)
class Written:
    """What a search has written, and how it is told.

    Attributes:
        paths: files and folders.
        columns: of a table of its networks.
        rows: of the table, a network each.
        values: the same as JSON.
    """

    paths: Sequence[Path]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


class Method(ABC, Generic[AnyConfig]):
    """A way to search, for data with these labels.

    Args:
        config: what is asked for.
        labels: of the data.

    Attributes:
        name: of the method, as a configuration has it.
        searches: the method's own, and those that it is compared with, each with what provenance says of it.
        paper: that describes it.
        may_change: fields of the configuration that what was done does not depend on.
        ledger: what its searches write.
    """

    name: ClassVar[str]
    searches: ClassVar[Mapping[str, str]]
    paper: ClassVar[str]
    may_change: ClassVar[tuple[str, ...]] = ("baselines",)
    ledger: ClassVar[type[Ledger]] = Ledger

    def __init__(self, config: AnyConfig, labels: Labels) -> None:
        self.config, self.labels, self.space = config, labels, config.open_space()
        self.classes = len(labels.names)
        self._interface: Interface | None = None

    # --- its networks --------------------------------------------------------------------------------

    @abstractmethod
    def spec(self, key: str, name: str = "candidate") -> ArchSpec:
        """A network of the space."""

    def score_name(self, key: str) -> tuple[str, int] | None:
        """The name, with the resolution, that a network's score is kept under.

        None stands for the hash of its spec: two keys of the same network share a score.
        """
        return None

    @property
    @abstractmethod
    def largest(self) -> ArchSpec:
        """The largest network, with the images that networks are judged by in any case."""

    @property
    @abstractmethod
    def yardstick(self) -> ArchSpec:
        """A network that is always the same, and takes little time."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> ArchSpec:
        """Any network of the space."""

    @property
    def divisor(self) -> int:
        """What channels of the space's networks are multiples of."""
        return 1

    @abstractmethod
    def bounds(self, model: LatencyModel | None = None) -> SearchBounds:
        """What networks cost and may cost, latency as a model predicts it.

        Raises:
            BudgetError: the limits cannot be kept by any network of the space.
        """

    @abstractmethod
    def check_limits(self, model: LatencyModel | None = None) -> None:
        """Find out before the long work whether there is anything to search for; arguments are those of `bounds`.

        Raises:
            BudgetError: there is not.
        """

    # --- its supernet --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def metric(self) -> str:
        """What networks are judged by."""

    def interface(self, spec: ArchSpec) -> Interface:
        """How images are prepared for a network of the space; see `supernet.loop.interface_of`."""
        if self._interface is None:
            self._interface = interface_of(self.config.supernet, spec)
        return self._interface

    @property
    def passes(self) -> int:
        """Forward passes of each image to judge a network."""
        return 1

    @abstractmethod
    def train(
        self, training: Examples, validation: Examples, folder: Path, options: LoopOptions, on_step: OnProgress
    ) -> SupernetSummary:
        """Train the supernet, or go on with it.

        Args:
            training: images to learn from.
            validation: images to choose by, if there is something to choose.
            folder: of the supernet.
            options: where, and how often to save and to tell.
            on_step: told of every step: what is being done, how many are done, and of how many.
        """

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> SupernetSummary:
        """Load the supernet from its folder, onto a device.

        Raises:
            WeightsError: it is damaged, or of another space.
        """

    @abstractmethod
    def judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        """The score, 0 to 1, of a network with the supernet's weights.

        Args:
            spec: of the network.
            training: images that its batch-norm statistics are estimated from.
            validation: images that it is judged by.

        Raises:
            WeightsError: outputs are not finite.
        """

    @abstractmethod
    def extract(self, spec: ArchSpec) -> nn.Module:
        """A network of its own with copies of the weights and statistics that `spec` has in the supernet.

        Raises:
            InputError: the network is not one of the space's.
        """

    @abstractmethod
    def measure(self, network: Calibrated, spec: ArchSpec, validation: CachedImages) -> float:
        """The score, 0 to 1, of a network that was extracted, alone; see `judge`."""

    # --- its searches --------------------------------------------------------------------------------

    def settings(self, search: str, ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
        """What a search depends on, as JSON values; how networks are scored and measured is added to it.

        Args:
            search: one of `searches`.
            ledgers: of the searches before it.
        """
        return {
            "search": self.config.search.model_dump(mode="json", exclude_none=True),
            "limits": self.config.limits.model_dump(mode="json", exclude_none=True),
            "classes": self.classes,
        }

    @abstractmethod
    def search(self, search: str, record: Record[Any, Any], ledgers: Mapping[str, Ledger]) -> Sequence[str]:
        """Search to the end, or from the beginning through what the record has.

        Args:
            search: one of `searches`.
            record: that scores networks, has them measured, and writes the ledger.
            ledgers: of the searches before it.

        Returns:
            The keys of the networks that it ends with.
        """

    @abstractmethod
    def tell(self, ledger: Any) -> tuple[str, int, int]:  # noqa: ANN401 - the method's own
        """What an unfinished search is doing, how much of it is done, and how much there is."""

    # --- what it writes ------------------------------------------------------------------------------

    def names(self, ledger: Ledger) -> list[str]:
        """Names of the networks that a search found."""
        suffix = "" if ledger.search == next(iter(self.searches)) else f"_{ledger.search}"
        return [f"{ledger.name}{suffix}_{number}" for number in range(len(ledger.chosen))]

    def details(self, network: ScoredNetwork) -> dict[str, Any]:
        """What provenance says of a network beside what holds for all that were found."""
        return {}

    def write(self, ledger: Ledger, folder: Path, origin: Origin | None) -> Written:
        """Write the specs of the networks that a search found.

        Args:
            ledger: of the search.
            folder: for its specs.
            origin: of the networks; None: they are of the space, and no more is said.
        """
        rows, values = [], []
        with replacing_folder(folder) as new:
            for name, network in zip(self.names(ledger), ledger.found, strict=True):
                spec = self.spec(network.key, name)
                if origin:
                    details = {**self.details(network), **origin.provenance.details}
                    found = {"results": origin.results(network), "details": details}
                    provenance = origin.provenance.model_copy(update=found)
                    spec = spec.model_copy(update={"provenance": provenance})
                spec.save(new / f"{name}.json")
                values.append({"name": name, **network.model_dump(mode="json")})
                rows.append(
                    (
                        *(name, format_count(network.macs), format_count(network.params)),
                        "-" if network.measured_ms is None else f"{network.measured_ms:.3f}",
                        "-" if network.score is None else f"{network.score:.4f}",
                    )
                )
        return Written([folder], ("network", "MACs", "params", "latency (ms)", "score"), rows, {"networks": values})
