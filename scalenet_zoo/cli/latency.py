"""The output of `build --latency`: predictions and measurements."""

from typing import TYPE_CHECKING

import typer

from scalenet_zoo.core.quantities import format_count, format_ms

if TYPE_CHECKING:
    from scalenet_zoo.explore.choice import Choice, MeasuredEntry
    from scalenet_zoo.latency.budget import LatencyChoice


def print_found(found: "LatencyChoice") -> None:
    """Print the networks that were tried, with predicted and measured latencies; the last one meets the budget."""
    from scalenet_zoo.cli.console import print_table, say

    settings = found.settings
    threads = f"{settings.threads} CPU thread{'s' if settings.threads > 1 else ''}"
    how = f"{settings.precision}, batch of {settings.batch}, {threads}"
    typer.echo()
    say(f"latency on {settings.backend}: {how}; measured at this machine's best speed")
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
        least=("quiet", "visits"),
    )
    if unsure := [f"{each.spec.name} ({format_ms(each.measured)})" for each in found.attempts if not each.quiet]:
        say(f"other work disturbed every measurement of {', '.join(unsure)}: these latencies are less certain")


def found_json(found: "LatencyChoice") -> dict[str, object]:
    """Return the same as plain values, for JSON."""
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
"""The number of candidates that `print_chosen` prints: those nearest in accuracy to the one that is taken."""


def print_chosen(chosen: "Choice", made_int8: bool) -> None:
    """Print the published networks that were compared, and why one of them is taken.

    Args:
        chosen: the compared networks, and the one that is taken.
        made_int8: whether an int8 file was written, if int8 is the precision that is taken.
    """
    from scalenet_zoo.cli.console import print_table, say
    from scalenet_zoo.explore.entries import command_for

    taken, setting = chosen.taken, chosen.setting
    threads = f"{setting.threads} CPU thread{'s' if setting.threads > 1 else ''}"
    typer.echo()
    say(
        f"the most accurate published network within {format_ms(chosen.budget)} on {setting.backend}, batch of"
        f" {setting.batch}, {threads}: {taken.entry.spec.name} in {taken.precision}"
    )
    say("(--family FAMILY fits a network of that family to the latency instead, and starts it from published weights)")
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
        least=("quiet", "weights", "licence"),
    )
    say(
        f"{chosen.measured} measured now, {len(chosen.candidates) - chosen.measured} earlier; {chosen.unmeasured} more"
        " accurate networks have too many MACs; latencies are at this machine's best speed; top-1 is quoted, for fp32"
    )
    if not taken.quiet:
        say(f"other work disturbed every measurement of {taken.entry.spec.name}: its latency is less certain")
    if taken.precision == "int8":
        say("int8 loses some of the quoted accuracy: `scalenet-zoo benchmark --data` measures how much")
        if not made_int8:
            say(f"to write the int8 file: {command_for(taken.entry, setting.backend, taken.precision)}")


def chosen_json(chosen: "Choice") -> dict[str, object]:
    """Return the same as plain values, for JSON, with all candidates, the most accurate first."""
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
