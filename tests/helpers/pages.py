"""Pages of HTML, taken apart."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        tables: the rows of cells of every table, header included, by the section that contains it.
        text: the visible text, by section; "" is the text outside sections.
        addresses: every address that an attribute points to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.text: dict[str, str] = {"": ""}
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.section, self.cell, self.hidden = "", False, False
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
        elif tag in ("script", "style"):
            self.hidden = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False
        elif tag == "section":
            self.section = ""
        elif tag in ("script", "style"):
            self.hidden = False

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        self.text[self.section] += data
        if self.cell:
            self.tables[self.section][-1][-1][-1] += data
