"""The report's plots; colours are those of Okabe and Ito, which the colour-blind tell apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from scalenet_zoo.core.quantities import format_count

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
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = COLOURS = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#777777"
Style = Mapping[str, Any]
"""Of lines and marks, in matplotlib's words."""
STEPS: Style = {"drawstyle": "steps-post"}
DOTS: Style = {"color": SKY, "marker": ".", "linestyle": "none", "markersize": 4}
SIZE = (5.8, 4.4)
"""Inches of a plot."""


def style_of(number: int) -> Style:
    """Marks that differ from those of other numbers."""
    return {"color": COLOURS[number % 6], "marker": "os^Dv<>P"[number % 8], "linestyle": "none"}


@dataclass(frozen=True)
class Curve:
    """Points that are drawn alike.

    Attributes:
        label: in the legend; empty: it is not there.
        points: (n, 2) or (n, 3): x, y and, where it is known, the spread of y, in the units of the axes.
        style: of the line and the marks.
    """

    label: str
    points: np.ndarray
    style: Style


def draw_curves(
    title: str,
    x: str,
    y: str,
    curves: Sequence[Curve],
    *,
    counts: bool = False,
    dotted: tuple[str, Sequence[float]] = ("", ()),
) -> Figure:
    """Curves, with a legend below the plot, where it hides nothing.

    Args:
        title: of the plot.
        x: what the axis shows.
        y: what the axis shows.
        curves: to draw.
        counts: whether x are whole numbers.
        dotted: vertical lines: their label and their x.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    label, places = dotted
    for number, place in enumerate(places):
        axes.axvline(place, color=GREY, linestyle=":", label="" if number else label)
    for curve in curves:
        x_y, spread = curve.points.T[:2], curve.points.T[2:]
        axes.errorbar(*x_y, *spread, label=curve.label, capsize=3, **curve.style)
    if counts:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_costs(title: str, what: str, curves: Sequence[Curve], over: str) -> Figure:
    """Percentages against MACs or milliseconds, on a logarithmic axis.

    Args:
        title: of the plot.
        what: the percentages are.
        curves: to draw.
        over: "MACs" or "latency (ms)".
    """
    figure = draw_curves(title, over, f"{what} (%)", curves)
    (axes,) = figure.axes
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    ticks = [factor * 10**power for power in range(-4, 14) for factor in (1, 1.5, 2, 3, 5, 7)]
    within = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(within if within[1:] else np.linspace(low, high, 5)[1:-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_count(x) if over == "MACs" else f"{x:g}"))
    return figure


def draw_bars(title: str, x: str, y: str, names: Sequence[str], bars: Mapping[str, np.ndarray]) -> Figure:
    """Bars beside one another; see `draw_curves`.

    Args:
        title: of the plot.
        x: what the axis shows.
        y: what the axis shows.
        names: of the groups of bars.
        bars: two kinds, a bar a group.
    """
    figure = Figure(figsize=(11, SIZE[1]), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    places = np.arange(len(names))
    for (name, heights), shift, colour in zip(bars.items(), (-0.2, 0.2), COLOURS, strict=False):
        axes.bar(places + shift, heights, 0.4, color=colour, label=name)
    axes.set_xticks(places, names, rotation=90)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
