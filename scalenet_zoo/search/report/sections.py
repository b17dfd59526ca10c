"""The sections of the report: each a function from a run to text, figures and tables.

What a section needs and the run does not have is left out, and a sentence says so.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

from scalenet_zoo.arch.cost import Population
from scalenet_zoo.arch.family import Strategy
from scalenet_zoo.arch.scaling import fit_growth_law
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.report import plots
from scalenet_zoo.search.report.data import Run, RunFiles
from scalenet_zoo.search.report.drawing import draw_architectures
from scalenet_zoo.search.report.plots import Curve
from scalenet_zoo.search.scalenas.state import TopologyRound, TopologyState
from scalenet_zoo.search.scalenet.state import LatencyRound, SearchState, flatten
from scalenet_zoo.search.standalone import TrainedAlone
from scalenet_zoo.spaces.scalenet import Scaling

LOOKS = {
    "joint": ("joint search", plots.BLUE, "o"),
    "random": ("random joint search", plots.ORANGE, "s"),
    "compound": ("base alone, compound rule", plots.RED, "D"),
    "separate": ("each size separately", plots.GREEN, "^"),
}
"""Ways to search: name, colour and marker."""
GROUPS = {"found": "joint", "random": "random", "compound": "compound"}
"""Networks trained alone, and the method that they come from."""
RANKED = 3
"""Strategies of a stage in the table of the last ranking."""
BACKWARD = 2
"""Forward passes that a backward pass costs."""
COST_COLUMNS = (
    "search",
    "networks scored",
    "images, forward",
    "seconds",
    "of these scoring (s)",
    "outside scoring (%)",
)
"""What a table of searches says of each; see `cost_cells`."""


@dataclass(frozen=True)
class Table:
    """A table; `align` has l (text), w (text of many words) or r (figures) for every column."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is that of its file, `alt` tells what is seen, a wide one may be scrolled on narrow screens."""

    name: str
    figure: Figure
    alt: str
    wide: bool = False


@dataclass
class Section:
    """A part of the page: its text, figures, tables and a listing, in this order."""

    id: str
    title: str
    text: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    listing: str = ""


# --- sections -------------------------------------------------------------------------------------


def _family(run: Run) -> Section:
    section = Section("family", "The family")
    rows: list[list[str]] = []
    base_macs = 0
    for strategy in run.strategies:
        spec, found, alone = run.specs[strategy.name], run.found(strategy.stage), run.trained_alone(strategy.stage)
        base_macs = spec.cost.macs if strategy.stage == 0 else base_macs
        latency = (found and found.latency_ms) or (alone and alone.first.latency_ms)
        rows.append(
            [
                strategy.name,
                f"{strategy.stage:g}",
                "found" if strategy.stage <= run.searched else "extrapolated",
                *_multipliers(strategy),
                format_count(spec.cost.macs),
                f"{spec.cost.macs / (base_macs * 2**strategy.stage):.3f}" if base_macs else "-",
                format_count(spec.cost.params),
                in_percent(found.score if found else None),
                mean_alone(alone),
                f"{latency:.3f}" if latency else "-",
            ]
        )
    if not rows:
        section.text.append("There is no family yet.")
        return section
    section.tables.append(
        Table(
            "The networks of the family. The supernet's score is the accuracy with shared weights; stand-alone accuracy"
            " is the mean over seeds, with their standard deviation and their number.",
            (
                *("network", "stage", "origin", "depth", "width", "resolution (px)", "MACs", "MACs / (2^s base)"),
                *("parameters", "supernet score (%)", "stand-alone accuracy (%)", "latency (ms)"),
            ),
            rows,
            "lrlrrrrrrrrr",
        )
    )
    return section


