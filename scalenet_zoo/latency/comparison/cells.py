"""The columns and cells of a table as text, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.latency.comparison.table import METRIC_NAMES, ComparedNetwork, ComparisonTable

NOTHING = "-"
"""The text of a value that is unknown or does not apply."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: the header of the column.
        about: a sentence that explains the column.
        text: formats a row's cell.
        value: returns the value that rows are sorted by; None: the row has none, and comes last.
        is_figure: whether the column is right-aligned.
    """

    name: str
    about: str
    text: Callable[[ComparedNetwork], str]
    value: Callable[[ComparedNetwork], float | str | None]
    is_figure: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        about: str,
        value: Callable[[ComparedNetwork], float | None],
        write: Callable[[float], str],
    ) -> Column:
        """Make a column of figures; `write` formats a value."""

        def text(row: ComparedNetwork) -> str:
            figure_text = value(row)
            return NOTHING if figure_text is None else write(figure_text)

        return cls(name, about, text, value)


def best_rows(rows: Sequence[ComparedNetwork]) -> list[ComparedNetwork]:
    """Select the Pareto front: rows for which no other of their task is as accurate and as fast, and better in one."""
    known = [
        (row.task, row.latency.median, -row.accuracy, row) for row in rows if row.latency and row.accuracy is not None
    ]
    return [
        row
        for task, latency, loss, row in known
        if not any(
            task == other and a <= latency and b <= loss and (a, b) != (latency, loss) for other, a, b, _ in known
        )
    ]


def columns(table: ComparisonTable) -> list[Column]:
    """Make the columns of a table; the accuracy's name depends on the tasks."""
    best = best_rows(table.rows)
    metrics = " or ".join(dict.fromkeys(METRIC_NAMES[row.task] for row in table.rows))
    return [
        Column("model", "The network, or the exported file.", lambda row: row.model, lambda row: row.model, False),
        Column(
            "precision",
            "Precision of weights and activations.",
            lambda row: row.precision,
            lambda row: row.precision,
            False,
        ),
        Column("on", "The back end.", lambda row: row.backend, lambda row: row.backend, False),
        Column(
            "best",
            "The Pareto front: no other row of the task is as accurate and as fast, and better in one of the two.",
            lambda row: "*" if row in best else "",
            lambda row: "*" if row in best else None,
            False,
        ),
        Column.of("MACs", "Multiply-adds for one image.", lambda row: row.macs, format_count),
        Column(metrics, "Accuracy, and its standard error.", _accuracy, lambda row: row.accuracy),
        Column.of(
            "agreement",
            "The share of decisions that are equal to those of the same network in fp32.",
            lambda row: row.agreement,
            lambda share: f"{share:.1%}",
        ),
        Column.of(
            "median ms",
            "Latency of one inference.",
            lambda row: row.latency.median if row.latency else None,
            figure_text,
        ),
        Column(
            "spread",
            "The range of the visits' medians, as a share of the median.",
            lambda row: spread(row.latency.median, *row.latency.spread) if row.latency else NOTHING,
            lambda row: (row.latency.spread[1] - row.latency.spread[0]) / row.latency.median if row.latency else None,
        ),
        Column.of(
            "ratio",
            "Latency divided by that of the first row, from visits made at nearly the same time.",
            lambda row: row.ratio.median if row.ratio else None,
            lambda ratio: f"{ratio:.3f}",
        ),
        Column(
            "ratio's range",
            "The range of the ratio over all pairs of visits.",
            lambda row: f"{row.ratio.low:.3f} to {row.ratio.high:.3f}" if row.ratio else NOTHING,
            lambda row: row.ratio.high if row.ratio else None,
        ),
        Column.of("file MiB", "Size of the file; for torch, of the weights in fp32.", lambda row: row.file_bytes, mebi),
        Column.of(
            "memory MiB",
            "The largest resident memory of a fresh process, less its resident memory before it opened the file; on a"
            " GPU, the GPU memory.",
            lambda row: row.memory_bytes,
            mebi,
        ),
    ]


def headline(table: ComparisonTable) -> list[str]:
    """Describe in lines of text how and where a table was made."""
    here, settings = table.machine, table.settings
    gpu = f"; {here['gpu']}, driver {here['driver']}" if here["gpu"] else ""
    counts = sorted({(row.images, row.noun) for row in table.rows if row.images})
    images = f", {' or '.join(f'{count:,} {noun}' for count, noun in counts)}" if counts else ""
    threads = sorted({row.threads for row in table.rows if row.threads})
    calibration = f"; int8 calibrated on {settings.calibration or 'the training split'}"
    return [
        f"{here['cpu']}, {here['cores']} cores{gpu}",
        f"{settings.data}, split {settings.split}{images}; weights: {settings.weights}"
        + (calibration if any(row.precision == "int8" for row in table.rows) else ""),
        f"batch {', '.join(map(str, sorted({row.batch for row in table.rows})))}"
        + (f"; CPU threads: {' or '.join(map(str, threads))}" if threads else "")
        + f"; input {', '.join(dict.fromkeys(f'{row.height}x{row.width}' for row in table.rows))}",
    ]


def failures(rows: Sequence[ComparedNetwork]) -> list[tuple[str, str]]:
    """List the names of incomplete rows, with the reasons."""
    return [(f"{row.model} {row.precision} on {row.backend}", row.error) for row in rows if row.error]


def figure_text(value: float) -> str:
    """Format a number with four digits, or more if its whole part has more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def mebi(count: float) -> str:
    """Format bytes in MiB."""
    return f"{count / MEBIBYTE:,.1f}"


def spread(middle: float, low: float, high: float) -> str:
    """Format a range as a percentage of the value in its middle."""
    return f"{100 * (high - low) / middle:.1f}%"


def _accuracy(row: ComparedNetwork) -> str:
    if row.accuracy is None:
        return NOTHING
    error = "" if row.accuracy_error is None else f" ± {100 * row.accuracy_error:.1f}"
    return f"{100 * row.accuracy:.1f}{error}%"
