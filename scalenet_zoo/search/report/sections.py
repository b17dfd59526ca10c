"""The report of a search: its headline, the next commands, and the sections that all methods share.

A section that has nothing to show is left out.
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
from scalenet_zoo.search.report.next_commands import NextCommand, resume_command
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREY, MACS, Bars, Curve, Plot, Style, describe, style_of
from scalenet_zoo.search.standalone import StandaloneRow, TrainedAlone

Look = tuple[str, Style]
"""The label of a group of networks, and the style in which they are drawn."""


COSTS: Mapping[str, tuple[Callable[[ScoredNetwork], float | None], Callable[[StandaloneRow], float | None]]] = {
    MACS: (lambda network: network.macs, lambda row: row.macs),
    "latency (ms)": (lambda network: network.measured_ms, lambda row: row.latency_ms),
}
"""The costs that plots have on their horizontal axis: of scored networks, and of networks trained alone."""


@dataclass(frozen=True)
class Table:
    """A table; `align` has one letter per column: l (text), w (text that wraps) or r (figures)."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, str]], align: str = "") -> Self:
        """Make a table of one or more rows, given as cells by column. By default, only the first column is text.

        Columns in which no row has a value are left out.
        """
        align = align or "l" + "r" * (len(rows[0]) - 1)
        kept = [
            (name, side) for name, side in zip(rows[0], align, strict=True) if any(row[name] != "-" for row in rows)
        ]
        cells = [tuple(row[name] for name, _ in kept) for row in rows]
        return cls(caption, tuple(name for name, _ in kept), cells, "".join(side for _, side in kept))

    @classmethod
    def of_facts(cls, caption: str, facts: Mapping[str, object], align: str) -> Self:
        """Make a table of names and values, without a header."""
        return cls(caption, ("", ""), [(name, str(value)) for name, value in facts.items()], align)


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: the name of its file.
        content: a plot, which the page also shows as an interactive chart, or a drawing.
        about: what the figure shows.
        wide: whether the page scrolls it sideways on narrow screens.
    """

    name: str
    content: Plot | Bars | Figure
    about: str
    wide: bool = False

    @property
    def alt(self) -> str:
        """The text alternative: what the figure shows and, for a plot, its values."""
        return self.about if isinstance(self.content, Figure) else f"{self.about} {describe(self.content)}"


@dataclass(frozen=True)
class Listing:
    """The text of a file."""

    text: str


Parts = Iterator[str | Picture | Table | Listing]
"""The parts of a section; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    parts: Sequence[str | Picture | Table | Listing]