def _accuracy(run: Run) -> Section:
    section = Section("accuracy", "Accuracy against MACs")
    found = {name: [(f.macs, f.score) for f in s.found if f.score is not None] for name, s in run.states.items()}
    curves = []
    evolved = _evolved(run)
    if len(evolved):
        front = _front(np.concatenate([evolved, np.reshape(found["joint"], (-1, 2))]))
        curves += [
            Curve("base models kept last", evolved, colour=plots.SKY, marker=".", line="", size=4),
            Curve("front of joint search", front, colour=plots.SKY, marker=""),
        ]
    curves += [_curve(name, points) for name, points in found.items() if points]
    if curves:
        section.pictures.append(
            Picture(
                "accuracy_supernet",
                plots.plot_accuracy("Supernet scores", "supernet score", curves, "MACs"),
                "Plot of supernet scores over multiply-adds of the networks that each method found.",
            )
        )
    else:
        section.text.append("No search has ended yet: there are no scores to compare.")
    alone = _trained_curves(run, lambda network: network.first.macs)
    if alone:
        section.pictures.append(
            Picture(
                "accuracy_standalone",
                plots.plot_accuracy("Networks trained alone", "stand-alone accuracy", alone, "MACs"),
                "Plot of stand-alone accuracies over multiply-adds, by method, with the spread over seeds.",
            )
        )
        section.tables.append(_trained_table(t for t in run.trained if t.first.group in GROUPS))
    else:
        section.text.append("No found network has been trained alone yet.")
    return section


def _latency(run: Run) -> Section:
    section = Section("latency", "Accuracy against latency")
    curves = []
    for name, state in run.states.items():
        points = [(f.latency_ms, f.score) for f in state.found if f.latency_ms is not None and f.score is not None]
        curves += [_curve(name, points)] if points else []
    alone = _trained_curves(run, lambda network: network.first.latency_ms)
    for name, title, what, shown in (
        ("latency_supernet", "Supernet scores", "supernet score", curves),
        ("latency_standalone", "Networks trained alone", "stand-alone accuracy", alone),
    ):
        if shown:
            figure = plots.plot_accuracy(title, what, shown, "latency (ms)")
            section.pictures.append(Picture(name, figure, f"Plot: {what} over measured latency, by method."))
    if not section.pictures:
        section.text.append("No latency was measured of the networks found.")
    return section


def _progress(run: Run) -> Section:
    section = Section("progress", "The search's progress")
    joint, random = run.joint, run.states.get("random")
    if not joint or not joint.half_steps:
        section.text.append("The joint search has not begun.")
        return section
    if any(step.generations for step in joint.half_steps):
        if random and not any(step.generations for step in random.half_steps):
            random = None
        section.text.append(
            "Between dotted lines base models are evolved under fixed strategies; at a dotted line the strategies of"
            " every stage are ranked anew, so that fitness after it is that of other networks. Ranking scores networks,"
            " too, which are not counted here. Searches for the base alone or for one size have another fitness and are"
            " not drawn."
        )
        section.pictures.append(
            Picture(
                "progress",
                plots.plot_progress(joint, random),
                "Plot of the best and the mean fitness of each generation over the networks scored.",
            )
        )
    rows = []
    for step in joint.half_steps:
        last = step.generations[-1] if step.generations else None
        rows.append(
            [
                str(step.round),
                step.kind,
                "; ".join(f"{s.stage}: {', '.join(_multipliers(s))}" for s in step.scalings if s.stage),
                str(len(step.generations)) if step.generations else "-",
                in_percent(last.best if last else None),
                in_percent(last.mean if last else None),
            ]
        )
    section.tables.append(
        Table(
            "Half-steps of the Markov chain, with the strategies (stage: depth, width, resolution) after each.",
            ("round", "what changed", "strategies", "generations", "best fitness (%)", "mean fitness (%)"),
            rows,
            "rllrrr",
        )
    )
    return section


