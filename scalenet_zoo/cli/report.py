"""`report`: the course and the results of a search, as a page."""

from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import Json


def report_command(
    run: Annotated[Path, typer.Argument(help="The folder of a search.")],
    output: Annotated[Path | None, typer.Option(help="The folder to write to; RUN/report if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a search as one HTML page.

    The search may still be running. The figures are also written as PNG files beside the page.

    Example: scalenet-zoo report runs/imagenette
    """
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.cli.progress import progress
    from scalenet_zoo.search.report.page import write_report

    with progress("drawing the report"):
        page = write_report(run, output)
    if as_json:
        print_json({"page": str(page), "figures": sorted(str(path) for path in page.parent.glob("*.png"))})
        return
    say(f"wrote {page}")
