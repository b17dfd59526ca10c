"""Printing: tables and JSON on standard output, notices on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console

from scalenet_zoo.core.quoting import printable


def print_json(value: object) -> None:
    """Print figures for programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    typer.echo(text.encode("utf-8", "backslashreplace").decode())  # names of files that are not UTF-8


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], align: str, least: Sequence[str] = ()
) -> None:
    """Print a table in which every name and every number stays whole; the rule is that of `cli/layout.py`.

    Args:
        columns: the header.
        rows: the cells of each row; a row without cells is an empty line.
        align: one letter per column: "l" for names, "r" for figures, "w" for text that may wrap.
        least: columns that may be left out in a narrow terminal, the least important first.
    """
    from scalenet_zoo.cli.layout import draw_part, lay_out

    cells = [[printable(str(cell)) for cell in row] for row in rows]
    layout = lay_out(columns, cells, align, least, _width())
    for number, part in enumerate(layout.parts):
        if number:
            typer.echo()
        typer.echo("\n".join(draw_part(columns, cells, align, part)))
    if layout.left_out:
        note = f"columns left out at {_width()} characters: {', '.join(layout.left_out)}; --json has all"
        typer.echo("\n".join(typer.style(line, dim=True) for line in _wrapped(note, 0)))


def say(text: str, err: bool = False, indent: int = 0) -> None:
    """Print a line that may quote files: a path, a class, the reason why an image is unreadable.

    In a terminal, the line wraps between words, and its further lines are indented by `indent`.
    """
    stream = sys.stderr if err else sys.stdout
    lines = _wrapped(printable(text), indent) if stream.isatty() else [printable(text)]
    typer.echo("\n".join(lines), err=err)


def _width() -> int | None:
    """The width of the terminal; None: standard output is no terminal."""
    return Console().width if sys.stdout.isatty() else None


def _wrapped(text: str, indent: int) -> list[str]:
    """The lines of a text, broken between words at the width of the terminal; a word is never broken."""
    from textwrap import wrap

    width, hanging = Console().width, " " * indent
    return wrap(text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False) or [""]