def _strategies(run: Run) -> Section:
    section = Section("strategies", "Strategies and the growth law")
    fitted = [strategy for strategy in run.strategies if 0 < strategy.stage <= run.searched]
    if not (run.family and fitted):
        section.text.append("The growth law is drawn once there is a family of several sizes.")
    else:
        resolution = run.family.base.resolution
        law = fit_growth_law(fitted, resolution)
        section.text.append(
            "Least squares in log space through the base model, so that depth times the squares of width and resolution"
            f" doubles with every stage: depth grows by {math.exp(law.depth) - 1:.1%} a stage, width by"
            f" {math.exp(law.width) - 1:.1%}, resolution by {math.exp(law.resolution) - 1:.1%}."
        )
        section.pictures.append(
            Picture(
                "strategies",
                plots.plot_strategies(run.strategies, run.searched, resolution, law),
                "Plot of depth, width and resolution over scaling stages, with the fitted exponentials.",
            )
        )
    ranking = run.last_step("strategies")
    if ranking:
        section.tables.append(
            Table(
                f"The best strategies of each stage when they were ranked last (round {ranking.round}), by mean score.",
                ("stage", "place", "depth", "width", "resolution (px)", "mean MACs", "mean score (%)"),
                [
                    [
                        *(str(s.scaling.stage), f"{place} of {len(of_stage)}", *_multipliers(s.scaling)),
                        *(format_count(s.macs), in_percent(s.score)),
                    ]
                    for of_stage in ranking.ranked
                    for place, s in enumerate(of_stage[:RANKED], start=1)
                ],
                "rrrrrrr",
            )
        )
    return section


def _architectures(run: Run) -> Section:
    section = Section("architectures", "Architectures")
    specs = [spec for spec in run.specs.values() if spec.network.type == "mbconv"]
    if not specs:
        section.text.append("There is no family yet, so nothing to draw.")
        return section
    section.pictures.append(
        Picture(
            "architectures",
            draw_architectures(specs),
            "Drawing of each network's layers, in stages; height shows channels, colour the kernel.",
            wide=True,
        )
    )
    return section


def _prediction(run: Run) -> Section:
    return prediction([each for each in run.joint.latency_rounds if each.networks] if run.joint else [])


def prediction(rounds: Sequence[LatencyRound | TopologyRound]) -> Section:
    """Predicted and measured latency."""
    section = Section("prediction", "Predicted and measured latency")
    if not rounds:
        section.text.append("No latencies are predicted and measured: they are not limited, or no round has ended.")
        return section
    rows = []
    for each in rounds:
        predicted = np.array([network.predicted for network in each.networks])
        measured = np.array([network.measured for network in each.networks])
        rho, _ = _rank_correlation(spearmanr, predicted, measured)
        errors = predicted / measured - 1
        rms, worst = np.sqrt(np.mean(errors**2)), np.abs(errors).max()
        rows.append([str(each.round), str(len(errors)), f"{rms:.1%}", f"{worst:.1%}", _number(rho, ".3f")])
    section.text.append("Each round is predicted before its measurements are used to fit the model anew.")
    section.pictures.append(
        Picture(
            "latency_prediction",
            plots.plot_latencies(rounds),
            "Plot of predicted over measured latency of networks, by round, with the diagonal.",
        )
    )
    section.tables.append(
        Table(
            "Errors are of predicted / measured - 1.",
            ("round", "networks", "rms error", "worst error", "Spearman's rank correlation"),
            rows,
            "rrrrr",
        )
    )
    return section


def ranks(run: RunFiles) -> Section:
    """The supernet's scores against networks trained alone."""
    section = Section("ranks", "Does the supernet rank networks rightly?")
    networks = [network for network in run.trained if network.first.score is not None]
    if len(networks) < 2:
        section.text.append("Fewer than two networks with a score have been trained alone: nothing to correlate.")
        return section
    rows = []
    stages = sorted({network.first.stage for network in networks})
    for name, of_these in (
        ("all", networks),
        *((f"stage {stage}", [n for n in networks if n.first.stage == stage]) for stage in stages if stages[1:]),
    ):
        scores = np.array([network.first.score for network in of_these])
        tau, p = _rank_correlation(kendalltau, scores, np.array([network.reached for network in of_these]))
        rows.append([name, str(len(of_these)), _number(tau, ".3f"), _number(p, ".2g")])
    section.text.append(
        "Kendall's tau between the supernet's score and the accuracy of the same network trained alone (the mean over"
        " its seeds). Over all sizes it profits from large networks being better on both sides; within a stage it does"
        " not."
    )
    section.pictures.append(
        Picture(
            "rank_correlation",
            plots.plot_ranks(networks),
            "Plot of stand-alone accuracy over supernet score, by scaling stage.",
        )
    )
    section.tables.append(
        Table(
            "The p-value is that of no association, two-sided.",
            ("networks", "how many", "Kendall's tau", "p-value"),
            rows,
            "lrrr",
        )
    )
    drawn = [network for network in networks if network.first.group == "rank"]
    section.tables += [_trained_table(drawn)] if drawn else []
    return section


