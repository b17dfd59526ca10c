"""The report of a run: one self-contained HTML page, RUN/report/index.html, with its figures as PNG files beside it.

    run's folder --data--> run --sections, scalenet or scalenas--> text, tables, figures --report.html--> page

The page loads nothing from elsewhere. It contains each figure as an SVG image. Where JavaScript runs, interactive
charts take the place of the plots; the content policy allows only the scripts inside the page.
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
from scalenet_zoo.core.pages import embed_json, plotly_script, read_script, render_page, script_policy
from scalenet_zoo.search.report.charts import to_chart
from scalenet_zoo.search.report.data import read_run
from scalenet_zoo.search.report.next_commands import NextCommand
from scalenet_zoo.search.report.plots import STYLE, draw_plot
from scalenet_zoo.search.report.scalenas import ScaleNASReport
from scalenet_zoo.search.report.scalenet import ScaleNetReport
from scalenet_zoo.search.report.sections import MethodReport, Picture

REPORTS: Mapping[str, type[MethodReport[Any]]] = {"scalenet": ScaleNetReport, "scalenas": ScaleNASReport}
PAGE = "index.html"
GENERATOR = "scalenet-zoo report"
"""The page names its generator; only a folder with such a page may be replaced."""
_HERE = "scalenet_zoo.search.report"


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the page and the figures of a run, and replace an older report.

    Args:
        run: the folder of a search.
        output: the folder to write; None: RUN/report.

    Returns:
        The path of the page.

    Raises:
        InputError: `run` is not the folder of a run, or one of its files cannot be read.
        SpecError: a file of the run is damaged.
        TrainingError: the log of the supernet's training is damaged.
        OutputError: `output` cannot be written, or contains something other than a report.
    """
    output = output or run / "report"
    _check_output(output)
    found = read_run(run)
    report = REPORTS[found.method](found)
    with matplotlib.rc_context(STYLE), replacing_folder(output) as folder:
        sections = report.sections()
        pictures = [part for section in sections for part in section.parts if isinstance(part, Picture)]
        figures = {p.name: p.content if isinstance(p.content, Figure) else draw_plot(p.content) for p in pictures}
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})
        charts = {p.name: to_chart(p.content) for p in pictures if not isinstance(p.content, Figure)}
        scripts = (plotly_script(), read_script(_HERE, "report.js")) if charts else ()
        page = render_page(
            _HERE,
            "report.html",
            title=report.title,
            headline=report.headline,
            commands=report.next_commands,
            sections=sections,
            images={name: _embed(figure) for name, figure in figures.items()},
            charts=charts,
            data=embed_json(charts),
            scripts=scripts,
            policy=script_policy(*scripts) or "'none'",
            generator=GENERATOR,
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
    return output / PAGE


def _check_output(output: Path) -> None:
    """Refuse a folder with other files: only an older report may be replaced."""
    if not output.is_dir() or not any(output.iterdir()):
        return
    page = output / PAGE
    if not page.is_file() or f'content="{GENERATOR}"' not in page.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{output}: found a folder with other files, expected a new one or that of a report")


def _embed(figure: Figure) -> tuple[str, int, int]:
    """Return a figure as the data URL of an SVG image, with its width and height in CSS pixels."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    width, height = figure.get_size_inches() * 96
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode()}", round(width), round(height)


def next_commands(run: Path) -> list[NextCommand]:
    """Return the commands for the networks that a finished search found, as the page shows them.

    Raises:
        InputError, SpecError, TrainingError: as for `write_report`.
    """
    found = read_run(run)
    return REPORTS[found.method](found).use_commands()
