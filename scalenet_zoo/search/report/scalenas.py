"""The report of ScaleNAS's search: the front of topologies, its hypervolume, and its composition."""

from typing import ClassVar

import numpy as np

from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.report.data import RunFiles
from scalenet_zoo.search.report.drawing import draw_topologies
from scalenet_zoo.search.report.next_commands import NextCommand, network_commands
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREEN, MACS, ORANGE, RED, STEPS, Bars, Curve, Plot
from scalenet_zoo.search.report.sections import MethodReport, Parts, Picture, Table, cell, mean_alone, percent, scored
from scalenet_zoo.search.scalenas.topology import ScoredTopologies
from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies

POINTS = 50
"""Points of a curve of hypervolumes."""
DRAWN = 3
"""Networks of the front to draw."""


class ScaleNASReport(MethodReport[Ledger]):
    """The content of the page about a search of topologies.

    Attributes:
        front: the front of topology evolution, by name, the cheapest first.
    """

    looks: ClassVar = {
        "evolution": ("topology evolution", {"color": BLUE, "marker": "o"}),
        "random": ("random search", {"color": ORANGE, "marker": "s"}),
        "ageing": ("ageing evolution", {"color": GREEN, "marker": "^"}),
    }
    known: ClassVar = {"known": ("published networks", {"color": RED, "marker": "D"})}
    reached = "stand-alone metric"
    searched = "Topologies were searched"
    costs_caption = (
        "The searches. Images are counted once per forward pass, including those for batch-norm statistics. A network"
        " that another search of this run has already scored takes no time."
    )

    def __init__(self, run: RunFiles) -> None:
        super().__init__(run)
        self.front = dict(zip(self.names_of(self.own), self.own.found, strict=True)) if self.own else {}

    def outcome(self) -> list[str]:
        """Say which networks are on the front and what they reach."""
        if not self.front:
            return []
        (first, cheapest), (last, largest) = next(iter(self.front.items())), list(self.front.items())[-1]
        said = [
            f"{name} ({format_count(network.macs)} MACs, {percent(network.score)}%)"
            for name, network in ((first, cheapest), (last, largest))
        ]
        range_ = f"from {said[0]} to {said[1]}" if first != last else said[0]
        networks = "network" if len(self.front) == 1 else "networks"
        text = f"The front has {len(self.front)} {networks}, {range_}, scored with the supernet's weights."
        return [text + self.best_alone]

    def use_commands(self) -> list[NextCommand]:
        """Return the commands for the network with the highest score."""
        return network_commands(self.run, list(self.front)[-1]) if self.front else []

    def names_of(self, ledger: Ledger) -> list[str]:
        """Number the networks that a search found, the cheapest first."""
        prefix = ledger.name if ledger.search == "evolution" else f"{ledger.name}_{ledger.search}"
        return [f"{prefix}_{number}" for number in range(len(ledger.found))]

    def contents(self) -> list[tuple[str, str, Parts]]:
        """Return the method's own sections: id, title and parts."""
        return [
            ("front", "The front", self.found()),
            ("scores", "Score against cost", self.scores()),
            ("hypervolume", "Hypervolume by networks scored", self.hypervolume()),
            ("topologies", "Composition of the front", self.topologies()),
            ("architectures", "Architectures", self.architectures()),
        ]

    def found(self) -> Parts:
        """The table of the networks on the front."""
        if not self.front:
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
            "The front: networks that no other network within the limits beats in both score and MACs. The supernet"
            " score is with shared weights. Stand-alone metrics are given as mean over seeds, standard deviation, and"
            " number of seeds.",
            rows,
        )

    def scores(self) -> Parts:
        """Scores, and the metric of networks trained alone, against costs."""
        for name, over in (("macs", MACS), ("latency", "latency (ms)")):
            networks = self.own.networks if self.own else ()
            points, names = scored(networks, over, [f"scored in generation {each.generation}" for each in networks])
            before = [Curve("scored by evolution", points, {**DOTS, "markersize": 3}, names)] if len(points) else []
            yield from self.draw_found(f"scores_{name}", over, before)
        yield from self.draw_trained("scores_standalone", MACS)

    def hypervolume(self) -> Parts:
        """The hypervolume of the front by the number of networks scored."""
        ledgers = {search: ledger for search, ledger in self.ledgers.items() if ledger.networks}
        if not ledgers:
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
            "The hypervolume is the area under the front, with scores from 0 to 1 and MACs as a share of the most that"
            f" any network here has ({format_count(most)})."
        )
        plot = Plot(
            title="Hypervolume of the front", x="networks scored", y="hypervolume (%)", curves=curves, scale="whole"
        )
        yield Picture("hypervolume", plot, "Hypervolume of each search by the number of networks scored.")
        yield Table.of("Hypervolume of all networks that each search scored.", rows)

    def topologies(self) -> Parts:
        """Depths and paths of the networks on the front, and the sampling groups that they come from."""
        if not self.own or not self.front:
            return
        space, found = _space(self.own), self.own.found
        drawn = [network for network in self.own.networks if network.generation == 0]
        front, first = (space.from_keys([network.key for network in networks]) for networks in (found, drawn))
        on, off = _paths(space, front), _paths(space, first)
        there = front.depth[0] > 0
        depths, first_depths = front.depth[:, there], first.depth[:, there]
        yield (
            f"Branches of networks on the front have {depths.mean():.2f} blocks on average, those of the networks drawn"
            f" first {first_depths.mean():.2f}. On the front, {on.mean():.1%} of the possible paths are on, compared"
            f" with {off.mean():.1%} in the networks drawn first. Evolution bred"
            f" {sum(n.generation > 0 for n in found)} of the {len(found)} networks on the front; the others were drawn."
        )
        names = [f"{module}, /{4 * 2 ** int(branch)}" for module, branch in zip(*np.nonzero(there), strict=True)]
        bars = {"front": depths.mean(0), "drawn from the groups": first_depths.mean(0)}
        plot = Bars(title="Depth of the branches", x="module and branch", y="mean blocks", names=names, bars=bars)
        about = "Mean number of blocks in each branch of each module, on the front and in the networks drawn first."
        yield Picture("depths", plot, about, wide=True)
        yield Table.of(
            "The networks on the front.",
            [
                {
                    "network": name,
                    "generation": str(network.generation),
                    "mean blocks per branch": f"{depth:.2f}",
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
            "Networks drawn first, by the sampling group with the closest mean depth and share of paths.", rows
        )

    def architectures(self) -> Parts:
        """Drawings of networks on the front, from the cheapest to the most expensive."""
        if specs := [self.run.specs[name] for name in self.front if name in self.run.specs]:
            places = np.unique(np.linspace(0, len(specs) - 1, DRAWN).round().astype(int)).tolist()
            drawn = [specs[place] for place in places]
            costs = ", ".join(f"{spec.name} with {format_count(spec.cost.macs)} MACs" for spec in drawn)
            about = f"The blocks of each branch, and the paths after each step, of {costs}."
            yield Picture("topologies", draw_topologies(drawn), about, wide=True)

    def more_costs(self, ledger: Ledger) -> dict[str, str]:
        """Return the number of latencies measured."""
        return {"latencies measured": f"{sum(len(each.networks) for each in ledger.latency_rounds):,}"}


def hypervolumes(ledger: Ledger, most: int) -> np.ndarray:
    """Return the number of networks scored and their front's hypervolume, MACs as shares of `most`: (points, 2)."""
    networks = [network for network in ledger.networks if network.score is not None]
    known = ScoredTopologies(
        _space(ledger).from_keys([network.key for network in networks]),
        np.array([network.score for network in networks]),
        np.array([network.macs for network in networks]),
    )
    counts = np.unique(np.linspace(1, len(known), POINTS).round().astype(int))
    return np.array([(count, known[:count].hypervolume(most)) for count in counts.tolist()])


def closest_groups(space: MultipathSpace, topologies: Topologies) -> list[int]:
    """Return, for each topology, the position of the group closest to it in mean depth and share of paths."""
    there = topologies.depth[0] > 0
    found = np.stack([topologies.depth[:, there].mean(1), _paths(space, topologies)], axis=1)
    groups = np.array([(np.mean(group.depths), group.fusion) for group in space.groups.all])
    distances: np.ndarray = np.linalg.norm(found[:, None] - groups, axis=2)
    return [int(place) for place in distances.argmin(1)]


def _paths(space: MultipathSpace, topologies: Topologies) -> np.ndarray:
    """Return the share of possible paths that each of n topologies has, (n,); paths follow a branch's own blocks."""
    steps = np.arange(topologies.fusion.shape[3])[:, None]
    possible = space.connections & (steps < topologies.depth[..., None, None])
    shares: np.ndarray = (topologies.fusion & possible).sum((1, 2, 3, 4)) / np.maximum(1, possible.sum((1, 2, 3, 4)))
    return shares


def _space(ledger: Ledger) -> MultipathSpace:
    return MultipathSpace.from_values(ledger.space, "space")
