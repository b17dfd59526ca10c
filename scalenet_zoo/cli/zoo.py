"""`list` and `show`: what the zoo holds."""

from typing import Annotated

import typer

from scalenet_zoo.cli.options import Json, TaskName

TaskOption = Annotated[TaskName | None, typer.Option(help="Only entries for this task.")]


def list_command(
    pattern: Annotated[str, typer.Argument(help="A shell pattern for names.")] = "*",
    task: TaskOption = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only entries with published weights.")] = False,
    as_json: Json = False,
) -> None:
    """List the zoo's entries with their cost.

    Example: scalenet-zoo list 'scalenet_*'
    """
    from scalenet_zoo.cli.console import print_json, print_table
    from scalenet_zoo.core.quantities import format_count
    from scalenet_zoo.zoo.catalog import PUBLISHED, list_models
    from scalenet_zoo.zoo.sources import load_spec

    specs = [load_spec(name) for name in list_models(pattern, task.value if task else None, pretrained)]
    if as_json:
        entries = (spec.model_dump(mode="json", exclude={"network", "format", "version"}) for spec in specs)
        print_json([{**entry, "pretrained": entry["name"] in PUBLISHED} for entry in entries])
        return
    print_table(
        ("name", "task", "weights", "input", "MACs", "params", "reported"),
        (
            (
                spec.name,
                spec.task,
                "timm" if spec.name in PUBLISHED else "-",
                f"{spec.input.height}x{spec.input.width}",
                format_count(spec.cost.macs),
                format_count(spec.cost.params),
                "; ".join(f"{r.value:g} {r.metric} ({r.origin})" for r in spec.provenance.results) or "-",
            )
            for spec in specs
        ),
        align="lllrrrl",
    )


def show_command(
    spec: Annotated[str, typer.Argument(help="A name of the zoo, a spec's JSON file, hf-hub:org/name or a folder.")],
    as_json: Json = False,
) -> None:
    """Show a spec: its layers with their MACs and parameters, sums per stage, and totals.

    Example: scalenet-zoo show scalenet_s0
    """
    from dataclasses import asdict

    from scalenet_zoo.arch.layer_table import layer_table
    from scalenet_zoo.cli.console import print_json, print_table, say
    from scalenet_zoo.zoo.sources import load_spec

    arch = load_spec(spec)
    rows = layer_table(arch)
    peak = arch.trace.peak_activation_bytes
    if as_json:
        print_json(
            {
                **arch.model_dump(mode="json"),
                "hash": arch.hash,
                "peak_activation_bytes": peak,
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
    print_table(("layer", "", "output", "MACs", "params"), lines, align="llrrr")
    typer.echo(f"\npeak activations  {peak / 2**20:.1f} MiB for one fp32 image\nhash              {arch.hash}")
    say(f"source            {arch.provenance.source}")
    for result in arch.provenance.results:
        say(f"reported          {result.value:g} {result.metric} on {result.data} ({result.origin})")
