"""Plots of the report as data, and how they are drawn as pictures.

A `Plot` or `Bars` holds the values. `draw_plot` makes a picture of it with matplotlib, `charts.to_chart` an interactive
chart, and `describe` a text for those who see neither. The colours are those of Okabe and Ito, which colour-blind
readers can tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
"""Settings of matplotlib while figures are made and saved."""
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = COLOURS = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#777777"
Style = Mapping[str, Any]
"""The style of lines and markers, in matplotlib's words."""
STEPS: Style = {"drawstyle": "steps-post"}
DOTS: Style = {"color": SKY, "marker": ".", "linestyle": "none", "markersize": 4}
SIZE = (5.8, 4.4)
"""Size of a plot in inches."""
WIDE = 11
"""Width of a wide plot in inches."""
MACS = "MACs"
"""The label of an axis whose values are written as 12.3M."""
DESCRIBED = 3
"""Curves with at most this many points are described point by point."""


def style_of(number: int) -> Style:
    """Choose markers that differ from those of other numbers."""
    return {"color": COLOURS[number % 6], "marker": "os^Dv<>P"[number % 8], "linestyle": "none"}


@dataclass(frozen=True)
class Curve:
    """Points that are drawn in the same style.

    Attributes:
        label: the entry in the legend; empty: no entry.
        points: (n, 2) or (n, 3): x, y and, where known, the spread of y, in the units of the axes.
        style: the style of the line and the markers.
        names: the name of each point, shown when a reader points at it; empty: points have no names.
    """

    label: str
    points: np.ndarray
    style: Style
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves over a horizontal axis.

    Attributes:
        title: the title of the plot.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        curves: the curves, the first one at the back.
        scale: the horizontal axis: `linear`, `whole` (its values are whole numbers) or `log`.
        dotted: vertical lines: their label and their x.
        square: whether a unit is as long on the vertical axis as on the horizontal one.
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    scale: Literal["linear", "whole", "log"] = "linear"
    dotted: tuple[str, Sequence[float]] = ("", ())
    square: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Two bars side by side for each name.

    Attributes:
        title: the title of the plot.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        names: the names on the horizontal axis.
        bars: by the label of each of the two kinds, a height for each name.
    """

    title: str
    x: str
    y: str
    names: Sequence[str]
    bars: Mapping[str, np.ndarray]


def draw_plot(plot: Plot | Bars) -> Figure:
    """Draw a plot with matplotlib. The legend stands below the axes, where it hides nothing."""
    figure = Figure(figsize=(WIDE if isinstance(plot, Bars) else SIZE[0], SIZE[1]), layout="constrained")
    axes = figure.add_subplot(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if isinstance(plot, Bars):
        places = np.arange(len(plot.names))
        for (name, heights), shift, colour in zip(plot.bars.items(), (-0.2, 0.2), COLOURS, strict=False):
            axes.bar(places + shift, heights, 0.4, color=colour, label=name)
        axes.set_xticks(places, plot.names, rotation=90)
        axes.grid(visible=False, axis="x")
    else:
        label, lines = plot.dotted
        for number, line in enumerate(lines):
            axes.axvline(line, color=GREY, linestyle=":", label="" if number else label)
        for curve in plot.curves:
            axes.errorbar(*curve.points.T[:2], *curve.points.T[2:], label=curve.label, capsize=3, **curve.style)
        if plot.scale == "whole":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if plot.scale == "log":
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(log_ticks(*axes.get_xlim()))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_x(plot, x)))
        if plot.square:
            axes.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round values between two ends of a logarithmic axis; if there are fewer than two, evenly spaced ones."""
    ticks = [factor * 10.0**power for power in range(-4, 14) for factor in (1, 1.5, 2, 3, 5, 7)]
    within = [tick for tick in ticks if low <= tick <= high]
    return within if within[1:] else np.linspace(low, high, 5)[1:-1].tolist()


def format_x(plot: Plot, x: float) -> str:
    """Format a value of the horizontal axis: MACs as 12.3M, other numbers with up to six digits."""
    return format_count(x) if plot.x == MACS else f"{x:.6g}"


def describe(plot: Plot | Bars) -> str:
    """Say in words what a plot shows: the axes, and for each curve its points or its range."""
    if isinstance(plot, Bars):
        means = [f"{name}: {np.mean(heights):.2f} on average" for name, heights in plot.bars.items()]
        return f"{plot.title}. {plot.y} over {plot.x}. {'; '.join(means)}."
    said = []
    for curve in plot.curves:
        points = curve.points[np.isfinite(curve.points[:, :2]).all(1)]
        if not curve.label or not len(points):
            continue
        if len(points) <= DESCRIBED:
            texts = [f"{y:.4g} at {format_x(plot, x)}" for x, y in points[:, :2].tolist()]
            said.append(f"{curve.label}: {', '.join(texts)}")
        else:
            (first, _), (last, _) = points[0, :2].tolist(), points[-1, :2].tolist()
            low, high = points[:, 1].min(), points[:, 1].max()
            said.append(
                f"{curve.label}: {len(points):,} points from {format_x(plot, first)} to {format_x(plot, last)},"
                f" values from {low:.4g} to {high:.4g}"
            )
    return f"{plot.title}. {plot.y} over {plot.x}. {'; '.join(said)}."