class MethodReport(ABC, Generic[AnyLedger]):
    """The content of the page about a run. Each method adds sections of its own.

    Attributes:
        run: the files of the run.
        ledgers: the ledgers of the searches, by name.
        own: the ledger of the method's own search; None: it has not begun.
        looks: labels and styles of the searches, the method's own first.
        known: labels and styles of other networks that are trained alone, by their group.
        groups: labels and styles of all groups of networks trained alone that are drawn.
        reached: the metric by which networks trained alone are judged.
        searched: what was searched, as the beginning of a sentence.
        costs_caption: the caption of the table of searches.
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
        """Return the method's own sections: id, title and parts."""

    @abstractmethod
    def outcome(self) -> list[str]:
        """Say what the search found, in a few sentences; empty: it has found nothing yet."""

    @abstractmethod
    def use_commands(self) -> list[NextCommand]:
        """Return the commands that use what the search found; empty: it has found nothing yet."""

    @abstractmethod
    def names_of(self, ledger: AnyLedger) -> list[str]:
        """Name the networks that a search found, in the order of `ledger.found`."""

    def sections(self) -> list[Section]:
        """Return all sections that have something to show, the method's own first."""
        shared = [
            ("prediction", "Predicted and measured latency", self.prediction()),
            ("ranks", "Does the supernet rank networks correctly?", self.ranks()),
            ("costs", "Cost of the search", self.costs()),
            ("supernet", "Training of the supernet", self.training()),
            ("provenance", "Provenance", self.provenance()),
        ]
        made = [Section(name, title, tuple(parts)) for name, title, parts in (*self.contents(), *shared)]
        return [section for section in made if section.parts]

    @property
    def title(self) -> str:
        """The title of the page."""
        named = self.run.family or self.own
        return f"{named.name if named else self.run.folder.resolve().name}: report of a search"

    @property
    def headline(self) -> list[str]:
        """The paragraphs at the top of the page: what the search found, or how far it is."""
        search = next(iter(self.looks.values()))[0]
        if not (own := self.own):
            trained = "trained" if self.run.summary else "not fully trained"
            state = f"The supernet is {trained}. " if self.run.log or self.run.summary else ""
            return [*self.outcome(), f"{state}This run has no {search} yet."]
        scored = f"{own.evaluations:,} networks were scored with {own.images:,} images"
        if own.ended:
            return [*self.outcome(), f"{self.searched} in the space {own.space_name}; {scored}."]
        unfinished = f"The search in the space {own.space_name} has not ended, so this report shows its present state."
        return [f"{unfinished} So far, {scored}.", *self.outcome()]

    @property
    def next_commands(self) -> list[NextCommand]:
        """The commands at the top of the page: to use what was found, or to resume the search."""
        ended = self.own is not None and self.own.ended
        return self.use_commands() if ended else [*resume_command(self.run), *self.use_commands()]

    def more_costs(self, ledger: AnyLedger) -> dict[str, str]:
        """Return further cells for a search in the table of searches."""
        return {}

    @property
    def found_alone(self) -> list[TrainedAlone]:
        """The networks that the method's own search found, as trained alone."""
        return [network for network in self.run.trained if network.first.group == "found"]

    @property
    def best_alone(self) -> str:
        """What the best of the networks found reaches when it is trained alone, as a sentence; empty: none was."""
        best = max(self.found_alone, key=lambda network: network.reached, default=None)
        if not best:
            return ""
        spread = f" (± {percent(best.spread)} over {best.seeds} seeds)" if best.seeds > 1 else ""
        return f" Trained alone, {best.first.name} reaches {percent(best.reached)}%{spread}."

    # --- sections ---------------------------------------------------------------------------------

    def prediction(self) -> Parts:
        """Predicted and measured latency."""
        rounds = [each for each in self.own.latency_rounds if each.networks] if self.own else []
        if not rounds:
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
        plot = Plot(
            title="Predicted and measured latency",
            x="measured (ms)",
            y="predicted (ms)",
            curves=[diagonal, *curves],
            square=True,
        )
        yield "In each round, the model predicts latencies before it is fitted again to the round's measurements."
        yield Picture("latency_prediction", plot, "Predicted against measured latency by round, with the diagonal.")
        yield Table.of("Errors of predicted / measured - 1, by round.", rows, "rrrrr")

    def ranks(self) -> Parts:
        """How well the supernet's scores rank networks that were also trained alone."""
        networks = [network for network in self.run.trained if network.first.score is not None]
        if len(networks) < 2:
            return
        stages = sorted({network.first.stage for network in networks})
        by_stage = {f"stage {stage}": [n for n in networks if n.first.stage == stage] for stage in stages if stages[1:]}
        rows, curves = [], []
        for number, (name, these) in enumerate((by_stage or {"networks": networks}).items()):
            points = np.array([(n.first.score, n.reached, n.spread) for n in these], dtype=np.float64)
            curves.append(Curve(name, 100 * points, style_of(number), [n.first.name for n in these]))
        for name, these in {"all": networks, **by_stage}.items():
            scores, reached = np.array([(network.first.score, network.reached) for network in these]).T
            tau, p = _rank_correlation(kendalltau, scores, reached)
            cells = {"how many": str(len(these)), "Kendall's tau": cell(tau, ".3f"), "p-value": cell(p, ".2g")}
            rows.append({"networks": name, **cells})
        yield (
            "Kendall's tau between the supernet's score and the accuracy of the same network trained alone (the mean"
            " over its seeds). Over all sizes, tau is higher because large networks are better on both sides. Within a"
            " stage it has no such help."
        )
        plot = Plot(
            title="Supernet score and stand-alone accuracy",
            x="supernet score (%)",
            y="stand-alone accuracy (%)",
            curves=curves,
        )
        yield Picture("rank_correlation", plot, "Stand-alone accuracy against supernet score, by scaling stage.")
        yield Table.of("Rank correlation. The p-value is two-sided, for the hypothesis of no association.", rows)
        if drawn := [network for network in networks if network.first.group == "rank"]:
            yield self.trained_table(drawn)

    def costs(self) -> Parts:
        """The cost of the supernet's training and of each search."""
        if summary := self.run.summary:
            spent = {
                "steps": summary.steps,
                "images, forward and backward": summary.images,
                "MACs of these images, forward": summary.image_macs,
                "seconds": summary.seconds,
            }
            yield Table.of_facts("Cost of training the supernet.", {name: f"{n:,}" for name, n in spent.items()}, "lr")
        if not self.ledgers:
            return
        rows = [
            {
                "search": self.looks[search][0] + ("" if ledger.ended else " (not ended)"),
                "networks scored": f"{ledger.evaluations:,}",
                "images, forward": f"{ledger.images:,}",
                "seconds": f"{ledger.seconds:,.1f}",
                "of which scoring (s)": f"{ledger.scoring_seconds:,.1f}",
                "outside scoring (%)": percent(1 - ledger.scoring_seconds / ledger.seconds if ledger.seconds else None),
                **self.more_costs(ledger),
            }
            for search, ledger in self.ledgers.items()
        ]
        yield Table.of(self.costs_caption, rows)

    def training(self) -> Parts:
        """The loss of the supernet's training."""
        lines = self.run.log
        if not lines:
            return
        speeds = [speed for line in lines if isinstance(speed := line.get("images_per_second"), int | float)]
        speed = f", with a median of {np.median(speeds):,.1f} images per second" if speeds else ""
        unended = "" if self.run.summary else " The training has not ended."
        yield f"The log has {lines[-1]['step']:,} steps{speed}. Every step trains a different network.{unended}"
        steps, losses = logged = np.array([(line["step"], line["loss"]) for line in lines]).T
        window = max(1, len(losses) // 20)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        curves = [
            Curve("loss of the networks drawn, as logged", logged.T, DOTS),
            Curve(f"mean of {window} lines", np.stack([steps[window - 1 :], smooth], axis=1), {"color": BLUE}),
        ]
        plot = Plot(title="Training of the supernet", x="step", y="training loss", curves=curves)
        yield Picture("supernet_training", plot, "Training loss by step.")

    def provenance(self) -> Parts:
        """The origin of the results: settings, versions, machine and configuration."""
        facts: dict[str, object] = {"folder": self.run.folder.resolve().name}
        if self.own:
            facts |= {"space": self.own.space_name, "space's sha256": self.own.space_hash}
            facts |= flatten(self.own.settings)
        if self.run.family:
            facts |= flatten(self.run.family.provenance.model_dump(exclude_defaults=True), "family.")
        facts |= flatten(self.run.about.model_dump() if self.run.about else {})
        yield Table.of_facts("Settings, versions and machine of this run.", facts, "lw")
        if self.run.config:
            yield "The configuration, config.yaml:"
            yield Listing(self.run.config)

    # --- parts that sections share ----------------------------------------------------------------

    def draw_found(self, name: str, over: str, before: Sequence[Curve] = ()) -> Iterator[Picture]:
        """Plot scores against a cost, if there are any.

        Args:
            name: the name of the figure.
            over: one of `COSTS`.
            before: other curves, to be drawn first.
        """
        curves = [*before]
        for search, ledger in self.ledgers.items():
            points, names = scored(ledger.found, over, self.names_of(ledger))
            if len(points):
                curves.append(_curve(self.looks[search], points, names))
        if curves:
            plot = Plot(title="Supernet scores", x=over, y="supernet score (%)", curves=curves, scale="log")
            yield Picture(name, plot, f"Supernet scores against {over} of the networks that each search found.")

    def draw_trained(self, name: str, over: str) -> Iterator[Picture]:
        """Plot the results of networks trained alone against a cost, if there are any; see `draw_found`."""
        groups: dict[str, list[tuple[str, float, float, float]]] = {group: [] for group in self.groups}
        for network in self.run.trained:
            first = network.first
            if first.group in groups and (cost := COSTS[over][1](first)) is not None:
                groups[first.group].append((first.name, cost, 100 * network.reached, 100 * network.spread))
        curves = [
            _curve(self.groups[group], np.array([point[1:] for point in points]), [point[0] for point in points])
            for group, points in groups.items()
            if points
        ]
        if curves:
            plot = Plot(title="Networks trained alone", x=over, y=f"{self.reached} (%)", curves=curves, scale="log")
            about = (
                f"The {self.reached} of networks trained alone against {over}, by search, with the spread over seeds."
            )
            yield Picture(name, plot, about)

    def trained_table(self, networks: Iterable[TrainedAlone]) -> Table:
        """Make a table of networks trained alone."""
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
        caption = "Networks trained alone: mean over seeds, standard deviation, and number of seeds."
        return Table.of(caption, rows, "llrrrrrr")