def training_cost(run: RunFiles) -> Section:
    """What the supernet's training cost."""
    section = Section("costs", "What it cost")
    if run.summary:
        names = {
            "steps": "steps",
            "images": "images, forward and backward",
            "image_macs": "MACs of these images, forward",
            "seconds": "seconds",
        }
        section.tables.append(
            Table(
                "Training of the supernet.",
                ("", ""),
                [[said, f"{getattr(run.summary, name):,}"] for name, said in names.items()],
                "lr",
            )
        )
    else:
        section.text.append("The training of the supernet left no summary: it has not ended.")
    return section


def cost_cells(label: str, scored: int, state: SearchState | TopologyState, ended: bool) -> list[str]:
    """The cells under `COST_COLUMNS` of a search that scored so many networks."""
    return [
        label + ("" if ended else " (not ended)"),
        *(f"{value:,}" for value in (scored, state.images)),
        *(f"{value:,.1f}" for value in (state.seconds, state.scoring_seconds)),
        in_percent(1 - state.scoring_seconds / state.seconds if state.seconds else None),
    ]


def _costs(run: Run) -> Section:
    section = training_cost(run)
    if not run.states:
        section.text.append("No search has begun.")
        return section
    rows = []
    for name, state in run.states.items():
        rows.append(
            [
                *cost_cells(LOOKS[name][0], state.evaluations, state, state.ended),
                f"{state.drawn:,}",
                f"{state.wasted:,}" + (f" ({state.wasted / state.drawn:.1%})" if state.drawn else ""),
            ]
        )
    section.tables.append(
        Table(
            "Searches. Images are counted once a forward pass: both coupled paths and the estimation of batch-norm"
            " statistics count. Draws are of base models under the limits; those wasted were thrown away.",
            (*COST_COLUMNS, "draws", "wasted"),
            rows,
            "lrrrrrrr",
        )
    )
    joint, separate, images = run.joint, run.states.get("separate"), run.summary.images if run.summary else 0
    if not (joint and joint.ended and separate and separate.ended and images):
        section.text.append(
            "Joint search is not compared with separate ones: that needs both to have ended and the supernet's summary."
        )
        return section
    sizes = len({found.stage for found in separate.found})
    totals = []
    rows = []
    for name, supernets, state in (("joint", 1, joint), ("separate", sizes, separate)):
        totals.append((1 + BACKWARD) * supernets * images + state.images)
        rows.append([LOOKS[name][0], *(f"{n:,}" for n in (supernets, supernets * images, state.images, totals[-1]))])
    section.text.append(
        f"Searching {sizes} sizes separately takes a supernet for each, counted here as trained with as many images as"
        f" the joint one. In forward passes, a backward pass counted as {BACKWARD}, it costs"
        f" {totals[1] / totals[0]:.2f} times the joint search; the paper claims 2.53 times or more."
    )
    section.tables.append(
        Table(
            "Joint search against separate ones.",
            ("", "supernets", "images, forward and backward", "images, forward only", "total in forward passes"),
            rows,
            "lrrrr",
        )
    )
    return section


def training(run: RunFiles) -> Section:
    """The supernet's loss."""
    section = Section("supernet", "Training of the supernet")
    lines = run.log
    if not lines:
        section.text.append("There is no log of the supernet's training.")
        return section
    speeds = [speed for line in lines if isinstance(speed := line.get("images_per_second"), int | float)]
    speed = f", at {np.median(speeds):,.1f} images a second (median)" if speeds else ""
    section.text.append(f"{lines[-1]['step']:,} steps are logged{speed}. Every step trains another network.")
    section.pictures.append(
        Picture("supernet_training", plots.plot_training(lines), "Plot of the training loss over steps.")
    )
    return section


def _provenance(run: Run) -> Section:
    rows: list[tuple[str, object]] = []
    if run.joint:
        rows += [("space", run.joint.space), ("space's sha256", run.joint.space_hash)]
        rows += flatten(run.joint.settings).items()
    if run.family:
        rows += flatten(run.family.provenance.model_dump(exclude_defaults=True), "family.").items()
    return provenance(run, rows)


