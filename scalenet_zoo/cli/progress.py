"""Progress of long work on standard error: one line with a bar, a percentage and the time left, or plain lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scalenet_zoo.cli.console import say
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_duration
from scalenet_zoo.core.quoting import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status

LINE_SECONDS = 30.0
"""The least time between two plain lines about the same work."""
BAR_WIDTH = 20
"""Characters of the bar; the text before it takes what the terminal has left."""


class Pace:
    """An estimate of the time left, from the speed since the work began or was resumed."""

    def __init__(self) -> None:
        self._total, self._first, self._last, self._began = 0, 0, 0, 0.0

    def left(self, done: int, total: int) -> float | None:
        """Return the seconds left when `done` of `total` parts are done; None: too little is known."""
        if total != self._total or done < self._last:  # other work
            self._total, self._first, self._began = total, done, time.monotonic()
        self._last = done
        if done == self._first:
            return None
        return (time.monotonic() - self._began) / (done - self._first) * (total - done)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show in a terminal that something is being done; elsewhere nothing is printed."""
    from rich.console import Console
    from rich.text import Text

    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(Text(printable(what))):  # a str would be read as markup
        yield


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[OnProgress]:
    """Yield a function that shows progress: what is being done, how much of it is done, and the total.

    In a terminal it draws one line, which never wraps. It draws only when it is called, so it takes no time from what
    is being measured. If the total is 0 (unknown), the line shows only what is being done. Outside of a terminal it
    prints a plain line at most every `LINE_SECONDS`.

    Args:
        shown: whether to show anything: processes other than the first show nothing.
    """
    if not shown:
        yield lambda what, done, total: None
    elif not sys.stderr.isatty():
        yield _plain_lines()
    else:
        line = _Line()
        try:
            yield line
        finally:
            line.end()


@contextmanager
def progress_lines(shown: bool = True) -> Iterator[OnProgress]:
    """Yield a function like that of `progress_bar`; outside of a terminal it prints a line for each new task."""
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


class _Line:
    """The line in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console, self._pace = Console(stderr=True), Pace()
        self._bar: Progress | None = None
        self._status: Status | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        from rich.text import Text

        if not total:
            self.end()
            self._status = self._console.status(Text(printable(what)[: self._console.width - 4]))
            self._status.start()
            return
        if self._bar is None:
            self.end()
            self._bar = _bar(self._console)
            self._bar.add_task("", left="")
            self._bar.start()
        left = self._pace.left(done, total)
        self._bar.update(
            self._bar.task_ids[0],
            description=printable(what),
            completed=done,
            total=total,
            left="" if left is None else f"{format_duration(left)} left",
            refresh=True,
        )

    def end(self) -> None:
        for shown in (self._bar, self._status):
            if shown is not None:
                shown.stop()
        self._bar = self._status = None


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=BAR_WIDTH),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
        transient=True,
        auto_refresh=False,
    )


def _plain_lines() -> OnProgress:
    told, pace = time.monotonic(), Pace()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if not total:
            return
        left = pace.left(done, total)
        if time.monotonic() - told >= LINE_SECONDS:
            after = f", {format_duration(left)} left" if left else ""
            say(f"{what}: {done} of {total}{after}", err=True)
            told = time.monotonic()

    return tell
