"""The interface between the engine and a search method: everything in which methods differ.

    configuration, labels --> Method --spec, costs, judge--> Record, Scorer, LatencyMeter --search, write--> specs

Networks are identified by their keys, which are names in the method's space. Everything else (resuming, timing, saving,
scoring with a cache, measuring and refitting latency, provenance) is done by the engine, in the same way for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.data.digits import drawing_of
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
        provenance: what all of them have in common.
        results: gives the measured results of one of them.
    """

    provenance: Provenance
    results: Callable[[ScoredNetwork], tuple[Result, ...]]


@dataclass(frozen=True)
class Written:
    """The files that a search wrote, with a table of its networks to print.

    Attributes:
        paths: files and folders.
        columns: headings of the table.
        rows: rows of the table, one per network.
        values: the content of the table as JSON values.
    """

    paths: Sequence[Path]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


class Method(ABC, Generic[AnyConfig]):
    """A search method, for data with the given labels.

    Args:
        config: the configuration of the search.
        labels: labels of the data.

    Attributes:
        name: the method's name, as in a configuration.
        searches: names of the method's own search and, after it, of its baselines, each with its description for
            provenance.
        paper: the paper that describes the method.
        may_change: fields of the configuration that finished work does not depend on.
        ledger: the type of the ledger that its searches write.
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
        """Make the spec of a network of the space from its key."""

    def score_name(self, key: str) -> tuple[str, int] | None:
        """The name and the resolution under which a network's score is kept.

        None stands for the hash of its spec, so that two keys of the same network share a score.
        """
        return None

    @property
    @abstractmethod
    def largest(self) -> ArchSpec:
        """The largest network of the space, at an image size at which some networks are always judged."""

    @property
    @abstractmethod
    def yardstick(self) -> ArchSpec:
        """A network that is always the same and takes little time; see `latency.yardstick`."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a random network of the space."""

    @property
    def divisor(self) -> int:
        """The number that channels of the space's networks are multiples of."""
        return 1

    @abstractmethod
    def bounds(self, model: LatencyModel | None = None) -> SearchBounds:
        """Make the bounds of a search: the costs of networks, and the limits on them.

        Args:
            model: predicts latency; None: a limit on latency is not applied.

        Raises:
            BudgetError: no network of the space can keep the limits.
        """

    @abstractmethod
    def check_limits(self, model: LatencyModel | None = None) -> None:
        """Check before the long work that some network can keep the limits; the arguments are those of `bounds`.

        Raises:
            BudgetError: no network can.
        """

    # --- its supernet --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def metric(self) -> str:
        """The name of the metric that networks are judged by."""

    def interface(self, spec: ArchSpec) -> Interface:
        """How images are prepared for a network of the space; see `supernet.loop.interface_of`."""
        if self._interface is None:
            drawing = drawing_of(self.config.data)
            self._interface = interface_of(self.config.supernet, spec).model_copy(update={"drawing": drawing})
        return self._interface

    @property
    def passes(self) -> int:
        """The number of forward passes of each image that it takes to judge a network."""
        return 1

    @abstractmethod
    def train(
        self, training: Examples, validation: Examples, folder: Path, options: LoopOptions, on_step: OnProgress
    ) -> SupernetSummary:
        """Train the supernet, or resume its training.

        Args:
            training: images to train on.
            validation: images to choose by, if the method has something to choose.
            folder: the supernet's folder.
            options: options that do not change the result, such as how often to save.
            on_step: called for every step with what is being done, how many steps are done, and of how many.

        Raises:
            TrainingError: the training cannot begin or be resumed, or diverged.
            OutputError: a file cannot be written.
        """

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> SupernetSummary:
        """Load the supernet from its folder onto a device.

        Raises:
            WeightsError: the file of weights is damaged, or is of another space.
        """

    @abstractmethod
    def judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        """Score a network, 0 to 1, with the supernet's weights.

        Args:
            spec: the network's spec.
            training: images that its batch-norm statistics are estimated from.
            validation: images that it is judged by.

        Raises:
            WeightsError: its outputs are not finite.
        """

    @abstractmethod
    def extract(self, spec: ArchSpec) -> nn.Module:
        """Copy a network out of the supernet, with its weights and batch-norm statistics.

        Raises:
            InputError: the network does not belong to the space.
        """

    @abstractmethod
    def measure(self, network: Calibrated, spec: ArchSpec, validation: CachedImages) -> float:
        """Score an extracted network, 0 to 1, by itself; see `judge`."""

    # --- its searches --------------------------------------------------------------------------------

    def settings(self, search: str, ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
        """The settings that a search depends on, as JSON values; the engine adds those of scoring and measuring.

        Args:
            search: one of `searches`.
            ledgers: the ledgers of the searches before it, by name.
        """
        return {
            "search": self.config.search.model_dump(mode="json", exclude_none=True),
            "limits": self.config.limits.model_dump(mode="json", exclude_none=True),
            "classes": self.classes,
        }

    @abstractmethod
    def search(self, search: str, record: Record[Any, Any], ledgers: Mapping[str, Ledger]) -> Sequence[str]:
        """Search to the end; a resumed search begins again with the scores and measurements that the record has.

        Args:
            search: one of `searches`.
            record: scores networks, has them measured, and writes the ledger.
            ledgers: the ledgers of the searches before it, by name.

        Returns:
            The keys of the networks that the search ends with.

        Raises:
            BudgetError: no network keeps the limits.
        """

    @abstractmethod
    def tell(self, ledger: Any) -> tuple[str, int, int]:  # noqa: ANN401 - the method's own
        """Tell what an unfinished search is doing, how much of it is done, and how much there is."""

    # --- what it writes ------------------------------------------------------------------------------

    def names(self, ledger: Ledger) -> list[str]:
        """The names of the networks that a search found."""
        suffix = "" if ledger.search == next(iter(self.searches)) else f"_{ledger.search}"
        return [f"{ledger.name}{suffix}_{number}" for number in range(len(ledger.chosen))]

    def details(self, network: ScoredNetwork) -> dict[str, Any]:
        """Details for the provenance of one network, in addition to those that all networks share."""
        return {}

    def write(self, ledger: Ledger, folder: Path, origin: Origin | None) -> Written:
        """Write the specs of the networks that a search found.

        Args:
            ledger: the search's ledger.
            folder: the folder to write or to replace.
            origin: where the networks come from; None: their specs get no provenance.

        Raises:
            OutputError: the folder cannot be written.
        """
        rows, values = [], []
        timed = any(network.measured_ms is not None for network in ledger.found)
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
                        *(name, "-" if network.score is None else f"{network.score:.4f}"),
                        *(format_count(network.macs), format_count(network.params)),
                        *(("-" if network.measured_ms is None else f"{network.measured_ms:.3f}",) if timed else ()),
                    )
                )
        columns = ("network", "score", "MACs", "params", *(("latency (ms)",) if timed else ()))
        return Written([folder], columns, rows, {"networks": values})
