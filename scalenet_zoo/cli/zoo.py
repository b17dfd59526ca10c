"""`list` and `show`: the entries of the zoo."""

from typing import TYPE_CHECKING, Annotated

import typer

from scalenet_zoo.cli.completion import complete_model
from scalenet_zoo.cli.options import Json, TaskName

if TYPE_CHECKING:
    from scalenet_zoo.zoo.published import PublishedEntry

LABEL = 10
"""The width of the names of facts below the table of `show`."""
TaskOption = Annotated[TaskName | None, typer.Option(help="Only entries for this task.")]


def list_command(
    pattern: Annotated[
        str, typer.Argument(help="A shell pattern for names, such as 'scalenet_*'.", autocompletion=complete_model)
    ] = "*",
    task: TaskOption = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only entries with published weights.")] = False,
    as_json: Json = False,
) -> None:
    """List the zoo's entries with their cost and accuracy.

    The weights are those that --pretrained loads, and the number of further tags; top-1 is the accuracy that timm
    reports for them. The last column has results that other sources report.

    Example: scalenet-zoo list 'scalenet_*'
    """
    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.core.quantities import format_count
    from scalenet_zoo.zoo.catalog import list_models
    from scalenet_zoo.zoo.published import is_of_weights, published_entries
    from scalenet_zoo.zoo.sources import load_spec

    specs = [load_spec(name) for name in list_models(pattern, task.value if task else None, pretrained)]
    published = published_entries()
    if as_json:
        shown = (spec.model_dump(mode="json", exclude={"network", "format", "version"}) for spec in specs)
        print_json(
            [
                {
                    **entry,
                    "pretrained": entry["name"] in published,
                    "tags": list(published[entry["name"]].tags) if entry["name"] in published else [],
                }
                for entry in shown
            ]
        )
        return
    print_table(
        ("name", "task", "input", "MACs", "params", "top-1", "weights", "reported"),
        (
            (
                spec.name,
                spec.task,
                f"{spec.input.height}x{spec.input.width}",
                format_count(spec.cost.macs),
                format_count(spec.cost.params),
                *(_default_weights(published[spec.name]) if spec.name in published else ("-", "-")),
                "; ".join(
                    f"{r.value:g} {r.metric} ({r.origin})"
                    for r in spec.provenance.results
                    if not is_of_weights(r)  # the columns before have them
                )
                or "-",
            )
            for spec in specs
        ),
        align="llrrrrww",
        least=("reported", "task"),
    )


def _default_weights(entry: "PublishedEntry") -> tuple[str, str]:
    """Format the top-1 accuracy of an entry's default weights, and their tag with the number of further tags."""
    weights, more = entry.default, len(entry.weights) - 1
    result = weights.result_at(entry.pixels)
    name = weights.tag if result else f"{weights.tag}, backbone"
    return f"{result.top1:.1f}" if result else "-", f"{name} (+{more})" if more else name


def show_command(
    spec: Annotated[
        str,
        typer.Argument(
            help="An entry, with a tag or without, a spec's JSON file, hf-hub:org/name or a folder.",
            autocompletion=complete_model,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a network's layers with their MACs and parameters.

    The table has sums per stage and in total; below it are the source, the published weights and the reported results.

    Example: scalenet-zoo show scalenet_s0
    """
    from dataclasses import asdict

    from scalenet_zoo.arch.layer_table import layer_table
    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.zoo.published import is_of_weights, published_entry, published_weights
    from scalenet_zoo.zoo.sources import load_spec

    arch = load_spec(spec)
    rows = layer_table(arch)
    peak = arch.trace.peak_activation_bytes
    published, taken = published_entry(arch), published_weights(arch)
    if as_json:
        print_json(
            {
                **arch.model_dump(mode="json"),
                "hash": arch.hash,
                "peak_activation_bytes": peak,
                "published": [each.model_dump(mode="json") for each in published.weights] if published else [],
                "pretrained": taken.timm if taken else None,
                "layers": [asdict(row) for row in rows],
            }
        )
        return

    lines: list[tuple[object, ...]] = []
    for stage in dict.fromkeys(row.stage for row in rows):
        members = [row for row in rows if row.stage == stage]
        lines += [(r.name, r.what, "x".join(map(str, r.output)), f"{r.macs:,}", f"{r.params:,}") for r in members]
        if len(members) > 1:
            macs, params = sum(r.macs for r in members), sum(r.params for r in members)
            lines += [(f"= {stage}", "", "", f"{macs:,}", f"{params:,}"), ()]
    lines.append(("= total", "", "", f"{arch.cost.macs:,}", f"{arch.cost.params:,}"))
    size = f"{arch.input.channels}x{arch.input.height}x{arch.input.width}"
    typer.echo(f"{arch.name}: {arch.task}, input {size}\n")
    print_table(("layer", "what", "output", "MACs", "params"), lines, align="lwlrr")
    typer.echo()
    _say("memory", f"{peak / 2**20:.1f} MiB for the activations of one fp32 image")
    _say("hash", arch.hash)
    _say("source", arch.provenance.source)
    for weights in published.weights if published else ():
        quoted = ", ".join(f"{each.top1:.1f} top-1 at {each.pixels}" for each in weights.results)
        about = f"{weights.timm}: {quoted}" if quoted else weights.timm
        _say("weights", f"{about}{' (--pretrained)' if weights == taken else ''}")
    for result in arch.provenance.results:
        if not (published and is_of_weights(result)):  # the lines before have these
            _say("reported", f"{result.value:g} {result.metric} on {result.data} ({result.origin})")


def _say(name: str, value: str) -> None:
    """Print a fact below the table of layers."""
    from scalenet_zoo.cli.console import say

    say(f"{name:<{LABEL}}{value}", indent=LABEL)
