"""What `build --latency` tells of predictions and measurements."""

from typing import TYPE_CHECKING

import typer

from scalenet_zoo.cli.console import print_table
from scalenet_zoo.quantities import format_count, format_ms

if TYPE_CHECKING:
    from scalenet_zoo.export.latency_budget import Found


def print_found(found: "Found") -> None:
    """The networks that were tried, predicted and measured; the last one meets the budget."""
    settings = found.settings
    how = f"{settings.precision}, batch of {settings.batch}, {settings.threads} CPU threads"
    typer.echo(f"\nlatency on {settings.backend}: {how}")
    print_table(
        ("tried", "MACs", "predicted", "measured", "visits", "quiet"),
        (
            (
                attempt.spec.name,
                format_count(attempt.spec.cost.macs),
                "-" if attempt.predicted is None else format_ms(attempt.predicted),
                format_ms(attempt.measured),
                f"{format_ms(min(attempt.visits))} to {format_ms(max(attempt.visits))}",
                f"{attempt.quiet} of {len(attempt.visits)}",
            )
            for attempt in found.attempts
        ),
        align="lrrrrr",
    )
    if not found.attempts[-1].quiet:
        typer.echo("this machine was never undisturbed: what it measured is scaled to its speed at its best")


def found_json(found: "Found") -> dict[str, object]:
    """The same for programs."""
    return {
        **found.settings.model_dump(mode="json", exclude={"family", "divisor"}),
        "attempts": [
            {
                "name": attempt.spec.name,
                "macs": attempt.spec.cost.macs,
                "predicted_ms": attempt.predicted,
                "measured_ms": attempt.measured,
                "visits_ms": attempt.visits,
                "quiet_visits": attempt.quiet,
            }
            for attempt in found.attempts
        ],
    }