def scored(networks: Sequence[ScoredNetwork], over: str, names: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Return cost and score in percent, (n, 2), of the networks that have both, and their names if names are given."""
    costs = [COSTS[over][0](network) for network in networks]
    kept = [i for i, network in enumerate(networks) if network.score is not None and costs[i] is not None]
    points = [(costs[i], 100 * (networks[i].score or 0.0)) for i in kept]
    return np.array(points, dtype=np.float64).reshape(-1, 2), [names[i] for i in kept] if names else []


def _curve(look: Look, points: np.ndarray, names: Sequence[str]) -> Curve:
    """Make a curve of networks (n, 2 or 3), ordered by cost."""
    order = np.argsort(points[:, 0], kind="stable").tolist()
    return Curve(look[0], points[order], look[1], [names[i] for i in order])


def _rank_correlation(of: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Compute a rank correlation of SciPy and its p-value; None: undefined, for too few values or equal ones."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    result = of(x, y)
    return float(result.statistic), float(result.pvalue)


def cell(value: float | None, form: str) -> str:
    """Write a number as a cell; None becomes a dash."""
    return "-" if value is None else format(value, form)


def percent(share: float | None) -> str:
    """Write a share as a percentage, without the sign."""
    return cell(share, ".2%").removesuffix("%")


def mean_alone(network: TrainedAlone | None) -> str:
    """Write the metric of a network trained alone in percent: mean, spread and number of seeds."""
    if not network:
        return "-"
    spread = f" ± {percent(network.spread)}" if network.seeds > 1 else ""
    return f"{percent(network.reached)}{spread} ({network.seeds})"
