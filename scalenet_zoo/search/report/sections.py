"""The report of a search: sections of text, figures and tables, those that are the same for every method.

What a section needs and the run does not have is left out, and a sentence says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import AnyLedger, ScoredNetwork, flatten
from scalenet_zoo.search.report.data import RunFiles
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREY, Curve, Style, draw_costs, draw_curves, style_of
from scalenet_zoo.search.standalone import StandaloneRow, TrainedAlone

Look = tuple[str, Style]
"""Of networks: what they are called, and how they are drawn."""


COSTS: Mapping[str, tuple[Callable[[ScoredNetwork], float | None], Callable[[StandaloneRow], float | None]]] = {
    "MACs": (lambda network: network.macs, lambda row: row.macs),
    "latency (ms)": (lambda network: network.measured_ms, lambda row: row.latency_ms),
}
"""What networks are drawn over: of those scored, and of those trained alone."""


@dataclass(frozen=True)
class Table:
    """A table; `align` has l (text), w (text of many words) or r (figures) for every column."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, str]], align: str = "") -> Self:
        """Rows, one at least, with a cell a column; the first column is text, the others figures if nothing is said."""
        cells = [tuple(row.values()) for row in rows]
        return cls(caption, tuple(rows[0]), cells, align or "l" + "r" * (len(rows[0]) - 1))

    @classmethod
    def of_facts(cls, caption: str, facts: Mapping[str, object], align: str) -> Self:
        """Names and values, without a head."""
        return cls(caption, ("", ""), [(name, str(value)) for name, value in facts.items()], align)


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is that of its file, `alt` tells what is seen, a wide one may be scrolled on narrow screens."""

    name: str
    figure: Figure
    alt: str
    wide: bool = False


@dataclass(frozen=True)
class Listing:
    """The text of a file."""

    text: str


Parts = Iterator[str | Picture | Table | Listing]
"""What a section is made of, strings being paragraphs."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    parts: Sequence[str | Picture | Table | Listing]


