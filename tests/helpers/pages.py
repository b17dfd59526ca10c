"""Pages of HTML, taken apart."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        tables: rows of cells, header included, of every table, by the section that it is in.
        text: of every section.
        addresses: all that an attribute points to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.text: dict[str, str] = {"": ""}
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.section, self.cell = "", False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        names = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")
        self.addresses += [values[name] or "" for name in names if name in values]
        if tag == "section":
            self.section = values["id"] or ""
            self.text[self.section] = ""
        elif tag == "table":
            self.tables.setdefault(self.section, []).append([])
        elif tag == "tr":
            self.tables[self.section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.section][-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        self.text[self.section] += data
        if self.cell:
            self.tables[self.section][-1][-1][-1] += data
