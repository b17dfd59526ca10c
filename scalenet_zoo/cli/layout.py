"""How a table fits a terminal: names and numbers are never cut, whatever the width.

The rule has three steps; each applies only if the one before is not enough:

1. Columns of text wrap between words.
2. Columns are left out, the least important first.
3. The table is printed in parts, one below the other, each with the first column.

Where the width is unknown (a file, a pipe), the table is printed at its full width.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2
"""Spaces between two columns."""
TEXT_WIDTH = 16
"""A column of text wraps at this width or above; a longer word in it widens it."""

_Part = dict[int, int]
"""The columns that a part of a table shows, by number, with their widths in characters."""


@dataclass(frozen=True)
class Layout:
    """How a table is printed.

    Attributes:
        parts: the columns of each part, with their widths.
        left_out: the names of the columns that no part shows.
    """

    parts: tuple[_Part, ...]
    left_out: tuple[str, ...]


def lay_out(
    columns: Sequence[str], cells: Sequence[Sequence[str]], align: str, least: Sequence[str], width: int | None
) -> Layout:
    """Choose the columns of a table and their widths.

    Args:
        columns: the header.
        cells: the cells of each row; a row without cells is an empty line.
        align: one letter per column: "l" for names, "r" for figures, "w" for text that may wrap.
        least: columns that may be left out, the least important first.
        width: the characters of a line; None: as many as the table needs.
    """
    texts = [[name, *(row[i] for row in cells if row)] for i, name in enumerate(columns)]
    full = {i: max(map(cell_len, column)) for i, column in enumerate(texts)}
    if width is None:
        return Layout((full,), ())
    narrow = {i: _narrowest(column) if align[i] == "w" else full[i] for i, column in enumerate(texts)}
    narrow = {i: min(narrow[i], full[i]) for i in narrow}
    kept, left_out = list(full), list[str]()
    for name in least:
        if _total([narrow[i] for i in kept]) <= width:
            break
        if name in columns:
            kept.remove(columns.index(name))
            left_out.append(name)
    parts = [[kept[0]]]
    for i in kept[1:]:
        if len(parts[-1]) > 1 and _total([narrow[j] for j in (*parts[-1], i)]) > width:
            parts.append([kept[0]])
        parts[-1].append(i)
    return Layout(tuple(_widened(part, narrow, full, width) for part in parts), tuple(left_out))


def draw_part(columns: Sequence[str], cells: Sequence[Sequence[str]], align: str, part: _Part) -> list[str]:
    """Draw one part of a table as lines, with the terminal's codes for bold headers."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP // 2))
    for i, width in part.items():
        side: Literal["left", "right"] = "right" if align[i] == "r" else "left"
        table.add_column(Text(columns[i]), justify=side, width=width, no_wrap=align[i] != "w", overflow="fold")
    for row in cells:
        table.add_row(*(Text(row[i]) for i in part if row))
    console = Console(file=StringIO(), width=_total(list(part.values())), force_terminal=True, legacy_windows=False)
    with console.capture() as printed:
        console.print(table)
    return [re.sub(r" +(\x1b\[0m)?$", r"\1", line) for line in printed.get().splitlines()]


def _narrowest(column: Sequence[str]) -> int:
    """The width at which a column of text still keeps each word whole."""
    return max(TEXT_WIDTH, *(cell_len(word) for text in column for word in (text.split() or [""])))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _widened(part: Sequence[int], narrow: _Part, full: _Part, width: int) -> _Part:
    """The widths of a part's columns; columns of text share the room that is left."""
    widths = {i: narrow[i] for i in part}
    for i in part:
        spare = max(0, width - _total(list(widths.values())))
        widths[i] = min(full[i], widths[i] + spare)
    return widths
