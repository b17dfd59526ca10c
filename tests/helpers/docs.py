"""Pages of the documentation: the blocks in them, and the commands that their blocks show."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ELLIPSIS = "..."


@dataclass(frozen=True)
class Shown:
    """A command on a page.

    Attributes:
        command: what a reader types, in one line.
        output: the lines of its output that the page shows, without those that stand for others.
    """

    command: str
    output: tuple[str, ...]


def page(name: str) -> str:
    """The text of a page, by its path in docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of a page's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run_commands(text: str) -> list[Shown]:
    """The commands in `console` blocks, which tests run."""
    return [shown for block in blocks(text, "console") for shown in _shown(block)]


def other_commands(text: str) -> list[str]:
    """The commands in `sh` blocks, which need what a test does not have."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _shown(block: str) -> Iterator[Shown]:
    for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield Shown(command, tuple(line for line in output if line.strip() and line != ELLIPSIS))
