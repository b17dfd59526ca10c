"""Networks with the weights of the supernet that a search trained: model folders, usable without training.

    name of a network found, a file, or a budget --> spec --Method.extract--> weights --> batch norm estimated again
                                                                                  |
                                         model folder, with the score in its spec <+

For a budget of MACs, networks of the space that use most of it are scored, those that the searches found first, and
the best is taken. For a latency budget, networks of rising cost are measured, and the largest that meets it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result
from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_count, format_range
from scalenet_zoo.data.examples import Part
from scalenet_zoo.latency.budget import choose_at_latency
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.search.images import CachedImages, cached_images
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.scoring import Calibrated, validation_images
from scalenet_zoo.supernet.summary import trained_supernet
from scalenet_zoo.zoo.catalog import Entries
from scalenet_zoo.zoo.model_folder import save_model

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.search.driver import Run

SAMPLED = 1000
"""How many networks of the space are drawn to find some near a budget."""
SCORED = 8
"""The most of these networks that are scored."""
LEAST_USED = 0.9
"""The least share of a budget that a network should use; less is accepted only if the space has no such network."""
RUNGS = 16
"""How many networks of rising cost are considered for a latency budget."""


@dataclass(frozen=True)
class Extracted:
    """A network that was written with the supernet's weights.

    Attributes:
        spec: the network's spec; its provenance has the score.
        metric: what the network was judged by.
        score: 0 to 1, on the run's validation images, after its batch-norm statistics were estimated again.
    """

    spec: ArchSpec
    metric: str
    score: float


class Extractor:
    """Extracts networks from a run's supernet.

    Args:
        run: a run with a trained supernet.
        on_progress: called for every network that is scored.

    Raises:
        InputError: there is no trained supernet, or the data are unfit.
        TrainingError: the folder has a run with another configuration.
    """

    def __init__(self, run: Run, on_progress: OnProgress = lambda what, done, total: None) -> None:
        trained_supernet(run.folder)
        run.check()
        run.load_supernet()
        self.run, self.method, self.on_progress = run, run.method, on_progress

    def write(self, spec: ArchSpec, folder: Path) -> Extracted:
        """Write a network as a model folder.

        Args:
            spec: spec of a network in the space.
            folder: the folder to write or to replace.

        Raises:
            InputError: the network does not belong to the space.
            OutputError: the folder cannot be written.
        """
        network, score = self._scored(spec, fold=False)
        data = f"{public_source(self.run.config.data)} {self.run.config.val_split}"
        result = Result(metric=f"supernet_{self.method.metric}", value=score, data=data, origin="measured")
        others = tuple(each for each in spec.provenance.results if each.metric != result.metric)
        provenance = spec.provenance.model_copy(update={"results": (*others, result)})
        spec = spec.model_copy(update={"provenance": provenance})
        interface = self.method.interface(spec).model_copy(update={"labels": self.run.training.labels})
        network.spec = spec  # type: ignore[assignment]
        network.pretrained_cfg = interface.to_timm(spec)  # type: ignore[assignment]
        with replacing_folder(folder) as new:
            save_model(network.cpu().to(memory_format=torch.contiguous_format), new)
        return Extracted(spec, self.method.metric, score)

    def best_at(self, macs: float) -> ArchSpec:
        """Find the best network of the space within a budget of MACs, among some that use most of the budget.

        Raises:
            BudgetError: no network of the space costs so little.
        """
        specs = self._known()
        found = [spec for spec in specs if LEAST_USED * macs <= spec.cost.macs <= macs]
        if not found:
            found = sorted((spec for spec in specs if spec.cost.macs <= macs), key=lambda spec: -spec.cost.macs)
        if not found:
            costs = [spec.cost.macs for spec in specs]
            raise BudgetError(
                f"macs: found {format_count(macs)}, expected {format_range(min(costs), max(costs))} for the space"
                f" {self.method.space.name}"
            )
        candidates = found[:SCORED]  # the networks that the searches found come first
        scores = []
        for done, spec in enumerate(candidates):
            self.on_progress("scoring", done, len(candidates))
            scores.append(self._scored(spec)[1])
        return self._named(candidates[int(np.argmax(scores))], format_count(macs))

    def best_within(self, budget: float, settings: Settings) -> ArchSpec:
        """Find the largest of some networks of rising cost that meets a latency budget when measured.

        Args:
            budget: the budget in milliseconds.
            settings: back end, threads, batch size and precision.

        Raises:
            BudgetError: none of these networks meets the budget.
            BackendError: the back end cannot run here.
        """
        specs = sorted(self._known(), key=lambda spec: spec.cost.macs)
        rungs = np.unique(np.linspace(0, len(specs) - 1, RUNGS).round().astype(int))
        ladder = tuple(specs[i].replace(name=f"{self.method.space.name}_{i}") for i in rungs)
        entries = Entries(self.method.space.name, ladder)
        taken = choose_at_latency(budget, entries, settings, on_progress=self.on_progress).taken.spec
        return self._named(taken, f"{budget:g}ms_{settings.place}")

    def _known(self) -> list[ArchSpec]:
        """Networks of the space: first those that the searches found, then some drawn at random."""
        run, method = self.run, self.method
        paths = (run.folder / "search" / f"{search}.json" for search in method.searches)
        ledgers: Sequence[Ledger] = [method.ledger.load(path) for path in paths if path.exists()]
        found = [network for ledger in ledgers for network in ledger.networks if network.score is not None]
        found.sort(key=lambda network: -(network.score or 0.0))
        rng = np.random.default_rng(run.config.search.seed)
        return [method.spec(network.key) for network in found] + [method.draw(rng) for _ in range(SAMPLED)]

    def _named(self, spec: ArchSpec, budget: str) -> ArchSpec:
        """The network under a name that has its budget, with its provenance."""
        config, space = self.run.config, self.method.space
        data = public_source(config.data)
        provenance = Provenance(
            source=f"taken at {budget} from a supernet of the space {space.name}, trained on {data}",
            method="the best of several networks of the space, scored with the supernet's weights",
            paper=self.method.paper,
            results=spec.provenance.results,
            details={"space": space.name, "space_hash": space.hash, **spec.provenance.details},
        )
        named = spec.replace(name=f"{config.name}_{budget}".lower())
        return named.model_copy(update={"provenance": provenance})

    def _scored(self, spec: ArchSpec, fold: bool = True) -> tuple[nn.Module, float]:
        """Give a network with the supernet's weights, its batch-norm statistics estimated again, and its score."""
        network = self.method.extract(spec)
        training, validation = self._images(spec)
        settings, interface = self.run.config.scoring, self.method.interface(spec)
        calibrated = Calibrated(network, spec, training, settings, fold, interface)
        return network, self.method.measure(calibrated, spec, validation)

    def _images(self, spec: ArchSpec) -> tuple[CachedImages, CachedImages]:
        """Training images for batch-norm statistics, and validation images to judge by."""
        run, settings = self.run, self.run.config.scoring
        read = partial(
            cached_images,
            spec=spec,
            folder=run.folder / "images",
            workers=run.options.workers,
            broken_limit=run.recipe.broken_limit,
            interface=self.method.interface(spec),
        )
        return read(Part(run.training, settings.bn_images)), read(validation_images(run.validation, settings))
