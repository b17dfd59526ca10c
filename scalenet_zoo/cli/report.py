"""`report`: what a search did and found, as a page."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import Json


def report_command(
    run: Annotated[Path, typer.Argument(help="The folder of a search.")],
    output: Annotated[Path | None, typer.Option(help="The folder to write; RUN/report if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a search, ended or not, with its figures as PNG files beside it.

    Example: scalenet-zoo report runs/imagenette
    """
    from scalenet_zoo.cli.console import print_json, progress
    from scalenet_zoo.search.report.page import write_report

    with progress("drawing"):
        page = write_report(run, output)
    if as_json:
        print_json({"page": str(page), "figures": sorted(str(path) for path in page.parent.glob("*.png"))})
        return
    typer.echo(f"wrote {page}")
