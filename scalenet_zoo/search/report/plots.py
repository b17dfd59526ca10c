"""The report's plots; colours are those of Okabe and Ito, which the colour-blind tell apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from scalenet_zoo.arch.family import Strategy
from scalenet_zoo.arch.scaling import GrowthLaw
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.scalenas.state import TopologyRound
from scalenet_zoo.search.scalenet.state import LatencyRound, SearchState
from scalenet_zoo.search.standalone import TrainedAlone

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.titlesize": 12,
    "font.size": 11,
    "grid.alpha": 0.3,
    "legend.fontsize": 10,
    "savefig.dpi": 150,
    "svg.hashsalt": "scalenet-zoo",  # the same run gives the same file
    "text.parse_math": False,  # a dollar in a name is a dollar
}
"""Settings of matplotlib, in force while figures are made and saved."""
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
SIZE = (5.8, 4.4)
"""Inches of a plot."""


@dataclass(frozen=True)
class Curve:
    """Networks of one kind in a plot of accuracy.

    Attributes:
        label: in the legend.
        points: (n, 2) or (n, 3): MACs or milliseconds, accuracy from 0 to 1, its spread if that is known.
        colour: of its marks.
        marker: matplotlib's.
        line: matplotlib's; empty: marks alone.
        size: of the marks.
    """

    label: str
    points: np.ndarray
    colour: str = BLUE
    marker: str = "o"
    line: str = "-"
    size: float = 6


def plot_accuracy(title: str, what: str, curves: Sequence[Curve], over: str) -> Figure:
    """Accuracy in percent against MACs or milliseconds, on a logarithmic axis.

    Args:
        title: of the plot.
        what: the accuracy is.
        curves: to draw.
        over: "MACs" or "latency (ms)".
    """
    figure, axes = _figure(title, over, f"{what} (%)")
    axes.set_xscale("log")
    for curve in curves:
        axes.errorbar(
            curve.points[:, 0],
            100 * curve.points[:, 1],
            yerr=100 * curve.points[:, 2] if curve.points.shape[1] > 2 else None,
            label=curve.label,
            color=curve.colour,
            marker=curve.marker,
            linestyle=curve.line or "none",
            markersize=curve.size,
            capsize=3,
        )
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    ticks = [factor * 10**power for power in range(-4, 14) for factor in (1, 1.5, 2, 3, 5, 7)]
    within = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(within if within[1:] else np.linspace(low, high, 5)[1:-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_count(x) if over == "MACs" else f"{x:g}"))
    _add_legend(figure)
    return figure


def plot_progress(joint: SearchState, random: SearchState | None) -> Figure:
    """Fitness of every generation over the networks scored, with the half-steps of the chain."""
    figure, axes = _figure("Fitness of base models", "networks scored in evolving them", "weighted accuracy (%)")
    done, labelled = 0, False
    for step in joint.half_steps:
        if step.kind == "strategies":
            label = "" if labelled else "strategies ranked"
            axes.axvline(done, color="#777777", linestyle=":", label=label)
            labelled = True
            continue
        x = done + np.cumsum([g.scored for g in step.generations])
        for values, name, line in (
            ([g.best for g in step.generations], "joint: best", "-"),
            ([g.mean for g in step.generations], "joint: mean", "--"),
        ):
            axes.plot(x, _percent(values), line, color=BLUE, label="" if done else name, marker=_dots(x))
        done = int(x[-1]) if len(x) else done
    if random:
        generations = [g for step in random.half_steps for g in step.generations]
        best = np.maximum.accumulate([g.best for g in generations])
        x = np.cumsum([g.scored for g in generations])
        axes.plot(x, _percent(best), color=ORANGE, label="random: best so far", drawstyle="steps-post")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure)
    return figure


def plot_strategies(strategies: Sequence[Strategy], searched: float, base_resolution: int, law: GrowthLaw) -> Figure:
    """Depth, width and resolution over scaling stages, and the law fitted to those that were searched.

    Args:
        strategies: from stage 0.
        searched: the last stage that was.
        base_resolution: pixels at stage 0.
        law: fitted.
    """
    figure, axes = _figure("Strategies and the growth law", "scaling stage s", "multiplier of the base model")
    stages = np.array([strategy.stage for strategy in strategies])
    last = max(stages.max(), searched)
    fine = np.linspace(0, last)
    for name, values, rate, colour, marker in (
        ("depth", [s.depth for s in strategies], law.depth, BLUE, "o"),
        ("width", [s.width for s in strategies], law.width, RED, "s"),
        ("resolution", [s.resolution / base_resolution for s in strategies], law.resolution, GREEN, "^"),
    ):
        axes.plot(fine, np.exp(rate * fine), color=colour, alpha=0.7, label=f"{name} = exp({rate:.4f} s)")
        found = stages <= searched
        axes.plot(stages[found], np.array(values)[found], marker, color=colour)
        axes.plot(stages[~found], np.array(values)[~found], marker, color=colour, markerfacecolor="white")
    axes.plot([], [], "o", color="#555555", label="found")
    if (stages > searched).any():
        axes.plot([], [], "o", color="#555555", markerfacecolor="white", label="extrapolated")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure)
    return figure


def plot_hypervolumes(curves: Sequence[Curve]) -> Figure:
    """Hypervolumes in percent, of curves whose points are (networks scored, hypervolume)."""
    figure, axes = _figure("Hypervolume of the front", "networks scored", "hypervolume (%)")
    for curve in curves:
        axes.plot(
            curve.points[:, 0],
            100 * curve.points[:, 1],
            curve.line,
            label=curve.label,
            color=curve.colour,
            drawstyle="steps-post",
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure)
    return figure


def plot_depths(branches: Sequence[str], front: np.ndarray, drawn: np.ndarray) -> Figure:
    """Mean depths of each module's branches: of the front, and of the networks drawn first.

    Args:
        branches: what each is called.
        front: (branches,).
        drawn: (branches,).
    """
    figure, axes = _figure("Depth of the branches", "module and branch", "mean blocks")
    figure.set_size_inches(11, SIZE[1])
    x = np.arange(len(branches))
    axes.bar(x - 0.2, front, 0.4, color=BLUE, label="front")
    axes.bar(x + 0.2, drawn, 0.4, color=ORANGE, label="drawn from the groups")
    axes.set_xticks(x, branches, rotation=90)
    axes.grid(visible=False, axis="x")
    _add_legend(figure)
    return figure


def plot_latencies(rounds: Sequence[LatencyRound | TopologyRound]) -> Figure:
    """Predicted against measured milliseconds, a colour a round."""
    figure, axes = _figure("Predicted and measured latency", "measured (ms)", "predicted (ms)")
    ends = [value for each in rounds for network in each.networks for value in (network.predicted, network.measured)]
    diagonal = [0.95 * min(ends), 1.05 * max(ends)]
    axes.plot(diagonal, diagonal, color="#777777", linestyle="--", label="exact")
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.75, len(rounds)))
    for each, colour, marker in zip(rounds, colours, _markers(len(rounds)), strict=True):
        axes.plot(
            [network.measured for network in each.networks],
            [network.predicted for network in each.networks],
            marker,
            color=colour,
            label=f"round {each.round}",
        )
    axes.set_aspect("equal")
    _add_legend(figure)
    return figure


def plot_ranks(networks: Sequence[TrainedAlone]) -> Figure:
    """The supernet's scores against accuracies of networks trained alone; all of them have a score."""
    figure, axes = _figure("Supernet score and stand-alone accuracy", "supernet score (%)", "stand-alone accuracy (%)")
    stages = sorted({network.first.stage for network in networks})
    for stage, colour, marker in zip(stages, _colours(len(stages)), _markers(len(stages)), strict=True):
        of_stage = [network for network in networks if network.first.stage == stage]
        axes.errorbar(
            [100 * (network.first.score or 0.0) for network in of_stage],
            [100 * network.reached for network in of_stage],
            yerr=[100 * network.spread for network in of_stage],
            label=f"stage {stage}" if len(stages) > 1 else "networks",
            color=colour,
            marker=marker,
            linestyle="none",
            capsize=3,
        )
    _add_legend(figure)
    return figure


