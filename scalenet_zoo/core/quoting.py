"""Text from files, made fit to be shown: on one line, and without what a terminal would obey."""

import reprlib
import unicodedata

from scalenet_zoo.core.bounds import QUOTED_CHARACTERS

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that control or format: ESC, newlines, marks of direction."""
_JOINERS = "\u200c\u200d"
"""Format characters that words of some scripts, and emoji, are spelt with."""


def printable(text: str) -> str:
    r"""A text with its control characters shown as Python writes them: a newline becomes \n, ESC \x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escaped(character) for character in text)


def quoted(value: object, characters: int = QUOTED_CHARACTERS) -> str:
    """What was found, as Python writes it: printable, and at most so many characters; the middle may be left out."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = characters
    return elide(printable(brief.repr(value)), characters)


def elide(text: str, characters: int) -> str:
    """A text of at most so many characters: of a longer one the beginning and the end."""
    if len(text) <= characters:
        return text
    end = (characters - 3) // 2
    return f"{text[: characters - 3 - end]}...{text[len(text) - end :]}"


def _is_shown(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
