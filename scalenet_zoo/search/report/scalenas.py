"""The sections of the report about a search of topologies: each a function from a run to text, figures and tables."""

from collections.abc import Sequence

import numpy as np

from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.report import plots
from scalenet_zoo.search.report.data import TopologyRun
from scalenet_zoo.search.report.drawing import draw_topologies
from scalenet_zoo.search.report.plots import Curve
from scalenet_zoo.search.report.sections import (
    COST_COLUMNS,
    Picture,
    Section,
    Table,
    cost_cells,
    in_percent,
    mean_alone,
    prediction,
    provenance,
    ranks,
    training,
    training_cost,
)
from scalenet_zoo.search.scalenas.state import ScoredTopology, TopologyState
from scalenet_zoo.search.scalenas.topology import Scored
from scalenet_zoo.search.scalenet.state import flatten
from scalenet_zoo.spaces.scalenas import Group, Topologies

LOOKS = {
    "evolution": ("topology evolution", plots.BLUE, "o"),
    "random": ("random search", plots.ORANGE, "s"),
    "ageing": ("ageing evolution", plots.GREEN, "^"),
}
"""Ways to search: name, colour and marker."""
TRAINED = {
    "found": LOOKS["evolution"],
    "random": LOOKS["random"],
    "ageing": LOOKS["ageing"],
    "known": ("published networks", plots.RED, "D"),
}
"""Networks trained alone, by group."""
POINTS = 50
"""Of a curve of hypervolumes."""
DRAWN = 3
"""Networks of the front that are drawn."""


def _front(run: TopologyRun) -> Section:
    section = Section("front", "The front")
    if not run.found:
        section.text.append("Topology evolution has not begun.")
        return section
    section.tables.append(
        Table(
            "Networks that no other one within the limits beats in score and MACs. The score is with shared weights;"
            " stand-alone figures are the mean over seeds, with their standard deviation and their number.",
            (
                *("network", "MACs", "parameters", "latency, predicted (ms)", "measured (ms)"),
                *("supernet score (%)", "stand-alone (%)"),
            ),
            [
                [
                    *(name, format_count(network.macs), format_count(network.params)),
                    *(_ms(network.latency_ms), _ms(network.measured_ms)),
                    *(in_percent(network.score), mean_alone(alone)),
                ]
                for name, network, alone in run.found
            ],
            "lrrrrrr",
        )
    )
    return section


def _scores(run: TopologyRun) -> Section:
    section = Section("scores", "Score against cost")
    for name, over, figures in (("macs", "MACs", _macs), ("latency", "latency (ms)", _latencies)):
        curves = []
        if run.evolution and len(scored := figures(run.evolution.networks)):
            curves.append(Curve("scored by evolution", scored, plots.SKY, ".", "", 3))
        for method, state in run.states.items():
            if len(front := figures(state.found)):
                curves.append(Curve(LOOKS[method][0], front[np.argsort(front[:, 0])], *LOOKS[method][1:]))
        if curves:
            section.pictures.append(
                Picture(
                    f"scores_{name}",
                    plots.plot_accuracy("Fronts of supernet scores", "supernet score", curves, over),
                    f"Plot of supernet scores over {over}: networks scored, and the front of each way to search.",
                )
            )
    alone = []
    for group, look in TRAINED.items():
        points = [(t.first.macs, t.reached, t.spread) for t in run.trained if t.first.group == group]
        alone += [Curve(look[0], np.array(sorted(points)), *look[1:])] if points else []
    if alone:
        section.pictures.append(
            Picture(
                "scores_standalone",
                plots.plot_accuracy("Networks trained alone", "stand-alone figure", alone, "MACs"),
                "Plot of what networks trained alone reach over their MACs, with the spread over seeds.",
            )
        )
    if not section.pictures:
        section.text.append("No network has been scored yet.")
    return section


