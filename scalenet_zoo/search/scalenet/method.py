"""ScaleNet as a method of the search engine: base model and scaling strategies of classifiers, searched together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from scalenet_zoo.arch.scaling import apply_strategy, extrapolate
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.method import Method, Origin, Written
from scalenet_zoo.search.scalenet.baselines import search_baseline
from scalenet_zoo.search.scalenet.config import Baseline, ScaleNetConfig
from scalenet_zoo.search.scalenet.judging import score_network, sides, top1_accuracy
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.mcea import MCEA
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.train import train_scalenet

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from scalenet_zoo.arch.constraints import Predictor
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.search.images import CachedImages
    from scalenet_zoo.search.ledger import Ledger
    from scalenet_zoo.search.record import Record
    from scalenet_zoo.search.scoring import Calibrated
    from scalenet_zoo.spaces.scalenet import Space
    from scalenet_zoo.supernet.summary import SupernetSummary
    from scalenet_zoo.training.loop import LoopOptions


class ScaleNetMethod(Method[ScaleNetConfig]):
    """Markov-chain evolution in a super-supernet, with its baselines; see `Method`."""

    name = "scalenet"
    searches: ClassVar = {
        "joint": "joint search of base model and scaling strategies (Markov-chain evolution in a super-supernet)",
        "random": "random search of base model and scaling strategies in a super-supernet",
        "compound": "search of the base model alone in a super-supernet, scaled by EfficientNet's compound rule",
        "separate": "separate search of each size in a super-supernet",
    }
    paper = "ScaleNet: Searching for the Model to Scale, ECCV 2022"
    may_change = ("baselines", "extrapolate")
    metric = "top1"
    ledger = ScaleNetLedger
    space: Space
    supernet: ScaleNetSupernet

    def spec(self, key: str, name: str = "candidate") -> ArchSpec:
        """See `Method.spec`; the network is a base model under a scaling strategy."""
        return self._spec(Candidate.from_key(self.space, key), name)

    def _spec(self, candidate: Candidate, name: str = "candidate") -> ArchSpec:
        return self.space.spec(candidate.kernels, candidate.scaling, self.classes, name)

    @property
    def largest(self) -> ArchSpec:
        """The largest base model, at the base model's image size, at which every search judges networks."""
        return self._spec(Candidate(self.space.largest, self.space.unscaled))

    @property
    def yardstick(self) -> ArchSpec:
        """The base model whose choices are all in the middle of their lists."""
        genome = np.array([[options // 2 for options in self.space.gene_options]])
        return self._spec(Candidate(self.space.decode(genome)[0], self.space.unscaled))

    def draw(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a base model and a strategy of any stage."""
        stages = self.space.scaling
        scalings = self.space.scalings(stages[rng.integers(len(stages))].stage)
        return self._spec(Candidate(self.space.sample(rng, 1)[0], scalings[rng.integers(len(scalings))]))

    @property
    def divisor(self) -> int:
        """The number that the space's channels are multiples of."""
        return self.space.divisor

    def bounds(self, model: Predictor | None = None) -> Bounds:
        """See `Method.bounds`."""
        return Bounds(self.space, self.classes, self.config.limits, model)

    def check_limits(self, model: Predictor | None = None) -> None:
        """Draw base models, and check that every stage has an admissible strategy; see `Method.check_limits`."""
        bounds, settings = self.bounds(model), self.config.search
        bases = FeasibleSampler(bounds).draw(np.random.default_rng(settings.seed), settings.first_bases)
        for stage in self.space.scaling[1:]:
            bounds.some_admissible(stage.stage, bases)

    @property
    def passes(self) -> int:
        """One pass per path."""
        return len(sides(self.config.scoring))

    def train(
        self, training: Examples, validation: Examples, folder: Path, options: LoopOptions, on_step: OnProgress
    ) -> SupernetSummary:
        """See `Method.train`."""
        self.supernet = ScaleNetSupernet(self.space, self.classes)
        return train_scalenet(self.supernet, self.config.supernet, training, folder, options, on_step)

    def load(self, folder: Path, device: torch.device) -> SupernetSummary:
        """See `Method.load`."""
        self.supernet = ScaleNetSupernet(self.space, self.classes).to(device)
        return load_supernet(self.supernet, folder)

    def judge(self, spec: ArchSpec, training: CachedImages, validation: CachedImages) -> float:
        """See `Method.judge`; the score is the top-1 accuracy."""
        return score_network(self.supernet, spec, training, validation, self.config.scoring, self.interface(spec))

    def settings(self, search: str, ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
        """See `Method.settings`; baselines score as many networks as the joint search."""
        more = {} if search == "joint" else {"evaluations": ledgers["joint"].evaluations}
        return {**super().settings(search, ledgers), **more}

    def extract(self, spec: ArchSpec) -> nn.Module:
        """See `Method.extract`; the network gets channels from the left end."""
        return self.supernet.extract(spec)

    def measure(self, network: Calibrated, spec: ArchSpec, validation: CachedImages) -> float:
        """See `Method.measure`; the score is the top-1 accuracy."""
        return top1_accuracy(network, spec, validation, self.config.scoring)

    def search(
        self, search: str, record: Record[ScaleNetLedger, Bounds], ledgers: Mapping[str, Ledger]
    ) -> Sequence[str]:
        """See `Method.search`."""
        if search == "joint":
            return MCEA(record, self.config.search, self.config.latency.measured).run()
        if record.latency:  # baselines start with the last model of the joint search
            record.bounds = record.bounds.with_model(record.latency.model(ledgers["joint"].latency_rounds))
        return search_baseline(cast(Baseline, search), record, self.config.search, ledgers["joint"].evaluations)

    def tell(self, ledger: ScaleNetLedger) -> tuple[str, int, int]:
        """See `Method.tell`."""
        step = ledger.half_steps[-1]
        best = f", best fitness {step.generations[-1].best:.4f}" if step.generations else ""
        what = f"{ledger.search} search: round {step.round}, {step.kind}{best}, {ledger.evaluations:,} networks scored"
        return what, step.round, max(step.round, self.config.search.rounds)

    def names(self, ledger: Ledger) -> list[str]:
        """See `Method.names`; each name has the network's scaling stage."""
        return [f"{ledger.name}_{ledger.search}_s{stage.stage}" for stage in self.space.scaling]

    def write(self, ledger: Ledger, folder: Path, origin: Origin | None) -> Written:
        """See `Method.write`; the joint search writes a family with extrapolated stages, and its specs."""
        if ledger.search != "joint" or origin is None or not isinstance(ledger, ScaleNetLedger):
            return super().write(ledger, folder, None)
        found = ledger.candidates(self.space)
        scalings = [candidate.scaling for candidate in found]
        family = self.space.family(found[0].kernels, scalings, self.classes, ledger.name, origin.provenance)
        strategies = [
            strategy.model_copy(update={"results": origin.results(network)})
            for strategy, network in zip(family.strategies, ledger.found, strict=True)
        ]
        family = family.model_copy(update={"strategies": tuple(strategies)})
        last = scalings[-1].stage
        if self.config.extrapolate and last > 0:
            more = extrapolate(family, tuple(range(last + 1, last + 1 + self.config.extrapolate)))
            family = family.model_copy(update={"strategies": (*family.strategies, *more)})
        rows = []
        timed = any(network.measured_ms is not None for network in ledger.found)
        with replacing_folder(folder) as new:
            for strategy, network in zip_longest(family.strategies, ledger.found):  # extrapolated stages have no score
                spec = apply_strategy(family, strategy)
                spec.save(new / f"{strategy.name}.json")
                score, ms = (network.score, network.measured_ms) if network else (None, None)
                figures = (f"{strategy.depth:.4g}", f"{strategy.width:.4g}", str(strategy.resolution))
                rows.append(
                    (
                        *(spec.name, "-" if score is None else f"{score:.4f}"),
                        *(format_count(spec.cost.macs), format_count(spec.cost.params)),
                        *(("-" if ms is None else f"{ms:.3f}",) if timed else ()),
                        *figures,
                    )
                )
        path = folder.parent / "family.json"
        family.save(path)
        latency = ("latency (ms)",) if timed else ()
        columns = ("network", "score", "MACs", "params", *latency, "depth", "width", "pixels")
        return Written([path, folder], columns, rows, {"family": family.model_dump(mode="json")})
