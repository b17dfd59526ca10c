"""How tables fit a width: nothing is cut, whatever the cells and the width are."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from scalenet_zoo.cli.layout import TEXT_WIDTH, draw_part, lay_out

NAMES = ("name", "figure", "text", "more", "long")
WORDS = st.text("abc1é漢.,-", min_size=1, max_size=24)
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


@st.composite
def tables(draw_from: st.DrawFn) -> tuple[list[list[str]], str, tuple[str, ...]]:
    align = "l" + "".join(draw_from(st.lists(st.sampled_from("lrw"), min_size=4, max_size=4)))
    row = st.tuples(*(TEXTS if side == "w" else WORDS for side in align)).map(list)
    cells = draw_from(st.lists(st.one_of(row, st.just(list[str]())), max_size=6))
    return cells, align, tuple(draw_from(st.lists(st.sampled_from(NAMES[1:]), unique=True)))


def lines_of(
    cells: list[list[str]], align: str, least: tuple[str, ...], width: int | None
) -> tuple[list[str], set[str]]:
    layout = lay_out(NAMES, cells, align, least, width)
    lines = [line for part in layout.parts for line in draw_part(NAMES, cells, align, part)]
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines], set(layout.left_out)


@given(tables(), st.integers(1, 160))
def test_every_cell_is_whole_and_lines_fit(table: tuple[list[list[str]], str, tuple[str, ...]], width: int) -> None:
    cells, align, least = table
    lines, left_out = lines_of(cells, align, least, width)
    printed = [word for line in lines for word in line.split()]
    shown = [i for i, name in enumerate(NAMES) if name not in left_out]
    assert left_out <= set(least)
    for i in shown:
        for word in (NAMES[i], *(word for row in cells if row for word in row[i].split())):
            assert word in printed
    texts = {i: [NAMES[i], *(row[i] for row in cells if row)] for i in shown}
    narrow = {
        i: min(
            max(map(cell_len, column)),
            max(TEXT_WIDTH, *(cell_len(word) for text in column for word in text.split())) if align[i] == "w" else 999,
        )
        for i, column in texts.items()
    }
    unavoidable = narrow[0] + 2 + max((narrow[i] for i in shown[1:]), default=0)
    assert max(map(cell_len, lines), default=0) <= max(width, unavoidable)


@given(tables())
def test_a_pipe_has_each_row_on_one_line(table: tuple[list[list[str]], str, tuple[str, ...]]) -> None:
    cells, align, least = table
    lines, left_out = lines_of(cells, align, least, None)
    assert left_out == set()
    assert [line.split() for line in lines] == [" ".join(row).split() for row in (NAMES, *cells)]


def test_columns_are_left_out_in_order_and_only_as_needed() -> None:
    cells, align = [["a" * 10, "b" * 10, "c" * 10, "d" * 10, "e" * 10]], "lllll"
    for width, left_out in ((58, ()), (57, ("long",)), (46, ("long",)), (45, ("long", "figure"))):
        layout = lay_out(NAMES, cells, align, ("long", "figure"), width)
        assert layout.left_out == left_out
        assert len(layout.parts) == 1
    assert len(lay_out(NAMES, cells, align, (), 57).parts) == 2