def _hypervolume(run: TopologyRun) -> Section:
    section = Section("hypervolume", "Hypervolume over evaluations")
    if not run.states:
        section.text.append("No search has begun.")
        return section
    most = max(network.macs for state in run.states.values() for network in state.networks)
    curves, rows = [], []
    for method, state in run.states.items():
        volumes = hypervolumes(state, most)
        name, colour, _ = LOOKS[method]
        curves.append(Curve(name, volumes, colour))
        rows.append([name, f"{len(state.networks):,}", str(len(state.front)), f"{volumes[-1, 1]:.4f}"])
    section.text.append(
        "The area under the front, scores from 0 to 1 and MACs as shares of the most that any network scored here has"
        f" ({format_count(most)})."
    )
    section.pictures.append(
        Picture(
            "hypervolume",
            plots.plot_hypervolumes(curves),
            "Plot of the hypervolume of each way to search over the networks scored.",
        )
    )
    section.tables.append(
        Table(
            "All networks scored, as they came.",
            ("search", "networks scored", "on the front", "hypervolume"),
            rows,
            "lrrr",
        )
    )
    return section


def hypervolumes(state: TopologyState, most: int) -> np.ndarray:
    """Networks scored, and the hypervolume of their front with MACs as shares of `most`, (points, 2)."""
    topologies = state.space.from_keys([network.key for network in state.networks])
    known = Scored(
        topologies,
        np.array([network.score for network in state.networks]),
        np.array([network.macs for network in state.networks]),
    )
    counts = np.unique(np.linspace(1, len(known), POINTS).round().astype(int))
    return np.array([(count, known[:count].hypervolume(most)) for count in counts.tolist()])


def _topologies(run: TopologyRun) -> Section:
    section = Section("topologies", "What the front is made of")
    state = run.evolution
    if not state or not state.front:
        section.text.append("Topology evolution has not begun.")
        return section
    space = state.space
    drawn = [network for network in state.networks if network.generation == 0]
    front, first = (space.from_keys([n.key for n in networks]) for networks in (state.found, drawn))
    on, off = (_paths(state, topologies) for topologies in (front, first))
    there = front.depth[0] > 0
    names = [f"{m}, /{4 * 2**b}" for m, branch in zip(*np.nonzero(there), strict=True) for b in [int(branch)]]
    section.text.append(
        f"Branches of the front have {front.depth[:, there].mean():.2f} blocks on average, those of the networks drawn"
        f" first {first.depth[:, there].mean():.2f}; of the paths that there could be, {on.mean():.1%} are on, against"
        f" {off.mean():.1%}. {sum(n.generation > 0 for n in state.found)} of {len(state.found)} networks of the front"
        " were bred, the others drawn."
    )
    section.pictures.append(
        Picture(
            "depths",
            plots.plot_depths(names, front.depth[:, there].mean(0), first.depth[:, there].mean(0)),
            "Bars: mean number of blocks of each branch of each module, of the front and of networks drawn first.",
            wide=True,
        )
    )
    section.tables.append(
        Table(
            "Networks of the front.",
            ("network", "generation", "mean blocks of a branch", "paths on (%)"),
            [
                [name, str(network.generation), f"{depth:.2f}", in_percent(share)]
                for (name, network, _), depth, share in zip(
                    run.found, front.depth[:, there].mean(1).tolist(), on.tolist(), strict=True
                )
            ],
            "lrrr",
        )
    )
    groups = closest_groups(state, first)
    kept = set(state.front)
    rows = []
    for g, group in enumerate(space.groups.all):
        scores = [network.score for network, of in zip(drawn, groups, strict=True) if of == g]
        rows.append(
            [
                f"{list(group.depths)}",
                f"{group.fusion:g}",
                str(len(scores)),
                in_percent(float(np.mean(scores)) if scores else None),
                str(sum(of == g and place in kept for place, of in enumerate(groups))),
            ]
        )
    section.tables.append(
        Table(
            "Networks drawn first, by the group that their mean depth and share of paths are closest to.",
            ("depths", "fusion", "networks", "mean score (%)", "on the front"),
            rows,
            "lrrrr",
        )
    )
    return section


