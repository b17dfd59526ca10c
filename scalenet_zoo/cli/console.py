"""Printing: tables and JSON on standard output, progress and notices on standard error."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quoting import printable

LINE_SECONDS = 30.0
"""Between lines about progress in a file or pipe."""


def print_json(value: object) -> None:
    """Print figures for programs."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    typer.echo(text.encode("utf-8", "backslashreplace").decode())  # names of files that are not UTF-8


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> None:
    """Print a table.

    Where nobody watches (a file, a pipe) nothing is cut off.

    Args:
        columns: the header.
        rows: their cells; a row without cells is left empty.
        align: "l" (text) or "r" (figures) for every column.
    """
    table = Table(box=None, pad_edge=False)
    for column, side in zip(columns, align, strict=True):
        table.add_column(Text(column), justify="left" if side == "l" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 1000)
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def say(text: str, err: bool = False) -> None:
    """Print a line that quotes files: a path, a class, what is wrong with an image."""
    typer.echo(printable(text), err=err)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show that something is being worked on, and for how long, where somebody watches."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(Text(printable(what))):  # a str would be taken for markup
        yield


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """Give a function to tell what is being done, how much is done, and of how much; a bar where somebody watches.

    It is drawn when told something, not all the time: it takes no time from what is being measured. Of work whose end
    is not known (a total of 0) only that it goes on is shown. Where nobody watches, a line now and then.
    """
    if not sys.stderr.isatty():
        yield _lines_now_and_then()
        return
    from rich.progress import Progress, TextColumn
    from rich.status import Status

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), *Progress.get_default_columns()[1:])
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    task = bar.add_task("")
    status: Status | None = None

    def end() -> None:
        nonlocal status
        bar.stop()
        if status:
            status.stop()
            status = None

    def tell(what: str, done: int, total: int) -> None:
        nonlocal status
        if not total:
            end()
            status = console.status(Text(printable(what)))
            status.start()
            return
        if status:
            end()
        bar.start()
        bar.update(task, description=printable(what), completed=done, total=total, refresh=True)

    try:
        yield tell
    finally:
        end()


def _lines_now_and_then() -> OnProgress:
    told = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if total and time.monotonic() - told >= LINE_SECONDS:
            say(f"{what}: {done} of {total}", err=True)
            told = time.monotonic()

    return tell


@contextmanager
def progress_lines(shown: bool = True) -> Iterator[OnProgress]:
    """The same for work of hours: where nobody watches, a line whenever there is something new to tell."""
    if shown and sys.stderr.isatty():
        with progress_bar() as advance:
            yield advance
        return
    told = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if shown and total and what != told:
            say(what, err=True)
        told = what

    yield tell