def plot_training(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """The supernet's training loss, line by line of the log and smoothed."""
    figure, axes = _figure("Training of the supernet", "step", "training loss")
    steps, losses = np.array([(line["step"], line["loss"]) for line in lines]).T
    axes.plot(steps, losses, ".", color=SKY, markersize=4, label="logged: the loss of what was drawn")
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    axes.plot(steps[window - 1 :], smooth, color=BLUE, label=f"mean of {window} lines")
    _add_legend(figure)
    return figure


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot(title=title, xlabel=x, ylabel=y)


def _percent(fitness: Sequence[float] | np.ndarray) -> np.ndarray:
    """In percent; nothing where no network of a generation keeps the limits, which counts as 0."""
    return 100 * np.where(np.asarray(fitness) > 0, fitness, np.nan)


def _add_legend(figure: Figure) -> None:
    """Below the plot, where it hides nothing."""
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _colours(count: int) -> list[str]:
    return [(BLUE, ORANGE, GREEN, RED, PURPLE, SKY)[i % 6] for i in range(count)]


def _markers(count: int) -> list[str]:
    return ["os^Dv<>P"[i % 8] for i in range(count)]


def _dots(x: np.ndarray) -> str:
    """A marker where there are few points."""
    return "." if len(x) < 50 else ""