class MethodReport(ABC, Generic[AnyLedger]):
    """What the page says of a run; a method adds what is its own.

    Attributes:
        run: what there is of it.
        ledgers: of the searches, by name.
        own: the ledger of the method's own search; None: it has not begun.
        looks: of the searches, the method's own first.
        known: look of other networks that are trained alone, by their group.
        groups: looks of all groups of networks trained alone that are drawn.
        reached: what networks trained alone are judged by.
        searched: what was searched, as the beginning of a sentence.
        costs_caption: of the table of searches.
    """

    looks: ClassVar[Mapping[str, Look]]
    known: ClassVar[Mapping[str, Look]] = {}
    reached: ClassVar[str]
    searched: ClassVar[str]
    costs_caption: ClassVar[str]

    def __init__(self, run: RunFiles) -> None:
        own, look = next(iter(self.looks.items()))
        self.run = run
        self.ledgers: Mapping[str, AnyLedger] = run.ledgers
        self.own: AnyLedger | None = self.ledgers.get(own)
        self.groups = {"found": look, **self.looks, **self.known}

    @abstractmethod
    def contents(self) -> list[tuple[str, str, Parts]]:
        """The method's own sections: id, title and parts."""

    def sections(self) -> list[Section]:
        """All sections, the method's own first."""
        shared = [
            ("prediction", "Predicted and measured latency", self.prediction()),
            ("ranks", "Does the supernet rank networks rightly?", self.ranks()),
            ("costs", "What it cost", self.costs()),
            ("supernet", "Training of the supernet", self.training()),
            ("provenance", "Provenance", self.provenance()),
        ]
        return [Section(name, title, tuple(parts)) for name, title, parts in (*self.contents(), *shared)]

    @property
    def title(self) -> str:
        """Of the page."""
        named = self.run.family or self.own
        return f"{named.name if named else self.run.folder.resolve().name}: report of a search"

    @property
    def summary(self) -> str:
        """What the page says first."""
        if not (own := self.own):
            return f"There is no {next(iter(self.looks.values()))[0]} in this run yet."
        scored = f"{own.evaluations:,} networks have been scored with {own.images:,} images"
        if not own.ended:
            return f"The search in the space {own.space_name} has not ended; what follows is known so far. {scored}."
        return f"{self.searched} in the space {own.space_name}: {scored}{self.outcome}."

    @property
    def outcome(self) -> str:
        """What the search has come to, as the end of a sentence."""
        return ""

    def more_costs(self, ledger: AnyLedger) -> dict[str, str]:
        """Cells that the table of searches has besides."""
        return {}

    @property
    def found_alone(self) -> list[TrainedAlone]:
        """What the method's own search found, trained alone."""
        return [network for network in self.run.trained if network.first.group == "found"]

    # --- sections ---------------------------------------------------------------------------------

    def prediction(self) -> Parts:
        """Predicted and measured latency."""
        rounds = [each for each in self.own.latency_rounds if each.networks] if self.own else []
        if not rounds:
            yield "No latencies are predicted and measured: they are not limited, or no round has ended."
            return
        rows, curves = [], []
        colours = colormaps["viridis"](np.linspace(0, 0.75, len(rounds)))
        for number, each in enumerate(rounds):
            measured, predicted = points = np.array([(one.measured, one.predicted) for one in each.networks]).T
            curves.append(Curve(f"round {each.round}", points.T, {**style_of(number), "color": colours[number]}))
            errors = predicted / measured - 1
            rho, _ = _rank_correlation(spearmanr, predicted, measured)
            rows.append(
                {
                    "round": str(each.round),
                    "networks": str(len(errors)),
                    "rms error": f"{np.sqrt(np.mean(errors**2)):.1%}",
                    "worst error": f"{np.abs(errors).max():.1%}",
                    "Spearman's rank correlation": cell(rho, ".3f"),
                }
            )
        values = np.concatenate([curve.points.ravel() for curve in curves])
        ends = np.array([0.95 * values.min(), 1.05 * values.max()])
        diagonal = Curve("exact", np.stack([ends, ends], axis=1), {"color": GREY, "linestyle": "--"})
        plot = draw_curves("Predicted and measured latency", "measured (ms)", "predicted (ms)", [diagonal, *curves])
        plot.axes[0].set_aspect("equal")
        yield "Each round is predicted before its measurements are used to fit the model anew."
        alt = "Plot of predicted over measured latency of networks, by round, with the diagonal."
        yield Picture("latency_prediction", plot, alt)
        yield Table.of("Errors are of predicted / measured - 1.", rows, "rrrrr")

    def ranks(self) -> Parts:
        """The supernet's scores against networks trained alone."""
        networks = [network for network in self.run.trained if network.first.score is not None]
        if len(networks) < 2:
            yield "Fewer than two networks with a score have been trained alone: nothing to correlate."
            return
        stages = sorted({network.first.stage for network in networks})
        by_stage = {f"stage {stage}": [n for n in networks if n.first.stage == stage] for stage in stages if stages[1:]}
        rows, curves = [], []
        for number, (name, these) in enumerate((by_stage or {"networks": networks}).items()):
            points = np.array([(n.first.score, n.reached, n.spread) for n in these], dtype=np.float64)
            curves.append(Curve(name, 100 * points, style_of(number)))
        for name, these in {"all": networks, **by_stage}.items():
            scores, reached = np.array([(network.first.score, network.reached) for network in these]).T
            tau, p = _rank_correlation(kendalltau, scores, reached)
            cells = {"how many": str(len(these)), "Kendall's tau": cell(tau, ".3f"), "p-value": cell(p, ".2g")}
            rows.append({"networks": name, **cells})
        yield (
            "Kendall's tau between the supernet's score and the accuracy of the same network trained alone (the mean"
            " over its seeds). Over all sizes it profits from large networks being better on both sides; within a stage"
            " it does not."
        )
        axes = "supernet score (%)", "stand-alone accuracy (%)"
        plot = draw_curves("Supernet score and stand-alone accuracy", *axes, curves)
        yield Picture("rank_correlation", plot, "Plot of stand-alone accuracy over supernet score, by scaling stage.")
        yield Table.of("The p-value is that of no association, two-sided.", rows)
        if drawn := [network for network in networks if network.first.group == "rank"]:
            yield self.trained_table(drawn)

    def costs(self) -> Parts:
        """What supernet and searches cost."""
        if summary := self.run.summary:
            spent = {
                "steps": summary.steps,
                "images, forward and backward": summary.images,
                "MACs of these images, forward": summary.image_macs,
                "seconds": summary.seconds,
            }
            yield Table.of_facts("Training of the supernet.", {name: f"{n:,}" for name, n in spent.items()}, "lr")
        else:
            yield "The training of the supernet left no summary: it has not ended."
        if not self.ledgers:
            yield "No search has begun."
            return
        rows = [
            {
                "search": self.looks[search][0] + ("" if ledger.ended else " (not ended)"),
                "networks scored": f"{ledger.evaluations:,}",
                "images, forward": f"{ledger.images:,}",
                "seconds": f"{ledger.seconds:,.1f}",
                "of these scoring (s)": f"{ledger.scoring_seconds:,.1f}",
                "outside scoring (%)": percent(1 - ledger.scoring_seconds / ledger.seconds if ledger.seconds else None),
                **self.more_costs(ledger),
            }
            for search, ledger in self.ledgers.items()
        ]
        yield Table.of(self.costs_caption, rows)

    def training(self) -> Parts:
        """The supernet's loss."""
        lines = self.run.log
        if not lines:
            yield "There is no log of the supernet's training."
            return
        speeds = [speed for line in lines if isinstance(speed := line.get("images_per_second"), int | float)]
        speed = f", at {np.median(speeds):,.1f} images a second (median)" if speeds else ""
        yield f"{lines[-1]['step']:,} steps are logged{speed}. Every step trains another network."
        steps, losses = logged = np.array([(line["step"], line["loss"]) for line in lines]).T
        window = max(1, len(losses) // 20)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        curves = [
            Curve("logged: the loss of what was drawn", logged.T, DOTS),
            Curve(f"mean of {window} lines", np.stack([steps[window - 1 :], smooth], axis=1), {"color": BLUE}),
        ]
        plot = draw_curves("Training of the supernet", "step", "training loss", curves)
        yield Picture("supernet_training", plot, "Plot of the training loss over steps.")

    def provenance(self) -> Parts:
        """How a run came about: settings, versions, machine and configuration."""
        facts: dict[str, object] = {"folder": self.run.folder.resolve().name}
        if self.own:
            facts |= {"space": self.own.space_name, "space's sha256": self.own.space_hash}
            facts |= flatten(self.own.settings)
        if self.run.family:
            facts |= flatten(self.run.family.provenance.model_dump(exclude_defaults=True), "family.")
        facts |= flatten(self.run.about.model_dump() if self.run.about else {})
        yield "The configuration stands below." if self.run.config else "There is no config.yaml in this run's folder."
        yield Table.of_facts("How this run came about: settings, versions, machine.", facts, "lw")
        if self.run.config:
            yield Listing(self.run.config)

    # --- what sections are made of ----------------------------------------------------------------

    def draw_found(self, name: str, over: str, before: Sequence[Curve] = ()) -> Iterator[Picture]:
        """A plot of scores over a cost, if there are any.

        Args:
            name: of the plot.
            over: one of `COSTS`.
            before: other curves to draw, first.
        """
        searches = [(self.looks[search], scored(ledger.found, over)) for search, ledger in self.ledgers.items()]
        if curves := [*before, *(_curve(look, points) for look, points in searches if len(points))]:
            plot = draw_costs("Supernet scores", "supernet score", curves, over)
            yield Picture(name, plot, f"Plot of supernet scores over {over} of the networks that each search found.")

    def draw_trained(self, name: str, over: str) -> Iterator[Picture]:
        """A plot of what networks trained alone reach over a cost, if there are any; see `draw_found`."""
        groups: dict[str, list[tuple[float, ...]]] = {group: [] for group in self.groups}
        for network in self.run.trained:
            if network.first.group in groups and (cost := COSTS[over][1](network.first)) is not None:
                groups[network.first.group].append((cost, 100 * network.reached, 100 * network.spread))
        if curves := [_curve(self.groups[group], np.array(points)) for group, points in groups.items() if points]:
            plot = draw_costs("Networks trained alone", self.reached, curves, over)
            yield Picture(name, plot, f"Plot: {self.reached} over {over}, by search, with the spread over seeds.")

    def trained_table(self, networks: Iterable[TrainedAlone]) -> Table:
        """A table of networks trained alone."""
        rows = [
            {
                "network": row.name,
                "group": row.group,
                "stage": str(row.stage),
                "MACs": format_count(row.macs),
                "parameters": format_count(row.params),
                "epochs": str(row.epochs),
                "supernet score (%)": percent(row.score),
                "stand-alone accuracy (%)": mean_alone(network),
            }
            for network in sorted(networks, key=lambda network: (network.first.stage, network.first.macs))
            for row in [network.first]
        ]
        caption = "Networks trained alone: mean over seeds, with their standard deviation and their number."
        return Table.of(caption, rows, "llrrrrrr")


def scored(networks: Iterable[ScoredNetwork], over: str) -> np.ndarray:
    """Cost and score in percent, (n, 2), of those networks that have both."""
    points = [(x, 100 * n.score) for n in networks if n.score is not None and (x := COSTS[over][0](n)) is not None]
    return np.array(points).reshape(-1, 2)


def _curve(look: Look, points: np.ndarray) -> Curve:
    """Networks (n, 2 or 3), from the cheapest."""
    return Curve(look[0], points[np.argsort(points[:, 0], kind="stable")], look[1])


def _rank_correlation(of: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """A rank correlation of SciPy and its p-value; None: not defined for so few values or for equal ones."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    result = of(x, y)
    return float(result.statistic), float(result.pvalue)


def cell(value: float | None, form: str) -> str:
    """A number as a cell, or a dash."""
    return "-" if value is None else format(value, form)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return cell(share, ".2%").removesuffix("%")


def mean_alone(network: TrainedAlone | None) -> str:
    """What a network trained alone reaches, over its seeds."""
    if not network:
        return "-"
    spread = f" ± {percent(network.spread)}" if network.seeds > 1 else ""
    return f"{percent(network.reached)}{spread} ({network.seeds})"
