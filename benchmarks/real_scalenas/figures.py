"""The figures of (a) to (d), from the files of a run's folder."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.real_scalenas.plan import SAMPLERS, Plan, SamplerName
from benchmarks.significance import paired, rank_correlation
from scalenet_zoo.search.scalenas.search import SEARCHES
from scalenet_zoo.search.scalenas.topology import ScoredTopologies
from scalenet_zoo.search.standalone import Standalone
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.supernet.summary import SupernetSummary


@dataclass(frozen=True)
class Figures:
    """The figures of a run.

    Attributes:
        plan: the configuration of the run.
        folder: the folder of the run, or the files of it that are kept in benchmarks/results.
        classes: the number of classes or joints.
        metric: the metric that networks are judged by.
    """

    plan: Plan
    folder: Path
    classes: int
    metric: str

    @cached_property
    def space(self) -> MultipathSpace:
        return self.plan.search.open_space()

    @cached_property
    def largest_macs(self) -> int:
        return int(self.space.cost(self.space.largest[None], self.classes).macs[0])

    def summary(self) -> dict[str, object]:
        """Compute all figures."""
        return {
            "metric": self.metric,
            "without_retraining": self.without_retraining(),
            "samplers": self.samplers(),
            "hypervolume": self.hypervolumes(),
        }

    def without_retraining(self) -> dict[str, Any]:
        """(a), (d): networks with the supernet's weights, against the same ones trained alone."""
        rows = Standalone.load(self.folder / "grouped" / "standalone.json").rows
        inherited = json.loads((self.folder / "inherited.json").read_text())
        reached: dict[str, list[float]] = {}
        for row in rows:
            reached.setdefault(row.name, []).append(row.reached)
        longer = {row.name: row.reached for row in Standalone.load(self.folder / "longer.json").rows}
        first = {row.name: row for row in rows}
        # A network that the search found may also have been drawn: what agrees in all figures counts once.
        twins = {(first[name].macs, first[name].score, result): name for name, result in reversed(inherited.items())}
        both = list(twins.values())
        networks = [
            {
                "name": name,
                "group": row.group,
                "macs": row.macs,
                "score": row.score,
                "inherited": inherited.get(name),
                "alone": fmean(reached[name]),
                "alone_of_seeds": reached[name],
                "alone_for_longer": longer.get(name),
            }
            for name, row in sorted(first.items(), key=lambda pair: pair[1].macs)
        ]
        spreads = [stdev(values) for values in reached.values() if len(values) > 1]
        return {
            "networks": networks,
            "standard_deviation_of_seeds": fmean(spreads) if spreads else None,
            "inherited_and_alone": paired(
                [inherited[name] for name in both],
                [fmean(reached[name]) for name in both],
                names=("inherited", "alone"),
            ),
            "inherited_and_longer": paired(
                [inherited[name] for name in longer],
                list(longer.values()),
                names=("inherited", "alone_for_longer"),
            ),
            "rank": rank_correlation([first[n].score or 0.0 for n in both], [fmean(reached[n]) for n in both]),
        }

    def samplers(self) -> dict[str, Any]:
        """(b): scores of the same networks in the three supernets, and what their trainings cost."""
        scores = json.loads((self.folder / "samplers.json").read_text())["scores"]
        return {
            "training_macs": {sampler: self._training_macs(sampler) for sampler in SAMPLERS},
            "note": "one supernet of each sampler: what another seed of its training changes is not in them",
            **{
                f"grouped_and_{other}": paired(scores["grouped"], scores[other], names=("grouped", other))
                for other in SAMPLERS[1:]
            },
        }

    def _training_macs(self, sampler: SamplerName) -> float:
        """MACs of the networks, forward and twice as many backward, and of the teacher, one forward pass per step."""
        summary = SupernetSummary.load(self.folder / sampler / "supernet" / "summary.json")
        networks = 4 if sampler == "sandwich" else 1
        return 3 * summary.image_macs + summary.images / networks * self.largest_macs

    def hypervolumes(self) -> dict[str, Any]:
        """(c): the area under each method's front, with MACs as shares of the largest network's; one value per seed."""
        volumes: dict[str, list[float]] = {}
        for method in SEARCHES:
            for seed in self.plan.seeds:
                networks = self.plan.load_ledger(self.folder, method, seed).networks
                scored = ScoredTopologies(
                    self.space.from_keys([network.key for network in networks]),
                    np.array([network.score for network in networks]),
                    np.array([network.macs for network in networks]),
                )
                volumes.setdefault(method, []).append(scored.hypervolume(float(self.largest_macs)))
        return {
            "seeds": list(self.plan.seeds),
            **volumes,
            **{
                f"evolution_and_{other}": paired(volumes["evolution"], volumes[other], names=("evolution", other))
                for other in ("random", "ageing")
                if len(self.plan.seeds) > 1
            },
        }
