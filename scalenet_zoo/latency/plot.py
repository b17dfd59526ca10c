"""A picture of latencies against multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scalenet_zoo.core.files import replacing

if TYPE_CHECKING:
    from scalenet_zoo.latency.cases import BenchmarkResult

PLOT_FORMATS = (".png", ".svg", ".pdf")


def plot_latencies(results: Sequence[BenchmarkResult], path: Path) -> None:
    """Draw median latency against MACs, with the spread between visits and one colour per way to run a network.

    Args:
        results: the results of any benchmarks.
        path: the file to write; its suffix is one of `PLOT_FORMATS`.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    sizes: dict[str, set[int]] = {}
    for result in results:
        sizes.setdefault(result.model, set()).add(result.macs)
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot(xlabel="MACs (G) of one image", ylabel="latency (ms)")
    for way in dict.fromkeys(map(_way, results)):
        of_this = sorted((result for result in results if _way(result) == way), key=lambda result: result.macs)
        medians = [result.latency.median for result in of_this]
        below = [max(0.0, result.latency.median - result.latency.spread[0]) for result in of_this]
        above = [max(0.0, result.latency.spread[1] - result.latency.median) for result in of_this]
        gigamacs = [result.macs / 1e9 for result in of_this]
        axes.errorbar(gigamacs, medians, yerr=(below, above), fmt="o", markersize=4, capsize=2, label=way)
        for result, x, y in zip(of_this, gigamacs, medians, strict=True):
            several = len(sizes[result.model]) > 1
            name = f"{result.model} {result.height}x{result.width}" if several else result.model
            axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlim(0, 1.25 * max(result.macs for result in results) / 1e9)  # leave room for names
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _way(result: BenchmarkResult) -> str:
    """Format a line of the legend: all conditions of a latency but the network."""
    threads = f", CPU threads: {result.threads}" if result.device == "CPU" else ""
    return f"{result.backend}, {result.precision}, batch {result.batch}{threads}"
