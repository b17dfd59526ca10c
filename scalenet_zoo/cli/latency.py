"""What `build --latency` tells of predictions and measurements."""

from typing import TYPE_CHECKING

import typer

from scalenet_zoo.core.quantities import format_count, format_ms

if TYPE_CHECKING:
    from scalenet_zoo.explore.choice import Choice, MeasuredEntry
    from scalenet_zoo.latency.budget import LatencyChoice


def print_found(found: "LatencyChoice") -> None:
    """The networks that were tried, predicted and measured; the last one meets the budget."""
    from scalenet_zoo.cli.console import print_table

    settings = found.settings
    how = f"{settings.precision}, batch of {settings.batch}, {settings.threads} CPU threads"
    typer.echo(f"\nlatency on {settings.backend}: {how}; measured: at this machine's best speed")
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
    if unsure := [f"{each.spec.name} ({format_ms(each.measured)})" for each in found.attempts if not each.quiet]:
        typer.echo(f"this machine was never undisturbed while it measured {', '.join(unsure)}: these are less sure")


def found_json(found: "LatencyChoice") -> dict[str, object]:
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


SHOWN = 12
"""Candidates that `print_chosen` prints: those nearest to the one that is taken, in accuracy."""


def print_chosen(chosen: "Choice", made_int8: bool) -> None:
    """The published networks that were compared, and why one is taken.

    Args:
        chosen: among which networks, and which.
        made_int8: whether a file was written in the precision that is taken, if that is int8.
    """
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.explore.entries import command_for

    taken, setting = chosen.taken, chosen.setting
    threads = f"{setting.threads} CPU thread{'s' if setting.threads > 1 else ''}"
    typer.echo(
        f"\nthe most accurate published network within {format_ms(chosen.budget)} on {setting.backend}, batch of"
        f" {setting.batch}, {threads}: {taken.entry.spec.name} in {taken.precision}"
        "\n(--family FAMILY would fit one of a family to the latency instead, and let it inherit)"
    )
    place = chosen.candidates.index(taken)
    first = max(0, min(place - SHOWN // 2, len(chosen.candidates) - SHOWN))
    print_table(
        ("", "network", "precision", "top-1", "latency", "quiet", "weights", "licence"),
        (
            (
                "*" if each == taken else "",
                each.entry.spec.name,
                each.precision,
                f"{each.accuracy:.2f}",
                f"{format_ms(each.ms)}{'' if each.ms <= chosen.budget else ' (too slow)'}",
                f"{each.quiet} of {each.visits}",
                each.entry.weights or "-",
                each.entry.license,
            )
            for each in chosen.candidates[first : first + SHOWN]
        ),
        align="lllrrrll",
    )
    typer.echo(
        f"{chosen.measured} measured now, {len(chosen.candidates) - chosen.measured} before; {chosen.unmeasured} more"
        " accurate ones have too many MACs; latencies: at this machine's best speed; top-1: quoted, of fp32"
    )
    if not taken.quiet:
        typer.echo(f"this machine was never undisturbed while it measured {taken.entry.spec.name}: that is less sure")
    if taken.precision == "int8":
        typer.echo("int8 loses some of the quoted accuracy: `scalenet-zoo benchmark --data` measures how much")
        if not made_int8:
            typer.echo(f"the int8 file: {command_for(taken.entry, setting.backend, taken.precision)}")


def chosen_json(chosen: "Choice") -> dict[str, object]:
    """The same for programs; all candidates, the most accurate first."""
    return {
        **chosen.setting.model_dump(mode="json"),
        "budget_ms": chosen.budget,
        "precisions": chosen.precisions,
        "taken": _candidate_json(chosen.taken),
        "candidates": [_candidate_json(each) for each in chosen.candidates],
        "measured": chosen.measured,
        "too_many_macs": chosen.unmeasured,
    }


def _candidate_json(candidate: "MeasuredEntry") -> dict[str, object]:
    entry = candidate.entry
    return {
        "name": entry.spec.name,
        "precision": candidate.precision,
        "top1": candidate.accuracy,
        "top1_of": entry.origin,
        "weights": entry.weights,
        "license": entry.license,
        "macs": entry.spec.cost.macs,
        "measured_ms": candidate.ms,
        "quiet_visits": candidate.quiet,
        "visits": candidate.visits,
    }