def closest_groups(state: TopologyState, topologies: Topologies) -> list[int]:
    """The place of the group that each topology is most like: its mean depth, and its share of paths."""

    def middle(group: Group) -> tuple[float, float]:
        return float(np.mean(group.depths)), group.fusion

    there = topologies.depth[0] > 0
    found = np.stack([topologies.depth[:, there].mean(1), _paths(state, topologies)], axis=1)
    groups = np.array([middle(group) for group in state.space.groups.all])
    distances: np.ndarray = np.linalg.norm(found[:, None] - groups, axis=2)
    return [int(place) for place in distances.argmin(1)]


def _paths(state: TopologyState, topologies: Topologies) -> np.ndarray:
    """The share of its possible paths that each of n topologies has, (n,): of those after a branch's own blocks."""
    possible = state.space.connections & (
        np.arange(topologies.fusion.shape[3])[:, None] < topologies.depth[..., None, None]
    )
    shares: np.ndarray = (topologies.fusion & possible).sum((1, 2, 3, 4)) / np.maximum(1, possible.sum((1, 2, 3, 4)))
    return shares


def _drawing(run: TopologyRun) -> Section:
    section = Section("architectures", "Architectures")
    specs = [run.specs[name] for name, _, _ in run.found if name in run.specs]
    if not specs:
        section.text.append("There are no specs yet, so nothing to draw.")
        return section
    places = np.unique(np.linspace(0, len(specs) - 1, DRAWN).round().astype(int))
    section.pictures.append(
        Picture(
            "topologies",
            draw_topologies([specs[place] for place in places]),
            "Drawing of networks from the cheapest on: blocks of each branch, and the paths after each step.",
            wide=True,
        )
    )
    return section


def _prediction(run: TopologyRun) -> Section:
    return prediction(run.evolution.latency_rounds if run.evolution else ())


def _costs(run: TopologyRun) -> Section:
    section = training_cost(run)
    if not run.states:
        section.text.append("No search has begun.")
        return section
    rows = []
    for method, state in run.states.items():
        rows.append(
            [
                *cost_cells(LOOKS[method][0], len(state.networks), state, state.done),
                f"{sum(len(each.networks) for each in state.latency_rounds):,}",
            ]
        )
    section.tables.append(
        Table(
            "Searches. Images are counted once a forward pass, those for batch-norm statistics, too. A network"
            " that another search of this run scored before takes no time.",
            (*COST_COLUMNS, "latencies measured"),
            rows,
            "lrrrrrr",
        )
    )
    return section


def _provenance(run: TopologyRun) -> Section:
    rows: list[tuple[str, object]] = []
    if state := run.evolution:
        rows += [("space", state.space.name), ("space's sha256", state.space.hash), ("classes", state.classes)]
        asked = state.model_dump(mode="json", include={"settings", "context", "limits"}, exclude_none=True)
        rows += flatten(asked).items()
    return provenance(run, rows)


SECTIONS = (
    *(_front, _scores, _hypervolume, _topologies, _drawing),
    *(_prediction, ranks, _costs, training, _provenance),
)


def title(run: TopologyRun) -> str:
    """Of the page."""
    return f"{run.evolution.name if run.evolution else run.folder.resolve().name}: report of a search"


def summary(run: TopologyRun) -> str:
    """What the page says first."""
    if not (state := run.evolution):
        return "There is no topology evolution in this run yet."
    scored = f"{len(state.networks):,} networks have been scored with {state.images:,} images"
    if not state.done:
        return f"The search in the space {state.space.name} has not ended; what follows is known so far. {scored}."
    return f"Topologies were searched in the space {state.space.name}: {scored}; {len(state.front)} are on the front."


def _macs(networks: Sequence[ScoredTopology]) -> np.ndarray:
    return np.array([(network.macs, network.score) for network in networks])


def _latencies(networks: Sequence[ScoredTopology]) -> np.ndarray:
    return np.array([(n.measured_ms, n.score) for n in networks if n.measured_ms is not None])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
