"""The report of ScaleNAS's search: the front of topologies, its hypervolume, and what it is made of."""

from typing import ClassVar

import numpy as np

from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.report.data import RunFiles
from scalenet_zoo.search.report.drawing import draw_topologies
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREEN, ORANGE, RED, STEPS, Curve, draw_bars, draw_curves
from scalenet_zoo.search.report.sections import MethodReport, Parts, Picture, Table, cell, mean_alone, percent, scored
from scalenet_zoo.search.scalenas.topology import ScoredTopologies
from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies

POINTS = 50
"""Of a curve of hypervolumes."""
DRAWN = 3
"""Networks of the front that are drawn."""


class ScaleNASReport(MethodReport[Ledger]):
    """What the page says of a search of topologies.

    Attributes:
        front: of topology evolution, by name, the cheapest first.
    """

    looks: ClassVar = {
        "evolution": ("topology evolution", {"color": BLUE, "marker": "o"}),
        "random": ("random search", {"color": ORANGE, "marker": "s"}),
        "ageing": ("ageing evolution", {"color": GREEN, "marker": "^"}),
    }
    known: ClassVar = {"known": ("published networks", {"color": RED, "marker": "D"})}
    reached = "stand-alone figure"
    searched = "Topologies were searched"
    costs_caption = (
        "Searches. Images are counted once a forward pass, those for batch-norm statistics, too. A network that another"
        " search of this run scored before takes no time."
    )

    def __init__(self, run: RunFiles) -> None:
        super().__init__(run)
        found = self.own.found if self.own else []
        self.front = {f"{self.own.name}_{number}": network for number, network in enumerate(found) if self.own}

    @property
    def outcome(self) -> str:
        """How many networks are on the front."""
        return f"; {len(self.front)} are on the front"

    def contents(self) -> list[tuple[str, str, Parts]]:
        """The method's own sections: id, title and parts."""
        return [
            ("front", "The front", self.found()),
            ("scores", "Score against cost", self.scores()),
            ("hypervolume", "Hypervolume over evaluations", self.hypervolume()),
            ("topologies", "What the front is made of", self.topologies()),
            ("architectures", "Architectures", self.architectures()),
        ]

    def found(self) -> Parts:
        """The networks of the front."""
        if not self.front:
            yield "Topology evolution has not begun."
            return
        alone = {network.first.name: network for network in self.found_alone}
        rows = [
            {
                "network": name,
                "MACs": format_count(network.macs),
                "parameters": format_count(network.params),
                "latency, predicted (ms)": cell(network.latency_ms, ".3f"),
                "measured (ms)": cell(network.measured_ms, ".3f"),
                "supernet score (%)": percent(network.score),
                "stand-alone (%)": mean_alone(alone.get(name)),
            }
            for name, network in self.front.items()
        ]
        yield Table.of(
            "Networks that no other one within the limits beats in score and MACs. The score is with shared weights;"
            " stand-alone figures are the mean over seeds, with their standard deviation and their number.",
            rows,
        )

    def scores(self) -> Parts:
        """Scores, and what networks trained alone reach, against costs."""
        pictures: list[Picture] = []
        for name, over in (("macs", "MACs"), ("latency", "latency (ms)")):
            points = scored(self.own.networks if self.own else (), over)
            before = [Curve("scored by evolution", points, {**DOTS, "markersize": 3})] if len(points) else []
            pictures += self.draw_found(f"scores_{name}", over, before)
        yield from (pictures := [*pictures, *self.draw_trained("scores_standalone", "MACs")])
        if not pictures:
            yield "No network has been scored yet."

    def hypervolume(self) -> Parts:
        """The hypervolume of the front over the networks scored."""
        ledgers = {search: ledger for search, ledger in self.ledgers.items() if ledger.networks}
        if not ledgers:
            yield "No search has begun."
            return
        most = max(network.macs for ledger in ledgers.values() for network in ledger.networks)
        curves, rows = [], []
        for search, ledger in ledgers.items():
            volumes = hypervolumes(ledger, most)
            name, style = self.looks[search]
            curves.append(Curve(name, volumes * (1, 100), {**style, "marker": "", **STEPS}))
            rows.append(
                {
                    "search": name,
                    "networks scored": f"{ledger.evaluations:,}",
                    "on the front": str(len(ledger.chosen)),
                    "hypervolume": f"{volumes[-1, 1]:.4f}",
                }
            )
        yield (
            "The area under the front, scores from 0 to 1 and MACs as shares of the most that any network scored here"
            f" has ({format_count(most)})."
        )
        axes = "networks scored", "hypervolume (%)"
        plot = draw_curves("Hypervolume of the front", *axes, curves, counts=True)
        yield Picture("hypervolume", plot, "Plot of the hypervolume of each way to search over the networks scored.")
        yield Table.of("All networks scored, as they came.", rows)

    def topologies(self) -> Parts:
        """Depths and paths of the front, and the groups that it comes from."""
        if not self.own or not self.front:
            yield "Topology evolution has not begun."
            return
        space, found = _space(self.own), self.own.found
        drawn = [network for network in self.own.networks if network.generation == 0]
        front, first = (space.from_keys([network.key for network in networks]) for networks in (found, drawn))
        on, off = _paths(space, front), _paths(space, first)
        there = front.depth[0] > 0
        depths, first_depths = front.depth[:, there], first.depth[:, there]
        yield (
            f"Branches of the front have {depths.mean():.2f} blocks on average, those of the networks drawn first"
            f" {first_depths.mean():.2f}; of the paths that there could be, {on.mean():.1%} are on, against"
            f" {off.mean():.1%}. {sum(n.generation > 0 for n in found)} of {len(found)} networks of the front were"
            " bred, the others drawn."
        )
        names = [f"{module}, /{4 * 2 ** int(branch)}" for module, branch in zip(*np.nonzero(there), strict=True)]
        bars = {"front": depths.mean(0), "drawn from the groups": first_depths.mean(0)}
        plot = draw_bars("Depth of the branches", "module and branch", "mean blocks", names, bars)
        alt = "Bars: mean number of blocks of each branch of each module, of the front and of networks drawn first."
        yield Picture("depths", plot, alt, wide=True)
        yield Table.of(
            "Networks of the front.",
            [
                {
                    "network": name,
                    "generation": str(network.generation),
                    "mean blocks of a branch": f"{depth:.2f}",
                    "paths on (%)": percent(share),
                }
                for (name, network), depth, share in zip(self.front.items(), depths.mean(1), on.tolist(), strict=True)
            ],
        )
        rows = []
        closest, kept = closest_groups(space, first), {network.key for network in found}
        for number, group in enumerate(space.groups.all):
            of_group = [network for network, g in zip(drawn, closest, strict=True) if g == number]
            scores = [network.score for network in of_group if network.score is not None]
            rows.append(
                {
                    "depths": f"{list(group.depths)}",
                    "fusion": f"{group.fusion:g}",
                    "networks": str(len(scores)),
                    "mean score (%)": percent(float(np.mean(scores)) if scores else None),
                    "on the front": str(sum(network.key in kept for network in of_group)),
                }
            )
        yield Table.of(
            "Networks drawn first, by the group that their mean depth and share of paths are closest to.", rows
        )

    def architectures(self) -> Parts:
        """Networks of the front, from the cheapest to the largest."""
        if specs := [self.run.specs[name] for name in self.front if name in self.run.specs]:
            places = np.unique(np.linspace(0, len(specs) - 1, DRAWN).round().astype(int))
            drawing = draw_topologies([specs[place] for place in places])
            alt = "Drawing of networks from the cheapest on: blocks of each branch, and the paths after each step."
            yield Picture("topologies", drawing, alt, wide=True)
        else:
            yield "There are no specs yet, so nothing to draw."

    def more_costs(self, ledger: Ledger) -> dict[str, str]:
        """Measurements."""
        return {"latencies measured": f"{sum(len(each.networks) for each in ledger.latency_rounds):,}"}