def provenance(run: RunFiles, facts: Sequence[tuple[str, object]]) -> Section:
    """How a run came about: facts, versions, machine and configuration."""
    section = Section("provenance", "Provenance", listing=run.config)
    rows = [("folder", run.folder.resolve().name), *facts]
    rows += flatten(run.about.model_dump() if run.about else {}).items()
    section.tables.append(
        Table(
            "How this run came about: settings, versions, machine.",
            ("", ""),
            [[name, str(value)] for name, value in rows],
            "lw",
        )
    )
    section.text.append(
        "The configuration stands below." if run.config else "There is no config.yaml in this run's folder."
    )
    return section


SECTIONS = (
    *(_family, _accuracy, _latency, _progress, _strategies, _architectures),
    *(_prediction, ranks, _costs, training, _provenance),
)


# --- what sections are made of --------------------------------------------------------------------


def _curve(method: str, points: Iterable[tuple[float, ...]]) -> Curve:
    """A method's networks as points of a `Curve`, from the smallest."""
    label, colour, marker = LOOKS[method]
    return Curve(label, np.array(sorted(points)), colour, marker)


def _trained_curves(run: Run, x: Callable[[TrainedAlone], float | None]) -> list[Curve]:
    """Networks trained alone for which there is an x, a curve a method."""
    curves = []
    for group, method in GROUPS.items():
        of_group = [network for network in run.trained if network.first.group == group]
        points = [(value, t.reached, t.spread) for t in of_group if (value := x(t)) is not None]
        curves += [_curve(method, points)] if points else []
    return curves


def _trained_table(networks: Iterable[TrainedAlone]) -> Table:
    rows = []
    for network in sorted(networks, key=lambda network: (network.first.stage, network.first.macs)):
        row = network.first
        rows.append(
            [
                *(row.name, row.group, str(row.stage), format_count(row.macs), format_count(row.params)),
                *(str(row.epochs), in_percent(row.score), mean_alone(network)),
            ]
        )
    return Table(
        "Networks trained alone: mean over seeds, with their standard deviation and their number.",
        (
            *("network", "group", "stage", "MACs", "parameters"),
            *("epochs", "supernet score (%)", "stand-alone accuracy (%)"),
        ),
        rows,
        "llrrrrrr",
    )


def _evolved(run: Run) -> np.ndarray:
    """MACs and scores (n, 2) of the base models that were kept last, scaled to each stage."""
    step = run.last_step("bases")
    if not (run.joint and run.family and step and step.bases):
        return np.empty((0, 2))
    scalings = [scaling for scaling in step.scalings if scaling.stage in run.joint.stages]
    longest = max(len(row) for base in step.bases for row in base.kernels)
    kernels = [[[*row, *[0] * (longest - len(row))] for row in base.kernels] for base in step.bases]
    depth, width, resolution = np.array([(s.depth, s.width, s.resolution) for s in scalings]).T
    channels = next(iter(run.specs.values())).input.channels
    macs = Population(run.family, np.array(kernels), depth, width, resolution, in_channels=channels).cost.macs
    return np.stack([macs.ravel(), np.ravel([base.scores for base in step.bases])], axis=1)


def _front(points: np.ndarray) -> np.ndarray:
    """Those of (cost, score), (n, 2), that no other beats at both, from the cheapest."""
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], points[:-1, 1]]))
    return points[points[:, 1] > best_before]


def _rank_correlation(of: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """A rank correlation of SciPy and its p-value; None: not defined for so few values or for equal ones."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    result = of(x, y)
    return float(result.statistic), float(result.pvalue)


def _multipliers(strategy: Strategy | Scaling) -> tuple[str, str, str]:
    return f"{strategy.depth:.3f}", f"{strategy.width:.3f}", str(strategy.resolution)


def in_percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{share:.2%}".removesuffix("%")


def mean_alone(network: TrainedAlone | None) -> str:
    """What a network trained alone reaches, over its seeds."""
    if not network:
        return "-"
    spread = f" ± {in_percent(network.spread)}" if network.seeds > 1 else ""
    return f"{in_percent(network.reached)}{spread} ({network.seeds})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
