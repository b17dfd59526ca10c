"""A run as one HTML page with everything in it, RUN/report/index.html, and its figures as PNG files.

    run's folder --data--> run --sections, scalenet or scalenas--> text, tables, figures --report.html--> page

The page asks for nothing outside itself: figures are in it as SVG, and there are no scripts.
"""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from scalenet_zoo.core.errors import OutputError
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.pages import render_page
from scalenet_zoo.search.report.data import read_run
from scalenet_zoo.search.report.plots import STYLE
from scalenet_zoo.search.report.scalenas import ScaleNASReport
from scalenet_zoo.search.report.scalenet import ScaleNetReport
from scalenet_zoo.search.report.sections import MethodReport, Picture

REPORTS: Mapping[str, type[MethodReport[Any]]] = {"scalenet": ScaleNetReport, "scalenas": ScaleNASReport}
PAGE = "index.html"
GENERATOR = "scalenet-zoo report"
"""Stands in the page: a folder with such a page may be replaced."""


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write a run's page and its figures, in place of an older report.

    Args:
        run: the folder of a search.
        output: the folder to write; None: RUN/report.

    Returns:
        The page.

    Raises:
        InputError: `run` is no run, or a file of it cannot be read.
        SpecError: a file of it is damaged.
        OutputError: `output` cannot be written, or holds something that is no report.
    """
    output = output or run / "report"
    _check_output(output)
    found = read_run(run)
    report = REPORTS[found.method](found)
    with matplotlib.rc_context(STYLE), replacing_folder(output) as folder:
        sections = report.sections()
        pictures = [part for section in sections for part in section.parts if isinstance(part, Picture)]
        for picture in pictures:
            picture.figure.savefig(folder / f"{picture.name}.png", metadata={"Software": None})
        page = render_page(
            "scalenet_zoo.search.report",
            "report.html",
            title=report.title,
            summary=report.summary,
            sections=sections,
            images={picture.name: _embed(picture.figure) for picture in pictures},
            generator=GENERATOR,
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
    return output / PAGE


def _check_output(output: Path) -> None:
    """Only an older report is replaced: not a folder that somebody named by mistake."""
    if not output.is_dir() or not any(output.iterdir()):
        return
    page = output / PAGE
    if not page.is_file() or f'content="{GENERATOR}"' not in page.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{output}: found a folder with other files, expected a new one or that of a report")


def _embed(figure: Figure) -> tuple[str, int, int]:
    """A figure as the address of an SVG image that holds it, with its width and height in CSS pixels."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    width, height = figure.get_size_inches() * 96
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode()}", round(width), round(height)
