"""Text for Markdown pages."""

import re


def escaped(text: str) -> str:
    """Escape what Markdown and HTML would read as markup, outside `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[])", r"\\\1", part) for part in parts)


def cell(text: str) -> str:
    """Escape a text for a cell of a table: one line, without the bars that separate cells."""
    return escaped(" ".join(text.split())).replace("|", "\\|")
