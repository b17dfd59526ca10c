"""ScaleNAS as a method of the search engine: multipath networks along the Pareto front of score and MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scalenet_zoo.latency.measuring import YARDSTICK_PIXELS
from scalenet_zoo.search.method import Method
from scalenet_zoo.search.scalenas.config import ScaleNASConfig, TopologySettings
from scalenet_zoo.search.scalenas.judging import figure, score_topology
from scalenet_zoo.search.scalenas.limits import TopologyBounds
from scalenet_zoo.search.scalenas.search import TopologySearch
from scalenet_zoo.search.scalenas.topology import random_search
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenas.train import train_scalenas

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.latency.model import LatencyModel
    from scalenet_zoo.search.images import CachedImages
    from scalenet_zoo.search.ledger import Ledger, ScoredNetwork
    from scalenet_zoo.search.record import Record
    from scalenet_zoo.search.scoring import Calibrated
    from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies
    from scalenet_zoo.supernet.summary import SupernetSummary
    from scalenet_zoo.training.loop import LoopOptions


class ScaleNASMethod(Method[ScaleNASConfig]):
    """Multi-scale topology evolution in a multipath supernet, with its baselines; see `Method`."""

    name = "scalenas"
    searches: ClassVar = {
        "evolution": "multi-scale topology evolution in a multipath supernet",
        "random": "random search in a multipath supernet",
        "ageing": "ageing evolution in a multipath supernet",
    }
    paper = "ScaleNAS: Multi-Path One-Shot NAS for Scale-Aware High-Resolution Representation, AutoML-Conf 2022"
    space: MultipathSpace
    supernet: ScaleNASSupernet

    def spec(self, key: str, name: str = "candidate") -> ArchSpec:
        """See `Method.spec`; the network is a topology of the space."""
        return self.space.spec(self.space.from_keys([key])[0], self.classes, name)

    def score_name(self, key: str) -> tuple[str, int]:
        """The key and the height of the image; keys tell networks apart as well as hashes do."""
        return key, self.space.input.height

    @property
    def largest(self) -> ArchSpec:
        """The largest network; all networks of a space have the same image size."""
        return self.space.spec(self.space.largest, self.classes, "largest")

    @property
    def yardstick(self) -> ArchSpec:
        """The smallest network, at a small image size."""
        spec = self.space.spec(self.space.smallest, self.classes, "smallest")
        return spec.replace(height=YARDSTICK_PIXELS, width=YARDSTICK_PIXELS)

    def draw(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a network of a random group."""
        return self.space.spec(self.space.sample(rng, 1)[0], self.classes)

    def bounds(self, model: LatencyModel | None = None) -> TopologyBounds:
        """See `Method.bounds`."""
        return TopologyBounds(self.space, self.classes, self.config.limits, model)

    def check_limits(self, model: LatencyModel | None = None) -> None:
        """Compare the limits with the space, and draw one network that keeps them; see `Method.check_limits`."""
        bounds = self.bounds(model)
        bounds.check()

        def unjudged(topologies: Topologies) -> np.ndarray:
            return np.zeros(len(topologies))

        one = TopologySettings(first=1, evaluations=1, seed=self.config.search.seed)
        next(random_search(self.space, self.classes, unjudged, one, bounds.feasible))

    @property
    def metric(self) -> str:
        """The metric of the configuration, or the default of the task."""
        return self.config.scoring.metric_of(self.space.head)

    def train(
        self, training: Examples, validation: Examples, folder: Path, options: LoopOptions, on_step: OnProgress
    ) -> SupernetSummary:
        """See `Method.train`."""
        self.supernet = ScaleNASSupernet(self.space, self.classes)
        return train_scalenas(self.supernet, self.config.supernet, training, validation, folder, options, on_step)

    def load(self, folder: Path, device: torch.device) -> SupernetSummary:
        """See `Method.load`."""
        self.supernet = ScaleNASSupernet(self.space, self.classes).to(device)
        return load_supernet(self.supernet, folder)

    def judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        """See `Method.judge`; the score is the metric that `evaluate` reports: mean IoU, AP or PCK."""
        return score_topology(
            self.supernet, spec, training, validation, self.config.scoring, self.labels, self.interface(spec)
        )

    def extract(self, spec: ArchSpec) -> nn.Module:
        """See `Method.extract`."""
        return self.supernet.extract(spec)

    def measure(self, network: Calibrated, spec: ArchSpec, validation: CachedImages) -> float:
        """See `Method.measure`; the score is the metric that `evaluate` reports."""
        return figure(network, spec, validation, self.config.scoring, self.labels)

    def search(
        self, search: str, record: Record[Ledger, TopologyBounds], ledgers: Mapping[str, Ledger]
    ) -> Sequence[str]:
        """See `Method.search`."""
        latency = self.config.latency
        return TopologySearch(search, record, self.config.search, latency.every, latency.measured).run()

    def tell(self, ledger: Ledger) -> tuple[str, int, int]:
        """See `Method.tell`."""
        done, best = ledger.evaluations, max(network.score or 0.0 for network in ledger.networks)
        on_front = f"{len(ledger.chosen)} on the front"
        what = f"{ledger.search}: {done:,} networks scored, best {self.metric} {best:.4f}, {on_front}"
        return what, done, self.config.search.evaluations

    def details(self, network: ScoredNetwork) -> dict[str, Any]:
        """The topology of a network."""
        return {"topology": network.key}