def hypervolumes(ledger: Ledger, most: int) -> np.ndarray:
    """Networks scored, and the hypervolume of their front with MACs as shares of `most`, (points, 2)."""
    networks = [network for network in ledger.networks if network.score is not None]
    known = ScoredTopologies(
        _space(ledger).from_keys([network.key for network in networks]),
        np.array([network.score for network in networks]),
        np.array([network.macs for network in networks]),
    )
    counts = np.unique(np.linspace(1, len(known), POINTS).round().astype(int))
    return np.array([(count, known[:count].hypervolume(most)) for count in counts.tolist()])


def closest_groups(space: MultipathSpace, topologies: Topologies) -> list[int]:
    """The place of the group that each topology is most like: its mean depth, and its share of paths."""
    there = topologies.depth[0] > 0
    found = np.stack([topologies.depth[:, there].mean(1), _paths(space, topologies)], axis=1)
    groups = np.array([(np.mean(group.depths), group.fusion) for group in space.groups.all])
    distances: np.ndarray = np.linalg.norm(found[:, None] - groups, axis=2)
    return [int(place) for place in distances.argmin(1)]


def _paths(space: MultipathSpace, topologies: Topologies) -> np.ndarray:
    """The share of its possible paths that each of n topologies has, (n,): of those after a branch's own blocks."""
    steps = np.arange(topologies.fusion.shape[3])[:, None]
    possible = space.connections & (steps < topologies.depth[..., None, None])
    shares: np.ndarray = (topologies.fusion & possible).sum((1, 2, 3, 4)) / np.maximum(1, possible.sum((1, 2, 3, 4)))
    return shares


def _space(ledger: Ledger) -> MultipathSpace:
    return MultipathSpace.from_values(ledger.space, "space")
