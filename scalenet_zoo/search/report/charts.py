"""Plots of the report as interactive charts: Plotly's figures, as the JSON that its script takes."""

import math
from typing import Any

import numpy as np
from markupsafe import escape
from matplotlib.colors import to_hex

from scalenet_zoo.search.report.plots import COLOURS, GREY, Bars, Curve, Plot, format_x, log_ticks

Chart = dict[str, Any]
"""`data` and `layout` of a figure of Plotly."""

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "<": "triangle-left",
}
_SYMBOLS |= {">": "triangle-right", "P": "cross", ".": "circle"}
_DASHES = {"-": "solid", "--": "dash", ":": "dot"}
_MARKER, _DOT = 6.0, 0.6
"""matplotlib's marker size, and the share of it that a dot takes."""
_PIXELS = 1.5
"""Pixels on the page per unit of matplotlib's marker size."""
MOST_TICKS = 10
"""An axis of whole numbers up to this one has a tick for each."""
_HOVER = {"x": "%{customdata}", "y": "%{y:.4~f}"}


def to_chart(plot: Plot | Bars) -> Chart:
    """Turn a plot into a chart. Pointing at a value shows the name of the network and both figures."""
    layout: Chart = {
        "title": {"text": _text(plot.title), "x": 0, "xref": "paper", "font": {"size": 15}},
        "margin": {"l": 60, "r": 15, "t": 40, "b": 60},
        "xaxis": {"title": {"text": _text(plot.x)}, "gridcolor": "#e6e6e6", "zeroline": False, "automargin": True},
        "yaxis": {"title": {"text": _text(plot.y)}, "gridcolor": "#e6e6e6", "zeroline": False, "automargin": True},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "hovermode": "closest",
        "font": {"size": 13, "color": "#1a1a1a"},
        "plot_bgcolor": "#fff",
        "paper_bgcolor": "#fff",
    }
    if isinstance(plot, Bars):
        bars = zip(plot.bars.items(), COLOURS, strict=False)
        data = [
            {
                "type": "bar",
                "name": _text(label),
                "x": list(map(_text, plot.names)),
                "y": _numbers(heights),
                "marker": {"color": colour},
                "hovertemplate": f"<b>%{{x}}</b><br>{_text(plot.y)}: {_HOVER['y']}<extra>{_text(label)}</extra>",
            }
            for (label, heights), colour in bars
        ]
        layout["xaxis"] |= {"tickangle": -90, "type": "category"}
        return {"data": data, "layout": {**layout, "barmode": "group"}}

    data = [_trace(plot, curve) for curve in plot.curves]
    label, lines = plot.dotted
    if len(lines):
        style = {"color": GREY, "dash": "dot", "width": 1.5}
        data.insert(
            0, {"type": "scatter", "name": _text(label), "x": [None], "y": [None], "mode": "lines", "line": style}
        )
        layout["shapes"] = [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": style, "layer": "below"}
            for x in map(float, lines)
        ]
    if plot.scale == "log":
        values = np.concatenate([curve.points[:, 0] for curve in plot.curves])
        low, high = float(values.min()), float(values.max())
        margin = (high / low) ** 0.05 if high > low else 1.05  # as Plotly pads an axis
        ticks = log_ticks(low / margin, high * margin)
        layout["xaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [format_x(plot, tick) for tick in ticks]}
    if plot.scale == "whole" and max(curve.points[:, 0].max(initial=0) for curve in plot.curves) <= MOST_TICKS:
        layout["xaxis"]["dtick"] = 1
    if plot.square:
        layout["xaxis"]["constrain"] = "domain"
        layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
    return {"data": data, "layout": layout}


def _trace(plot: Plot, curve: Curve) -> Chart:
    """A curve as a trace of Plotly."""
    style, marker = curve.style, str(curve.style.get("marker", ""))
    line = str(style.get("linestyle", "-"))
    modes = [mode for mode, on in (("lines", line != "none"), ("markers", marker)) if on]
    colour = to_hex(style["color"])
    open_ = "-open" if style.get("markerfacecolor") == "white" else ""
    size = style.get("markersize", _MARKER) * (_DOT if marker == "." else 1) * _PIXELS
    name = "<b>%{text}</b><br>" if curve.names else ""
    trace: Chart = {
        "type": "scatter",
        "name": _text(curve.label),
        "showlegend": bool(curve.label),
        "mode": "+".join(modes),
        "x": _numbers(curve.points[:, 0]) or [None],
        "y": _numbers(curve.points[:, 1]) or [None],
        "customdata": [format_x(plot, x) for x in curve.points[:, 0].tolist()],
        "opacity": style.get("alpha", 1),
        "line": {
            "color": colour,
            "dash": _DASHES.get(line, "solid"),
            "width": 2,
            "shape": "hv" if style.get("drawstyle") == "steps-post" else "linear",
        },
        "marker": {"color": colour, "symbol": _SYMBOLS.get(marker, "circle") + open_, "size": max(4, size)},
        "hovertemplate": f"{name}{_text(plot.x)}: {_HOVER['x']}<br>{_text(plot.y)}: {_HOVER['y']}"
        f"<extra>{_text(curve.label)}</extra>",
    }
    if curve.names:
        trace["text"] = [_text(name) for name in curve.names]
    if curve.points.shape[1] > 2 and curve.points[:, 2].any():
        trace["error_y"] = {"type": "data", "array": _numbers(curve.points[:, 2]), "color": colour, "thickness": 1.5}
    return trace


def _text(text: str) -> str:
    """Text for Plotly, which reads some HTML tags."""
    return str(escape(text)).replace("&#34;", '"').replace("&#39;", "'")


def _numbers(values: np.ndarray) -> list[float | None]:
    """Numbers with six digits; None where a value is missing."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
