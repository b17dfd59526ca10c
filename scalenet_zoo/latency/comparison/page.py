"""The page of a table: self-contained HTML with sortable rows and a picture of accuracy against latency.

The page loads nothing. Its policy names the hash of its only script, so that no other script can run.
"""

from __future__ import annotations

from base64 import b64encode
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.pages import read_script, render_page, script_policy
from scalenet_zoo.latency.comparison.cells import columns, failures, headline
from scalenet_zoo.latency.comparison.table import METRIC_NAMES, ComparisonTable

_HERE = "scalenet_zoo.latency.comparison"
_MARKERS = "osD^vPX*<>ph"
"""The markers of precisions and back ends; networks have colours."""
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "scalenet-zoo", "font.size": 9}


def write_table_page(table: ComparisonTable, path: Path) -> None:
    """Write the page of a table.

    Raises:
        OutputError: the file cannot be written.
    """
    script, shown = read_script(_HERE, "sort.js"), columns(table)
    page = render_page(
        _HERE,
        "page.html",
        lines=headline(table),
        columns=shown,
        rows=[(row, [(column, column.text(row), column.value(row)) for column in shown]) for row in table.rows],
        failures=failures(table.rows),
        picture=_picture(table),
        versions=table.machine["versions"],
        date=table.machine["date"],
        timing=table.settings.timing,
        script=script,
        policy=script_policy(script),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _picture(table: ComparisonTable) -> str | None:
    """Draw accuracy against latency, as the data URL of an SVG image; None: there are fewer than two points."""
    rows = [(row, row.latency, row.accuracy) for row in table.rows if row.latency and row.accuracy is not None]
    if len(rows) < 2:
        return None
    metrics = " or ".join(dict.fromkeys(METRIC_NAMES[row.task] for row, _, _ in rows))
    models = list(dict.fromkeys(row.model for row, _, _ in rows))
    ways = list(dict.fromkeys(f"{row.precision} on {row.backend}" for row, _, _ in rows))
    with rc_context(_STYLE):
        drawn = Figure(figsize=(9, 4.5), layout="constrained")
        axes = drawn.add_subplot(xlabel="latency (ms)", ylabel=f"{metrics} (%)", xscale="log")
        for row, latency, accuracy in rows:
            way = ways.index(f"{row.precision} on {row.backend}")
            axes.errorbar(
                latency.median,
                100 * accuracy,
                yerr=100 * (row.accuracy_error or 0.0),
                marker=_MARKERS[way % len(_MARKERS)],
                color=f"C{models.index(row.model) % 10}",
                markersize=7,
                capsize=2,
                elinewidth=0.8,
            )
        for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            axis(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axes.grid(visible=True, alpha=0.3, which="both")
        looks = [Line2D([], [], color=f"C{i % 10}", linewidth=6, label=name) for i, name in enumerate(models)]
        looks += [
            Line2D([], [], color="0.3", marker=_MARKERS[i % len(_MARKERS)], linestyle="", label=name)
            for i, name in enumerate(ways)
        ]
        drawn.legend(handles=looks, loc="outside right upper", fontsize=8)
        text = StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(text.getvalue().encode()).decode()}"
